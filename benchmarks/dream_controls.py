"""What each part of a night of Dream2Learn brings: one sleep from the same weights, again and again, with one thing changed.

    python recipes/dream2learn.py --config recipes/configs/dream2learn/mnist_cpu.yaml --dreams 0 --seeds 0 1
    python benchmarks/dream_controls.py --run runs/dream2learn_mnist_cpu --seeds 0 1 --others_dataset <Omniglot, 28 pixels>

The weights are those of the run without dreams: the classifier after it has learned the night's classes, before it sleeps.

    accuracy    on all classes met, after sleep                      probe       of the next night's classes, on features then
    assigned    of the next night's classes on the units that        own         the same among themselves only
                they are given, before they are learned              old then    of the classes met, at that moment

    python benchmarks/dream_controls.py --whole mixup --config recipes/configs/dream2learn/mnist_cpu.yaml --seeds 0 1

runs recipes/dream2learn.py with a control in the place of dreams, on experience replay:

    relabelled   dreams as they are; their images get the unit of the dream's target
    mixup        means of an image of the source and one of the target
    noise        a pattern of the dream's own, with noise
    auxiliary    real images of a class that no stream has, another one for each dream (--others_dataset)

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

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import RunRecord, hardware, versions
from sleepkit.runs.arguments.images import parse_dream2learn
from sleepkit.runs.dream2learn import run_dream2learn
from sleepkit.trainers.images import build_classifier
from sleepkit.utils.files import read_json, write_json
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.images import load_images
from sleepkit.vision.data.streams import build_stream
from sleepkit.vision.dream2learn import learner
from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.dream2learn.dream_images import DreamImages, Gallery, load_others, require_others
from sleepkit.vision.dream2learn.learner import DreamingEr
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import Dream
from sleepkit.vision.incremental.classifier import IncrementalClassifier

ROOT = Path(__file__).parents[1]
KINDS = ("prompt", "relabelled", "mixup", "noise", "auxiliary")
NOISE = 40
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
    parser.add_argument("--run", type=Path, help="folder of a finished comparison with --dreams 0")
    parser.add_argument("--whole", choices=KINDS, help="run the whole recipe with this control in the place of dreams")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--night", type=int, default=4)
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), default=list(CONTROLS))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "dream_controls_mnist.json")
    options, rest = parser.parse_known_args(argv)
    if options.whole is not None:
        whole(options.whole, ["--config", options.config, "--seeds", *map(str, options.seeds), *rest])
        return
    if options.run is None:
        parser.error("--run is missing, of which the weights are taken")
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


@dataclasses.dataclass(repr=False)
class ControlConfig(Dream2LearnConfig):
    """Dream2Learn's, and what stands in the place of dreams."""

    dream_kind: str = "prompt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dream_kind not in KINDS:
            raise SleepkitError(f"dream_kind is {self.dream_kind!r}; use one of {', '.join(KINDS)}")
        if self.dream_kind == "auxiliary" and self.others_dataset is None:
            raise SleepkitError("others_dataset is missing, which auxiliary images are taken of; give one")


def controlled(config: Dream2LearnConfig, kind: str) -> ControlConfig:
    fields = {item.name: getattr(config, item.name) for item in dataclasses.fields(Dream2LearnConfig) if item.init}
    return ControlConfig(**fields, dream_kind=kind)


class ControlImages(DreamImages):
    """Images that are not painted."""

    def __init__(self, kind: str, others: str | None) -> None:
        super().__init__(None, 1)
        self.kind = kind
        self.others = load_others(others).train if kind == "auxiliary" and others else None

    def __call__(self, dreams: Sequence[Dream], gallery: Gallery, count: int, seeds: Sequence[int]) -> list[torch.Tensor]:
        return [self._of(dream, gallery, count, seed) for dream, seed in zip(dreams, seeds, strict=True)]

    def _of(self, dream: Dream, gallery: Gallery, count: int, seed: int) -> torch.Tensor:
        if self.others is not None:
            label = np.random.default_rng(dream.number).integers(int(self.others.labels.max()) + 1)
            return Gallery(*self.others).some(int(label), count, seed)
        images = gallery.some(dream.source, count, seed)
        if self.kind == "mixup":
            return ((images.int() + gallery.some(dream.target, count, derive_seed(seed, "target")).int()) // 2).to(torch.uint8)
        own = torch.randint(256, images.shape[1:], generator=torch.Generator().manual_seed(dream.number))
        noise = torch.randint(-NOISE, NOISE + 1, images.shape, generator=torch.Generator().manual_seed(seed))
        return (own + noise).clamp(0, 255).to(torch.uint8)


class ControlledEr(DreamingEr):
    """Dream2Learn on experience replay, with a control in the place of dreams."""

    config: ControlConfig

    def _new_painter(self) -> DreamPainter | None:
        return super()._new_painter() if self.config.dream_kind in ("prompt", "relabelled") else None

    def _new_images(self) -> DreamImages:
        if self.painter is not None or not self.config.dreams:
            return super()._new_images()
        if self.config.others_dataset is not None and self.config.dream_kind == "auxiliary":
            require_others(self.config.others_dataset, self.today.train.source.pixels.shape[1:])
        return ControlImages(self.config.dream_kind, self.config.others_dataset)

    def _unit(self, dream: Dream) -> int:
        return self.model.slots.unit(dream.target) if self.config.dream_kind == "relabelled" else super()._unit(dream)


def whole(kind: str, command: list[str]) -> RunRecord:
    """Run the recipe's comparison with a control."""
    args, config = parse_dream2learn([*command, "--method", "d2l_er"])
    learner.DreamingEr = ControlledEr  # type: ignore[misc]  # as the trainer takes it from there
    try:
        return run_dream2learn(args, controlled(config, kind))
    finally:
        learner.DreamingEr = DreamingEr  # type: ignore[misc]


def asleep(command: list[str], run: Path, night: int, changed: dict[str, Any]) -> dict[str, float]:
    """One sleep, and what it is measured by."""
    args, parsed = parse_dream2learn(command)
    config = dataclasses.replace(controlled(parsed, "prompt"), **changed)
    data = load_images(args.dataset, image_size=config.image_size, channels=config.channels)
    order: Any = config.class_order
    stream = build_stream(data, config.scenario, config.experiences, class_order=order, seed=config.seed)
    torch.manual_seed(0)
    one = ControlledEr(build_classifier(args.backbone, config, stream), config, stream)
    awake = IncrementalClassifier.from_pretrained(
        run / f"d2l_er/seed_{config.seed}/night_{night:02d}/wake", local_files_only=True
    )
    one.model.set_slots(awake.slots)
    one.model.load_state_dict(awake.state_dict())
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
