"""What the trainers of all methods on images have in common: one night for each experience of a stream, then save and publish.

    trainer.train()                 nights that are left: <output_dir>/results.json, report.md, state/ and model/
    trainer.evaluate()              accuracies of the model as it is now
    trainer.save_model("folder")    the model with its card
    trainer.push_to_hub("me/name")  the same, on the Hub

The nights are those of `SleepCycle`: a run that was killed goes on where it stopped, and equals one that was not.
"""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.cycle.cycle import SleepCycle
from sleepkit.cycle.image_state import ImageState
from sleepkit.errors import SleepkitError
from sleepkit.reporting.live.watch import watched
from sleepkit.reporting.results import RunRecord
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from sleepkit.vision.incremental.config import ImageTrainingConfig

__all__ = ["StreamTrainer"]


class StreamTrainer(ABC):
    """Base of the trainers that send a model through a stream of images, one night for each experience.

    Args:
        learner: the method, a `Learner` of `SleepCycle`, which has a ``model``.
        args: configuration of the method.
        stream: the experiences, in the order of their nights.
        method: name of the method in the results.
        choices: what decides the result besides ``args``; both are recorded in ``results.json``.
        inputs: digests of what nothing of this names, such as the weights of a model that was given as an object.
        left_out: fields of ``args`` that have no effect, and are not recorded.

    Attributes:
        record: the results, a `RunRecord`; None before `train`.
    """

    def __init__(
        self,
        learner: Any,
        args: ImageTrainingConfig,
        stream: Sequence[Any],
        method: str,
        choices: Mapping[str, Any],
        inputs: Mapping[str, str],
        left_out: Sequence[str] = (),
    ) -> None:
        self.learner, self.args, self.stream, self.method = learner, args, list(stream), method
        self.choices, self.inputs, self.left_out = dict(choices), dict(inputs), left_out
        self.record: RunRecord | None = None
        self._start: tuple[dict[str, Tensor], dict[str, bool]] | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model with its weights of now."""
        model: PreTrainedModel = self.learner.model
        return model

    @property
    def output_dir(self) -> Path:
        """Folder into which the run writes."""
        return Path(str(self.args.output_dir))

    def train(self) -> RunRecord:
        """Live through all nights that are left, one for each experience, and write results, report and model.

        Nights that an earlier call has finished in ``args.output_dir`` are read back.  Call it on all processes.

        Returns:
            `RunRecord`: ``metrics`` by name, such as ``class_il`` (accuracy among all classes, from 0 to 1) and ``forgetting``;
            ``nights``, a row for each; ``accuracy_matrix``, history and settings beside them.

        Raises:
            SleepkitError: the folder belongs to another run or is damaged or in use, the disk is full, or a night was
                stopped or has left numbers that are not finite.

        Example:

            >>> record = trainer.train()
            >>> record.metrics["class_il"]
        """
        self._start_anew()
        weights = sum(values.numel() * values.element_size() for values in self.model.state_dict().values())
        chosen = self.settings()
        cycle = SleepCycle(
            self.learner,
            self.stream,
            output_dir=self.output_dir,
            method=self.method,
            seed=self.args.seed,
            config=chosen,
            inputs=self.inputs,
            resume=self.args.resume,
            overwrite=self.args.overwrite,
            needed_bytes=3 * weights,
            state_class=ImageState,
        )
        with watched(self.args, chosen):
            self.record = self._measured(cycle.run())
        self.save_model()
        main_only(cycle.folder.note)
        return self.record

    def evaluate(self) -> dict[str, float]:
        """Test the model as it is now on the test images of the experiences that it has met.

        Returns:
            dict of `float`: means over these experiences, from 0 to 1: ``class_il`` (among all classes met) and ``task_il``
            (among those of the image's own experience), or ``domain_il`` in a domain stream; empty before the first night.
        """
        scores = [score for score in self.learner.evaluate(self.stream) if score.class_il == score.class_il]
        domain = self.settings()["scenario"] == "domain"
        names = {"domain_il": "class_il"} if domain else {"class_il": "class_il", "task_il": "task_il"}
        return {name: statistics.fmean(getattr(score, column) for score in scores) for name, column in names.items() if scores}

    def save_model(self, folder: str | Path | None = None) -> None:
        """Write the model with its card, to be loaded by transformers.  Call it on all processes.

        Args:
            folder (`str` or `Path`, *optional*):
                Where to; ``<output_dir>/model`` if it is left out, which `train` writes already.

        Raises:
            SleepkitError: nothing is trained yet.
        """
        self._require_record()
        main_only(lambda: self._write(self.output_dir / "model" if folder is None else Path(folder)))

    def push_to_hub(self, repo_id: str | None = None, *, public: bool = False) -> list[str]:
        """Upload the model of the finished run with its card, after what is uploaded is listed.  Call it on all processes.

        Args:
            repo_id (`str`, *optional*):
                ``owner/name``; ``args.push_to_hub_repo`` if it is left out.
            public (`bool`, defaults to `False`):
                Let all read it; repositories are private otherwise.

        Returns:
            list of `str`: addresses of the commits.

        Raises:
            SleepkitError: nothing is trained yet, no repository is named, or it cannot be written to.

        Example:

            >>> trainer.push_to_hub("me/classifier")
        """
        from sleepkit.trainers.hub import Target
        from sleepkit.trainers.publish import publish

        self.args.push_to_hub_repo = repo_id or self.args.push_to_hub_repo
        self.save_model()  # with the name of the repository on its card
        target, token = self.args.push_to_hub_repo, self.args.hub_token or None
        where = None if target is None else Target(target)
        return main_finds(lambda: publish(self.output_dir, where, public=public, token=token))

    def settings(self) -> dict[str, Any]:
        """Return all that decides the result besides seed and stream, as it is recorded in ``results.json``."""
        fields = settings(make_dataclass("Nothing", ())(), self.args)
        recorded = self.choices | {name: value for name, value in fields.items() if name not in self.left_out}
        return {"scenario": "class"} | recorded

    def _start_anew(self) -> None:
        """Take the learner back to where it was before the first `train`, which an interrupt may have stopped within a night."""
        if self._start is None:
            trained = {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}
            self._start = self.learner.snapshot(), trained
            return
        snapshot, trained = self._start
        self.learner.restore(snapshot)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(trained[name])

    def _require_record(self) -> RunRecord:
        if self.record is None:
            raise SleepkitError("there is no run yet whose model could be saved; call train() first")
        return self.record

    def _measured(self, record: RunRecord) -> RunRecord:
        """Return the record with what is measured at the end of all nights; called on all processes."""
        return record

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Write the model with its card; called on the main process."""
