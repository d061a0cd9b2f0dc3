"""What each part of a night of Dream2Learn brings: one sleep from the same evening, again and again, with one thing changed.

    python recipes/dream2learn.py --config recipes/configs/dream2learn/mnist_cpu.yaml --dreams 0 --seeds 0 1
    python benchmarks/dream_controls.py --run runs/dream2learn_mnist_cpu --seeds 0 1 --others_dataset <Omniglot, 28 pixels>

The evening is that of the run without dreams: the classifier after it has learned the night's classes, before it sleeps.

    accuracy    on all classes met, after sleep                      probe       of the next night's classes, on features then
    assigned    of the next night's classes on the units that        own         the same among themselves only
                they are given, before they are learned              old then    of the classes met, at that moment

Written to a JSON file, in which what is there already is not done again.  There is no oracle yet in such a night: prompts make
all updates and are taken from where their score was greatest, but for those "without an oracle".
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sleepkit.reporting.results import hardware, versions
from sleepkit.runs.arguments.images import parse_dream2learn
from sleepkit.trainers.images import build_classifier
from sleepkit.utils.files import read_json, write_json
from sleepkit.vision.data.images import load_images
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.dream2learn.learner import DreamingEr
from sleepkit.vision.incremental.classifier import IncrementalClassifier

ROOT = Path(__file__).parents[1]
CONTROLS: dict[str, dict[str, Any]] = {
    "dreams": {},
    "memory alone": {"dreams": 0},
    "memory alone, 600 steps": {"dreams": 0, "memory_steps": 550},
    "no sleep": {"sleep_steps": 0, "memory_steps": 0},
    "memory not alone at the end": {"memory_steps": 0},
    "no takeover": {"assignment": "none"},
    "no repaint": {"repaint": False},
    "noise not shared": {"shared_noise": 0.0},
    "random prompts": {"dream_updates": 0, "oracle": "none"},
    "without an oracle, 2 updates": {"dream_updates": 2, "oracle": "none"},
    "without an oracle, 12 updates": {"dream_updates": 12, "oracle": "none"},
    "dreams labelled as their target": {"dream_kind": "relabelled"},
    "means of two images": {"dream_kind": "mixup"},
    "noise images": {"dream_kind": "noise"},
    "real images of other classes": {"dream_kind": "auxiliary"},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "recipes" / "configs" / "dream2learn" / "mnist_cpu.yaml"))
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished comparison with --dreams 0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--night", type=int, default=4)
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), default=list(CONTROLS))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "dream_controls_mnist.json")
    options, rest = parser.parse_known_args(argv)
    document = read_json(options.output) if options.output.is_file() else {"night": options.night, "dream_controls": {}}
    for seed in options.seeds:
        for name in options.controls:
            found = document["dream_controls"].setdefault(name, {})
            if str(seed) in found:
                continue
            with tempfile.TemporaryDirectory() as folder:
                command = ["--config", options.config, *rest, "--seed", str(seed), "--output_dir", folder]
                found[str(seed)] = asleep(command, options.run, options.night, CONTROLS[name])
            told = ", ".join(f"{key} {value:.3f}" for key, value in found[str(seed)].items())
            print(f"{name}, seed {seed}: {told}", flush=True)
            write_json(options.output, document | {"versions": versions(), "hardware": hardware()})


def asleep(command: list[str], run: Path, night: int, changed: dict[str, Any]) -> dict[str, float]:
    """One sleep, and what it is measured by."""
    args, config = parse_dream2learn(command)
    config = dataclasses.replace(config, **changed)
    data = load_images(args.dataset, image_size=config.image_size, channels=config.channels)
    order: Any = config.class_order
    stream = build_stream(data, config.scenario, config.experiences, class_order=order, seed=config.seed)
    torch.manual_seed(0)
    one = DreamingEr(build_classifier(args.backbone, config, stream), config, stream)
    evening = IncrementalClassifier.from_pretrained(
        run / f"d2l_er/seed_{config.seed}/night_{night:02d}/wake", local_files_only=True
    )
    one.model.set_slots(evening.slots)
    one.model.load_state_dict(evening.state_dict())
    for experience in stream[: night - 1]:
        one.wake(experience)
        one.remember()
    one.wake(stream[night - 1])
    one.night, one.folder = night, Path(str(config.output_dir)) / "night"
    one.after_training()
    met = one.evaluate(stream[:night])
    found = {"accuracy": float(np.mean([each.class_il for each in met]))}
    found["probe"] = float(one.evaluate([stream[night]])[0].probe or 0)
    one.wake(stream[night])
    one._grow()
    *old, new = one.evaluate(stream[: night + 1])
    found |= {"assigned": new.class_il, "own": new.task_il, "old then": float(np.mean([each.class_il for each in old]))}
    return found | {name: float(one.dream_log[name]) for name in ("dreams", "collapse_rate") if name in one.dream_log}


if __name__ == "__main__":
    main()
