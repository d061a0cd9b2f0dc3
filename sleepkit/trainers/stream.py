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
from sleepkit.reporting.results import RunRecord
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

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
        hub_repo: the repository that the model is meant for, whose name goes onto its card; None: it has a name of its own.
    """

    def __init__(
        self,
        learner: Any,
        args: TrainingArguments,
        stream: Sequence[Any],
        method: str,
        choices: Mapping[str, Any],
        inputs: Mapping[str, str],
        left_out: Sequence[str] = (),
    ) -> None:
        self.learner, self.args, self.stream, self.method = learner, args, list(stream), method
        self.choices, self.inputs, self.left_out = dict(choices), dict(inputs), left_out
        self.record: RunRecord | None = None
        self.hub_repo: str | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model as it is now."""
        model: PreTrainedModel = self.learner.model
        return model

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(str(self.args.output_dir))

    def train(self, resume: bool = True, overwrite: bool = False) -> RunRecord:
        """Live through all nights that are left, write results, report and model, and return the results.

        Args:
            resume: continue the run that is found in ``args.output_dir``; False refuses a folder that holds one.
            overwrite: delete the run that is found there first.

        Returns:
            The record; ``record.metrics`` has the measures by name, ``record.nights`` a row for each night.

        Raises:
            SleepkitError: the folder belongs to another run or is damaged or in use, the disk is full, or a night was
                stopped or has left numbers that are not finite.
        """
        weights = sum(values.numel() * values.element_size() for values in self.model.state_dict().values())
        cycle = SleepCycle(
            self.learner,
            self.stream,
            output_dir=self.output_dir,
            method=self.method,
            seed=self.args.seed,
            config=self.settings(),
            inputs=self.inputs,
            resume=resume,
            overwrite=overwrite,
            needed_bytes=3 * weights,
            state_class=ImageState,
        )
        self.record = self._measured(cycle.run())
        main_only(lambda: self._write(self.output_dir / "model"))
        main_only(cycle.folder.note)
        return self.record

    def evaluate(self) -> dict[str, float]:
        """Test the model as it is now on the test images of the experiences that it has met.

        Returns:
            Means over these experiences: ``class_il`` (among all classes met) and ``task_il`` (among those of the image's own
            experience), or ``domain_il`` in a domain stream; nothing before the first night.
        """
        scores = [score for score in self.learner.evaluate(self.stream) if score.class_il == score.class_il]
        if not scores:
            return {}
        if self.settings()["scenario"] == "domain":
            return {"domain_il": statistics.fmean(score.class_il for score in scores)}
        return {name: statistics.fmean(getattr(score, name) for score in scores) for name in ("class_il", "task_il")}

    def save_model(self, folder: str | Path | None = None) -> None:
        """Write the model with its card; call it on all processes.

        Args:
            folder: where; None: ``model`` in ``args.output_dir``, where `train` has written it already.

        Raises:
            SleepkitError: nothing is trained yet.
        """
        self._require_record()
        main_only(lambda: self._write(self.output_dir / "model" if folder is None else Path(folder)))

    def push_to_hub(self, repo_id: str, private: bool = True, token: str | None = None) -> str:
        """Upload the model with its card to the Hub in one commit; call it on all processes.

        Args:
            repo_id: the repository, ``owner/name``; it is made if there is none.
            private: whether the repository must be private.
            token: access token; None takes that of ``args.hub_token``, or of `hf auth login`.

        Returns:
            Address of the commit.

        Raises:
            SleepkitError: nothing is trained yet, or as `sleepkit.runs.hub.push_files`.
        """
        from sleepkit.runs.hub import push_folder

        self.hub_repo = repo_id
        self.save_model()
        token = token or self.args.hub_token or None
        return main_finds(lambda: push_folder(self.output_dir / "model", repo_id, private=private, token=token))

    def settings(self) -> dict[str, Any]:
        """Return all that decides the result besides seed and stream, as it is recorded in ``results.json``."""
        fields = settings(make_dataclass("Nothing", ())(), self.args)
        found = self.choices | {name: value for name, value in fields.items() if name not in self.left_out}
        return {"scenario": "class"} | found

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
