"""Disentangled learning from Python: a canonicalizer meets shapes one after the other, and knows them by their exemplars.

trainer = DisentangledTrainer(args=DisentangledConfig(output_dir="runs/shapes"))        # Infinite dSprites
trainer = DisentangledTrainer("microsoft/resnet-18", args, "pictures/")                 # pictures in unknown poses

<output_dir>/results.json   metrics, matrices and settings     model/      canonicalizer and exemplars
             report.md      with its pictures                  pictures/   accuracy over nights; straightened images
             state/         to resume from                     baselines.md   the table of pose sources
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sleepkit.reporting.report import write_report
from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.tables import markdown_table
from sleepkit.trainers.stream import StreamTrainer
from sleepkit.utils.digests import digest
from sleepkit.utils.files import open_to_all, save_figure, write_text
from sleepkit.utils.ranks import main_only
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from sleepkit.vision.disentangled.canonicalizer import Canonicalizer
    from sleepkit.vision.disentangled.config import DisentangledConfig
    from sleepkit.vision.idsprites.stream import SpritesStream

__all__ = ["DisentangledTrainer"]


class DisentangledTrainer(StreamTrainer):
    """Disentangled continual learning (arXiv 2312.16731): weights learn poses, and each class is kept as one small picture.

    Args:
        model (`str` or `Canonicalizer`, defaults to `"cnn"`):
            ``"cnn"`` (the small network that ``args`` describes), ``"resnet18"`` (a new one, as in the paper), Hub id or folder
            of a transformers vision model, or a canonicalizer.
        args (`DisentangledConfig`, *optional*):
            A `transformers.TrainingArguments` with the options of stream and method.
        train_dataset (`str`, `Path` or `SpritesStream`, *optional*):
            Folder or Hub id, whose pictures are shown in unknown poses; or a stream that `build_sprites` has made.  Shapes of
            Infinite dSprites, as ``args`` describes them, if it is left out.

    Attributes:
        record: the results, a `RunRecord`; None before `train`.

    Raises:
        SleepkitError: data or a model that cannot be read or do not go together.

    Example:
        >>> from sleepkit import DisentangledConfig, DisentangledTrainer
        >>> trainer = DisentangledTrainer(args=DisentangledConfig(output_dir="runs/shapes", experiences=3))
        >>> trainer.train().metrics["one_shot"]
    """

    def __init__(
        self,
        model: str | Canonicalizer = "cnn",
        args: DisentangledConfig | None = None,
        train_dataset: str | Path | SpritesStream | None = None,
    ) -> None:
        from accelerate.utils import set_seed

        from sleepkit.vision.disentangled.config import STREAM_FIELDS, DisentangledConfig
        from sleepkit.vision.disentangled.learner import DisentangledLearner, build_canonicalizer
        from sleepkit.vision.disentangled.sprites import build_sprites

        args = DisentangledConfig() if args is None else args
        named = str(train_dataset) if isinstance(train_dataset, (str, Path)) else None
        given = train_dataset is not None and named is None
        self.sprites = cast(Any, train_dataset) if given else build_sprites(args, named)
        set_seed(derive_seed(args.seed, "start"))
        built = build_canonicalizer(args, self.sprites[0].exemplars, model) if isinstance(model, str) else model
        choices = {"dataset": named, "backbone": model if isinstance(model, str) else None}
        inputs = {} if isinstance(model, str) else {"model": digest(dict(built.state_dict()))[:16]}
        learner = DisentangledLearner(built, args)
        super().__init__(learner, args, list(self.sprites), "disentangled", choices, inputs, STREAM_FIELDS if given else ())

    def _measured(self, record: RunRecord) -> RunRecord:
        """Measure poses, one-shot and open-set recognition, and write the pictures."""
        from sleepkit.vision.disentangled.pictures import accuracy_curve, straightened_grid
        from sleepkit.vision.disentangled.protocol import measure, table_of

        args = cast("DisentangledConfig", self.args)
        exemplars = self.learner.exemplars
        measures = measure(self.learner, self.sprites, args.novel_classes, args.novel_images)
        record.metrics |= measures | {"bytes_per_class": exemplars.bytes / len(exemplars.labels.unique())}

        straightened = straightened_grid(self.learner, self.sprites)  # on all processes

        def write() -> None:
            pictures = self.output_dir / "pictures"
            save_figure(accuracy_curve(record.accuracy_matrix), pictures / "accuracy_over_nights.png")
            save_figure(straightened, pictures / "straightened.png")
            write_text(self.output_dir / "baselines.md", markdown_table(*table_of(record.metrics, args.match)) + "\n")
            record.save(self.output_dir)
            write_report(self.output_dir)

        main_only(write)
        return record

    def _write(self, folder: Path) -> None:
        """Write canonicalizer and exemplars, with their card."""
        from sleepkit.reporting.cards import canonicalizer_card, model_name, published_name

        record = self._require_record()
        self.model.save_pretrained(folder)
        open_to_all(folder)
        self.learner.exemplars.save(folder / "exemplars")
        dataset = published_name(self.choices["dataset"]) if self.choices["dataset"] else "Infinite dSprites"
        name = model_name(self.args.push_to_hub_repo, "canonicalizer")
        canonicalizer_card(record.to_dict(), model_name=name, dataset=dataset).save(folder / "README.md")
