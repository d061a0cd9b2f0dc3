"""What dreaming costs: prompts optimised in one batch against one at a time, and a night's dreams against its training.

    python benchmarks/bench_dream2learn.py           the procedural recipe's numbers, about a minute on one core

    prompts    updates of a prompt per second, `prompts_per_batch` of the recipe against 1, in its precision and in float32
    night      CPU seconds of a night of ER with 9 classes, and of the same with dreams; the recipe's settings

The generator has random weights, which cost what trained ones do.  Writes benchmarks/results/bench_dream2learn.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sleepkit.reporting.results import hardware, versions
from sleepkit.runs.arguments.images import parse_dream2learn
from sleepkit.trainers.images import build_classifier
from sleepkit.utils.files import write_json
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.dream2learn.learner import DreamingEr
from sleepkit.vision.dream2learn.tiny_diffusion import build_tiny_diffusion
from sleepkit.vision.incremental.baselines import ExperienceReplay
from sleepkit.vision.incremental.learner import ImageLearner

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bench_dream2learn.json"
RECIPE = ROOT / "recipes" / "configs" / "dream2learn" / "procedural_cpu.yaml"
NIGHTS = 3  # of which the last is measured
UPDATES, TURNS = 2, 3
CLASSES = ["--experiences", "3"]  # six of them in the first night, for as many pairs as there are dreams


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


def learner(command: list[str], method: type[ImageLearner] = DreamingEr) -> Any:
    from sleepkit.vision.data.images import load_images

    args, config = parse_dream2learn([*command, "--judge_epochs", "0"])
    stream = build_stream(load_images(args.dataset), config.scenario, config.experiences)
    torch.manual_seed(0)
    return method(build_classifier(args.backbone, config, stream), config, stream)


def night(command: list[str], folder: Path) -> dict[str, float]:
    """CPU seconds of the last night of ER without and with dreams."""
    found = {}
    for name, method in (("base", ExperienceReplay), ("dreaming", DreamingEr)):
        one = learner(command, method)
        for number in range(1, NIGHTS + 1):
            one.wake(one.stream[number - 1])
            log = one.sleep(number, folder / name)
        found[name] = log["cpu_seconds"]
    found |= {"led": log["led"], "ratio": found["dreaming"] / found["base"]}
    print("night: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)
    return found


def prompts(command: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Updates of prompts per CPU second, in batches and alone, by precision; the fastest of several turns."""
    config = parse_dream2learn(command)[1]
    batch, found = config.prompts_per_batch, {}
    for dtype in dict.fromkeys((config.generator_dtype, "float32")):
        rates = {}
        for size in (batch, 1):
            more = ["--prompts_per_batch", str(size), "--dream_updates", str(UPDATES), "--dreams", str(batch)]
            one = learner([*command, *CLASSES, *more, "--generator_dtype", dtype, "--oracle", "none"])
            one.wake(one.stream[0])
            one.night = 1
            one._grow()
            one.remember()
            one.replayed = one.remembered()
            seconds = []
            for turn in range(TURNS):
                one.folder = folder / f"prompts_{dtype}_{size}_{turn}"
                start = time.process_time()
                optimised = one._dream()["led"]
                seconds.append((time.process_time() - start) / optimised)
                one.retire(one.dreams())
            rates[size] = (UPDATES + 1) / min(seconds)
        found[dtype] = {"prompts_per_batch": batch, "batched_per_second": rates[batch], "alone_per_second": rates[1]}
        found[dtype]["speedup"] = rates[batch] / rates[1]
        told = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in found[dtype].items())
        print(f"prompts, {dtype}: {told}", flush=True)
    return found


if __name__ == "__main__":
    main()
