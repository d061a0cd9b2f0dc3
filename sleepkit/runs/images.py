"""One call for a whole run on images: read the data, build stream, model and learner, live through the nights, publish.

    run_vision(args, config)    what recipes/vision_baseline.py does after it has parsed its arguments

    <output_dir>/results.json   metrics, matrices and settings     model/    classifier and model card: what is published
                 report.md      with its pictures                  state/    to resume from

With `seeds`, each seed has its folder `seed_<n>`, and `comparison.md` beside them has mean and spread.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import RunRecord
from sleepkit.runs.arguments.images import METHODS, VisionArguments
from sleepkit.runs.arguments.language import cycle_options
from sleepkit.runs.publish import check_publishing, publish_if_asked
from sleepkit.runs.seeds import run_seeds
from sleepkit.utils.ram import require_memory
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.vision.data.streams import ImageExperience
    from sleepkit.vision.incremental.classifier import IncrementalClassifier
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig

__all__ = ["build_learner", "image_cycle", "run_vision"]


def run_vision(args: VisionArguments, config: IncrementalTrainingConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, before training;
    and if the upload at the end fails, after everything is written.
    """
    check_publishing(args, config)
    records = run_seeds(args, config, lambda one: _run_seed(args, one))
    publish_if_asked(args, config)
    return records


def build_learner(args: VisionArguments, config: IncrementalTrainingConfig) -> tuple[Any, list[ImageExperience]]:
    """A learner that has met nothing yet, and its stream.

    Raises:
        SleepkitError: data, model and method that cannot be read or do not go together.
    """
    from accelerate.utils import set_seed

    from sleepkit.vision.data.images import load_images
    from sleepkit.vision.data.streams import build_stream

    data = load_images(
        args.dataset,
        args.test_dataset,
        image_size=args.image_size,
        channels=args.channels,
        label_column=args.label_column,
        test_share=args.test_share,
        seed=config.seed,
    )
    stream = build_stream(
        data, args.scenario, args.experiences, domains=args.domains, class_order=cast(Any, args.class_order), seed=config.seed
    )
    set_seed(derive_seed(config.seed, "start"))
    model = build_model(args, stream)
    module, name = METHODS[args.method].rsplit(".", 1)
    learner = getattr(importlib.import_module(f"sleepkit.vision.{module}"), name)(
        model, config, stream, args.scenario, args.probe_images, args.probe_draws, args.probe_scope
    )
    return learner, stream


def _run_seed(args: VisionArguments, config: IncrementalTrainingConfig) -> RunRecord:
    learner, stream = build_learner(args, config)
    model = learner.model
    record = image_cycle(args, config, learner, stream, args.method).run()
    if config.process_index == 0:
        _save(args, config, model, record)
    return record


def image_cycle(args: Any, config: TrainingArguments, learner: Any, stream: Sequence[Any], method: str) -> SleepCycle:
    """The cycle of a learner of images; without a scenario among the arguments, a class stream."""
    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.cycle.image_state import ImageState

    options = cycle_options(args, config)
    options["config"].setdefault("scenario", "class")
    weights = sum(values.numel() * values.element_size() for values in learner.model.state_dict().values())
    return SleepCycle(learner, stream, method=method, needed_bytes=3 * weights, state_class=ImageState, **options)


def build_model(args: VisionArguments, stream: Sequence[ImageExperience]) -> IncrementalClassifier:
    """A classifier without classes, for the images of a stream; the weights of a CNN come from torch's generator.

    Raises:
        SleepkitError: a method or backbone that does not take these images, or a CNN for which there is no memory.
    """
    from sleepkit.vision.incremental.classifier import IncrementalClassifier, IncrementalClassifierConfig

    channels, *size = stream[0].train.source.pixels.shape[1:]
    if not size:  # features
        if args.method == "generative":
            raise SleepkitError("method 'generative' has VAEs of images and the data are features; use another one")
        return IncrementalClassifier(IncrementalClassifierConfig(code_size=channels, top_size=args.top_size))
    if args.backbone != "cnn":
        return IncrementalClassifier.on_backbone(args.backbone, channels, size, args.pretrained, args.top_size)
    config = IncrementalClassifierConfig(
        num_channels=channels,
        image_size=size,
        cnn_widths=list(args.cnn_widths),
        cnn_max_pool=args.cnn_max_pool,
        hidden_size=args.hidden_size,
        top_size=args.top_size,
    )
    height, width = (-(-side // 2 ** len(args.cnn_widths)) for side in size)
    widest = args.cnn_widths[-1] * (height * width * args.hidden_size + 1)
    convolutions = sum(9 * before * after for before, after in zip([channels, *args.cnn_widths], args.cnn_widths, strict=False))
    units = args.top_size * (args.hidden_size or 4 * args.cnn_widths[-1])
    require_memory(4 * (widest + convolutions + units), "the classifier", "lower cnn_widths, hidden_size or top_size")
    return IncrementalClassifier(config)


def _save(args: VisionArguments, config: IncrementalTrainingConfig, model: IncrementalClassifier, record: RunRecord) -> None:
    """Write the classifier and the generators of all nights with their card: what is published."""
    from sleepkit.reporting.cards import classifier_card, model_name, published_name

    folder = Path(str(config.output_dir)) / "model"
    model.save_pretrained(folder)
    generators = sorted(folder.parent.glob("night_*/generator"), key=lambda one: int(one.parent.name.removeprefix("night_")))
    for one in generators:
        shutil.copytree(
            one, folder / "generators" / one.parent.name, ignore=shutil.ignore_patterns("phase.json"), dirs_exist_ok=True
        )
    dataset = published_name(args.dataset)
    name = model_name(args.push_to_hub_repo, f"{dataset}-{args.method}")
    backbone = None if args.backbone == "cnn" else args.backbone
    card = classifier_card(
        record.to_dict(),
        model_name=name,
        base_model=backbone,
        dataset=dataset,
        generators=[one.parent.name for one in generators],
        features=bool(model.config.code_size),
    )
    card.save(folder / "README.md")
