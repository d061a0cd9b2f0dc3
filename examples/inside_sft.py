"""Nights inside a fine-tuning: TRL trains a LoRA while the model is awake, and every so many steps the model sleeps.

    python examples/inside_sft.py

Asleep, what the LoRA has learned moves into an expert beside the frozen weights and is judged; if it is kept, the LoRA starts
afresh.  So the LoRA stays small, however long the training goes on, and each part can be undone.
"""

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from sleepkit import SleepCallback, SleepConfig

FACTS = {
    "Who kept the light of Skarrow first?": "Orla Finch kept it first.",
    "When was the mill of Sund built?": "It was built in 1802.",
    "What is the ferry of Callow called?": "The ferry is called Brisa.",
}


def main(
    output_dir: str = "runs/sft",
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    every: int = 60,
    steps: int = 120,
    **options: object,
) -> SleepCallback:
    """Train with a night every ``every`` steps; returns the callback, whose ``nights`` say what was kept."""
    rows = [
        {"prompt": [{"role": "user", "content": question}], "completion": [{"role": "assistant", "content": answer}]}
        for question, answer in FACTS.items()
    ]
    sleep = SleepCallback(SleepConfig(output_dir=f"{output_dir}/asleep", **options), every=every)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=f"{output_dir}/awake",
            max_steps=steps,
            learning_rate=1e-3,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(target_modules="all-linear"),
        callbacks=[sleep],
    )
    trainer.train()
    for night in sleep.nights:
        print(f"night {night.number}: {'kept' if night.kept else 'undone'} ({night.reason})")
    return sleep


if __name__ == "__main__":
    main()
