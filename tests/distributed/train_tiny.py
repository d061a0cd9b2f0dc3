"""Trains two tiny nights, a resumed one and one with rollouts: ``train_tiny.py <output folder> <items per step>``.

Run by one process or by several with the same number of items per step in all; the result must be the same.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, TrainerCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_night import losses, tiny_config, tiny_trainer  # noqa: E402

from sleepkit.language.experts.bank import ExpertBank  # noqa: E402
from sleepkit.language.experts.units import ExpertBankConfig  # noqa: E402


class CountSplit(TrainerCallback):
    """Parameters that are not whole between two steps: some under ZeRO-3, none else."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.count = sum(parameter.numel() == 0 for parameter in model.parameters())


def tiny_run(*args, **options):
    """A trainer; ZeRO-3 may keep small parameters whole, which is all that a tiny model has, so it is told not to."""
    trainer = tiny_trainer(*args, **options)
    plugin = trainer.accelerator.state.deepspeed_plugin
    if plugin is not None:
        plugin.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return trainer


def main() -> None:
    folder, size = Path(sys.argv[1]), int(sys.argv[2]) // int(os.environ.get("WORLD_SIZE", "1"))
    options = {"per_device_train_batch_size": size, "max_steps": 3, "rollout_every": 2, "save_strategy": "steps", "save_steps": 2}
    count = CountSplit()
    kept = tiny_config(folder)  # while these live, ZeRO-3 splits a model as it is loaded
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    split_when_loaded = sum(parameter.numel() == 0 for parameter in model.parameters())
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=3, width=8))
    for night in range(2):  # the second night starts on what the first one left
        trainer = tiny_run(folder / f"night_{night}", model=model, seed=night, **options)
        trainer.add_callback(count)
        trainer.run()
    assert kept.process_index == trainer.args.process_index
    with torch.no_grad():
        logits = model(torch.arange(20)[None]).logits  # the model can be used when the night is over
    state = bank.state_dict()
    main_process = trainer.args.process_index == 0

    bank.deactivate(1)  # the second night again, from its middle
    if main_process:
        shutil.rmtree(folder / "night_1" / "checkpoint-3")
    trainer.accelerator.wait_for_everyone()
    again = tiny_run(folder / "night_1", model=model, seed=1, **options)
    again.run()
    resumed = bank.state_dict()

    options["save_strategy"] = "no"
    rollouts = tiny_run(folder / "night_2", model=model, seed=2, lmbda=1.0, lmbda_start=1.0, **options)
    rollouts.run()
    if main_process:
        save_file({**state, "logits": logits.contiguous()}, folder / "state.safetensors")
        document = {
            "losses": losses(trainer),
            "resume_difference": max((resumed[name] - value).abs().max().item() for name, value in state.items()),
            "rollout_losses": losses(rollouts),
            "world": trainer.args.world_size,
            "distributed": trainer.accelerator.distributed_type.value,
            "split": count.count,
            "split_when_loaded": split_when_loaded,
            "split_after": sum(parameter.numel() == 0 for parameter in model.parameters()),
            "checkpoints": sorted(path.parent.name for path in (folder / "night_0").rglob("expert.safetensors")),
        }
        (folder / "result.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        os._exit(0)  # all is written; on a busy machine gloo's threads may abort while the interpreter ends
