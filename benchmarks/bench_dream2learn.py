"""What dreaming costs: prompts led in one batch against one at a time, and a night's dreams against its training.

    python benchmarks/bench_dream2learn.py           the procedural recipe's numbers, about two minutes on one core

    prompts    updates of a prompt per second, `prompts_per_batch` of the recipe against 1
    night      CPU seconds of a night of ER with 9 classes, and of dreams and sleep after it; the recipe's settings

The generator has random weights, which cost what trained ones do.  Writes benchmarks/results/bench_dream2learn.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from sleepkit.results import hardware, versions, write_json
from sleepkit.vision.dream2learn_learner import Dreaming, DreamingEr
from sleepkit.vision.streams import build_stream
from sleepkit.vision.tiny_diffusion import build_tiny_diffusion
from sleepkit.vision_arguments import parse_dream2learn
from sleepkit.vision_run import build_model

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bench_dream2learn.json"
RECIPE = ROOT / "recipes" / "configs" / "dream2learn" / "procedural_cpu.yaml"
NIGHTS = 3  # of which the last is measured
UPDATES, TURNS = 2, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        build_tiny_diffusion(["red", "square"]).save_pretrained(folder / "generator")
        command = ["--config", str(RECIPE), "--generator", str(folder / "generator"), "--output_dir", str(folder / "run")]
        found = {"night": night(command, folder), "prompts": prompts(command, folder)}
    write_json(options.output, {"dream2learn": found, "versions": versions(), "hardware": hardware()})
    print(f"written to {options.output}")


def learner(command: list[str]) -> Dreaming:
    from sleepkit.vision.images import load_images

    args, config = parse_dream2learn([*command, "--judge_epochs", "0"])
    stream = build_stream(load_images(args.dataset), args.scenario, args.experiences)
    torch.manual_seed(0)
    return DreamingEr(build_model(args, stream), config, stream)


def night(command: list[str], folder: Path) -> dict[str, float]:
    """CPU seconds of the last night's learning and of the rest of it."""
    one = learner(command)
    spent = {}
    after_training = one.after_training

    def measured() -> None:
        start = time.process_time()
        after_training()
        spent["dreaming_and_sleep"] = time.process_time() - start

    one.after_training = measured  # type: ignore[method-assign]
    for number in range(1, NIGHTS + 1):
        one.wake(one.stream[number - 1])
        log = one.sleep(number, folder / "run")
    found = {"learning": log["cpu_seconds"] - spent["dreaming_and_sleep"], **spent, "led": log["led"]}
    found["ratio"] = found["dreaming_and_sleep"] / found["learning"]
    print("night: " + ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in found.items()), flush=True)
    return found


def prompts(command: list[str], folder: Path) -> dict[str, float]:
    """Updates of prompts per second, in batches and alone; the fastest of several turns."""
    rates: dict[int, float] = {}
    batch = parse_dream2learn(command)[1].prompts_per_batch
    for size in (batch, 1):
        more = ["--prompts_per_batch", str(size), "--dream_updates", str(UPDATES), "--dreams", str(batch), "--sleep_steps", "0"]
        one = learner([*command, *more, "--num_train_epochs", "1", "--oracle", "none"])
        one.wake(one.stream[0])
        one.night, one.folder = 1, folder / f"prompts_{size}"
        one._grow()
        one.remember()
        one.replayed = one.remembered()
        seconds = []
        for turn in range(TURNS):
            one.folder = folder / f"prompts_{size}_{turn}"
            start = time.perf_counter()
            one._dream()
            seconds.append(time.perf_counter() - start)
            one.retire(one.dreams())
        rates[size] = batch * (UPDATES + 1) / min(seconds)
    found = {"prompts_per_batch": batch, "batched_per_second": rates[batch], "alone_per_second": rates[1]}
    found["speedup"] = rates[batch] / rates[1]
    print("prompts: " + ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in found.items()), flush=True)
    return found


if __name__ == "__main__":
    main()
