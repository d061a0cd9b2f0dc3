"""Continual learning of images from Python, in the shape of TRL's trainers; the recipes are thin scripts around it.

trainer = GenerativeReplayTrainer("cnn", GenerativeReplayConfig(output_dir="runs/digits"), "digits/")
record = trainer.train()
print(record.metrics["class_il"], trainer.evaluate())

ImageTrainer               fine-tuning, joint training, rehearsal and regularisation: `METHODS`
GenerativeReplayTrainer    MyGO: a generator of each night's images in the place of the images
Dream2LearnTrainer         Dream2Learn: rehearsal, and dreams of classes that do not exist
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sleepkit.errors import SleepkitError
from sleepkit.trainers.stream import StreamTrainer
from sleepkit.utils.digests import digest
from sleepkit.utils.files import open_to_all
from sleepkit.utils.ram import require_memory
from sleepkit.utils.sealed import MANIFEST, damage
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from sleepkit.vision.data.image_data import ImageData
    from sleepkit.vision.data.streams import ImageExperience
    from sleepkit.vision.incremental.classifier import IncrementalClassifier
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig

__all__ = ["DREAMING", "METHODS", "Dream2LearnTrainer", "GenerativeReplayTrainer", "ImageTrainer", "build_classifier"]

# The methods, and where the learner of each is.
METHODS = {
    "finetune": "incremental.learner.ImageLearner",
    "joint": "incremental.baselines.Joint",
    "er": "incremental.baselines.ExperienceReplay",
    "der": "incremental.baselines.DarkExperienceReplay",
    "er_ace": "incremental.baselines.ErAce",
    "gdumb": "incremental.baselines.GDumb",
    "lwf": "incremental.baselines.LwF",
    "ewc": "incremental.regularisers.OnlineEwc",
    "si": "incremental.regularisers.SynapticIntelligence",
    "generative": "incremental.generative_classifier.GenerativeClassifier",
    "frozen": "incremental.baselines.FrozenFeatures",
    "mygo": "mygo.learner.GenerativeReplay",
    "d2l_er": "dream2learn.learner.DreamingEr",
    "d2l_er_ace": "dream2learn.learner.DreamingErAce",
    "d2l_der": "dream2learn.learner.DreamingDer",
}
DREAMING = tuple(method for method in METHODS if method.startswith("d2l_"))

# Fields of a configuration that have no effect where a stream, or a model, is given as an object.
_OF_STREAM = ("image_size", "channels", "label_column", "test_share", "experiences", "domains", "class_order")
_OF_MODEL = ("pretrained", "cnn_widths", "cnn_max_pool", "hidden_size", "top_size")


class ImageTrainer(StreamTrainer):
    """Continual learning of image classes or domains, met one after the other, one night each.

    Args:
        model (`str` or `IncrementalClassifier`, defaults to `"cnn"`):
            ``"cnn"`` (the small network that ``args`` describes), Hub id or folder of a transformers vision model (ResNet, ViT,
            ConvNeXt, DINOv2), or a classifier without classes.
        args (`IncrementalTrainingConfig`, *optional*):
            Or the configuration of the method: a `transformers.TrainingArguments` with the options of data, stream, classifier
            and method.
        train_dataset (`str`, `Path`, `ImageData` or list of `ImageExperience`):
            Folder with ``train.npz`` (``val.npz``, ``test.npz``), parquet files or class folders, or a Hub id; images in memory;
            or a stream that `build_stream` has made, whose scenario ``args`` must name.
        eval_dataset (`str` or `Path`, *optional*):
            File, folder or Hub id to evaluate on, in the place of the data set's own test split.
        method (`str`, *optional*):
            One of `METHODS`; ``"er"``, experience replay, if it is left out.

    Attributes:
        record: the results, a `RunRecord`; None before `train`.

    Raises:
        SleepkitError: data, model and method that cannot be read or do not go together.

    Example:
        >>> from sleepkit import ImageTrainer
        >>> from sleepkit.vision.incremental.config import IncrementalTrainingConfig
        >>> args = IncrementalTrainingConfig(output_dir="runs/digits", experiences=5, buffer_size=500)
        >>> trainer = ImageTrainer("cnn", args, "digits/", method="er")
        >>> record = trainer.train()
        >>> trainer.push_to_hub("me/digits")
    """

    methods: ClassVar[tuple[str, ...]] = ("er", *(method for method in METHODS if method != "er"))  # the first is the default
    config: ClassVar[str] = "incremental.config.IncrementalTrainingConfig"

    def __init__(
        self,
        model: str | IncrementalClassifier = "cnn",
        args: IncrementalTrainingConfig | None = None,
        train_dataset: str | Path | ImageData | Sequence[ImageExperience] = "",
        eval_dataset: str | Path | None = None,
        *,
        method: str | None = None,
    ) -> None:
        from accelerate.utils import set_seed

        method = self.methods[0] if method is None else method
        if method not in self.methods:
            raise SleepkitError(f"method is {method!r}; use one of {', '.join(self.methods)}")
        args = _imported(self.config)() if args is None else args
        stream, named = _stream_of(train_dataset, eval_dataset, args)
        set_seed(derive_seed(args.seed, "start"))
        self.backbone = model if isinstance(model, str) else None
        classifier = build_classifier(model, args, stream) if isinstance(model, str) else model
        if len(classifier.slots):
            raise SleepkitError(f"the model has {len(classifier.slots)} output units already; give a classifier without classes")
        inputs = {} if isinstance(model, str) else {"model": digest(dict(classifier.state_dict()))[:16]}
        learner = _imported(METHODS[method])(classifier, args, stream)
        choices = {"dataset": named, "test_dataset": None if eval_dataset is None else str(eval_dataset)}
        choices |= {"backbone": self.backbone, "method": method}
        left_out = [*(_OF_STREAM if isinstance(train_dataset, Sequence) and named is None else ())]
        left_out += _OF_MODEL if self.backbone is None else ()
        super().__init__(learner, args, stream, method, choices, inputs, left_out)

    def _write(self, folder: Path) -> None:
        """Write the classifier and the generators of all nights, with their card."""
        from sleepkit.reporting.cards import classifier_card, model_name, published_name

        record, model = self._require_record(), cast(Any, self.model)
        model.save_pretrained(folder)
        open_to_all(folder)
        generators = sorted(
            self.output_dir.glob("night_*/generator"), key=lambda path: int(path.parent.name.removeprefix("night_"))
        )
        notes = shutil.ignore_patterns("phase.json", MANIFEST)
        for generator in generators:
            if reason := damage(generator):
                raise SleepkitError(f"{generator} is damaged ({reason}); bring back a copy, or delete it to save without it")
            copy = shutil.copytree(generator, folder / "generators" / generator.parent.name, ignore=notes, dirs_exist_ok=True)
            open_to_all(copy)
        dataset = published_name(self.choices["dataset"] or "images")
        card = classifier_card(
            record.to_dict(),
            model_name=model_name(self.args.push_to_hub_repo, f"{dataset}-{self.method}"),
            base_model=None if self.backbone == "cnn" else self.backbone,
            dataset=dataset,
            generators=[generator.parent.name for generator in generators],
            features=bool(model.config.code_size),
        )
        card.save(folder / "README.md")


class GenerativeReplayTrainer(ImageTrainer):
    """MyGO (arXiv 2508.21296): each night keeps a generator of its images, and sleep learns from what the generators dream.

    Args:
        model (`str` or `IncrementalClassifier`, defaults to `"cnn"`): as for [`ImageTrainer`].
        args (`GenerativeReplayConfig`, *optional*): options of data, stream, classifier, generators and sleep.
        train_dataset (`str`, `Path`, `ImageData` or list of `ImageExperience`): as for [`ImageTrainer`].
        eval_dataset (`str` or `Path`, *optional*): as for [`ImageTrainer`].

    Attributes:
        record: the results, a `RunRecord`; None before `train`.

    Raises:
        SleepkitError: data, model and method that cannot be read or do not go together.

    Example:
        >>> from sleepkit import GenerativeReplayConfig, GenerativeReplayTrainer
        >>> trainer = GenerativeReplayTrainer("cnn", GenerativeReplayConfig(output_dir="runs/digits"), "digits/")
        >>> trainer.train().metrics["class_il"]
    """

    methods = ("mygo",)
    config = "mygo.config.GenerativeReplayConfig"


class Dream2LearnTrainer(ImageTrainer):
    """Dream2Learn (arXiv 2603.01935): a rehearsal method that also learns dreams, images of classes that do not exist.

    Args:
        model (`str` or `IncrementalClassifier`, defaults to `"cnn"`): as for [`ImageTrainer`].
        args (`Dream2LearnConfig`, *optional*): options of data, stream, classifier, generator, prompts and sleep;
            its ``generator`` is a diffusion model in the layout of Stable Diffusion 1.x.
        train_dataset (`str`, `Path`, `ImageData` or list of `ImageExperience`): as for [`ImageTrainer`].
        eval_dataset (`str` or `Path`, *optional*): as for [`ImageTrainer`].
        method (`str`, defaults to `"d2l_er"`): rehearsal beside the dreams, ``"d2l_er"``, ``"d2l_er_ace"`` or ``"d2l_der"``.

    Attributes:
        record: the results, a `RunRecord`; None before `train`.

    Raises:
        SleepkitError: data, model and method that cannot be read or do not go together.

    Example:
        >>> from sleepkit import Dream2LearnConfig, Dream2LearnTrainer
        >>> args = Dream2LearnConfig(output_dir="runs/dreams", generator="runs/generator", buffer_policy="class_balanced")
        >>> Dream2LearnTrainer("cnn", args, "digits/").train().metrics["class_il"]
    """

    methods = DREAMING
    config = "dream2learn.config.Dream2LearnConfig"


def _imported(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"sleepkit.vision.{module}"), name)


def _stream_of(
    train_dataset: str | Path | ImageData | Sequence[ImageExperience],
    eval_dataset: str | Path | None,
    args: IncrementalTrainingConfig,
) -> tuple[Sequence[ImageExperience], str | None]:
    """The stream, and the name of its data where it has one."""
    from sleepkit.vision.data.image_data import ImageData
    from sleepkit.vision.data.images import load_images
    from sleepkit.vision.data.streams import build_stream

    named = str(train_dataset) if isinstance(train_dataset, (str, Path)) else None
    if named is not None:
        if not named:
            raise SleepkitError("train_dataset is missing; give a folder such as digits/ (train.npz, ...), a Hub id or a stream")
        data: Any = load_images(
            named,
            eval_dataset,
            image_size=args.image_size,
            channels=args.channels,
            label_column=args.label_column,
            test_share=args.test_share,
            seed=args.seed,
        )
    else:
        data = train_dataset
        if eval_dataset is not None:
            raise SleepkitError("eval_dataset goes with a train_dataset that is read; images that are given have their own tests")
    if isinstance(data, ImageData):
        order = cast(Any, args.class_order)
        stream: Sequence[ImageExperience] = build_stream(
            data, args.scenario, args.experiences, domains=args.domains, class_order=order, seed=args.seed
        )
        return stream, named
    if not data:
        raise SleepkitError("train_dataset is an empty stream; give at least one experience")
    shared = len({label for experience in data for label in experience.labels}) < sum(
        len(experience.labels) for experience in data
    )
    if shared != (args.scenario == "domain") and len(data) > 1:
        kind = "share their classes" if shared else "have classes of their own"
        raise SleepkitError(f"scenario is {args.scenario!r} and the experiences of the stream {kind}; name the stream's scenario")
    return data, None


def build_classifier(
    backbone: str, config: IncrementalTrainingConfig, stream: Sequence[ImageExperience]
) -> IncrementalClassifier:
    """Build a classifier without classes for the images of a stream; the weights of a CNN come from torch's generator.

    Args:
        backbone: ``"cnn"``, or Hub id or folder of a transformers vision model.

    Raises:
        SleepkitError: a backbone that does not take these images, or a CNN for which there is no memory.
    """
    from sleepkit.vision.incremental.classifier import IncrementalClassifier, IncrementalClassifierConfig

    channels, *size = stream[0].train.source.pixels.shape[1:]
    if not size:  # features
        return IncrementalClassifier(IncrementalClassifierConfig(code_size=channels, top_size=config.top_size))
    if backbone != "cnn":
        return IncrementalClassifier.on_backbone(backbone, channels, size, config.pretrained, config.top_size)
    form = IncrementalClassifierConfig(
        num_channels=channels,
        image_size=size,
        cnn_widths=list(config.cnn_widths),
        cnn_max_pool=config.cnn_max_pool,
        hidden_size=config.hidden_size,
        top_size=config.top_size,
    )
    height, width = (-(-side // 2 ** len(config.cnn_widths)) for side in size)
    widest = config.cnn_widths[-1] * (height * width * config.hidden_size + 1)
    widths = [channels, *config.cnn_widths]
    convolutions = sum(9 * before * after for before, after in zip(widths, config.cnn_widths, strict=False))
    units = config.top_size * (config.hidden_size or 4 * config.cnn_widths[-1])
    require_memory(4 * (widest + convolutions + units), "the classifier", "lower cnn_widths, hidden_size or top_size")
    return IncrementalClassifier(form)
