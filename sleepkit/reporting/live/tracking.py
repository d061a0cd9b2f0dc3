"""One run at each tracker for all nights of a run, through accelerate: tensorboard, trackio, wandb, mlflow.

    with tracked(config, settings):          around a run; `config` are its TrainingArguments
        start()                              once the folder is the run's own
        log_night(row)                       after each night: own questions, closed book, anchor KL, kept or undone
        log_final(metrics)                   at the end

Trainings log through observer.py over one count of steps: that of a night goes on where the one before ended.  The count is
kept in ``<output_dir>/tracking/steps.json``, so that a run that was killed goes on with the same steps, in the same run of each
tracker.  Tensorboard's files are beside it.

A tracker is given numbers and names, never texts, local paths or access tokens.  One that fails before the first night is an
error; one that fails later is left out with a warning, as a night is worth more than its curve.

Left out: trackers that take the command line or the terminal's text with them and cannot be told not to.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = [
    "Tracker",
    "first_step",
    "is_tracked",
    "log",
    "log_final",
    "log_night",
    "public_settings",
    "require_trackers",
    "start",
    "tracked",
]

FOLDER, STEPS_NAME = "tracking", "steps.json"
TRACKERS = ("mlflow", "tensorboard", "trackio", "wandb")
WANDB = {"console": "off", "disable_code": True, "disable_git": True, "x_disable_meta": True}  # else it uploads `sys.argv`
_SECRET = re.compile(r"(^|_)(token|key|secret|password)$")
logger = logging.getLogger(__name__)


def require_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The names of trackers in ``report_to``.  Raises `SleepkitError` for one that is unknown or not installed."""
    from accelerate.tracking import get_available_trackers

    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    installed = [str(name) for name in get_available_trackers()]
    available = [name for name in TRACKERS if name in installed]
    if "all" in names:
        return available
    names = [name for name in dict.fromkeys(names) if name != "none"]
    for name in names:
        if name not in TRACKERS:
            raise SleepkitError(f"report_to has {name!r}; give none, all, or some of {', '.join(TRACKERS)}")
        if name not in available:
            raise SleepkitError(f"report_to has {name}, which is not installed; run `pip install {name}`, or leave it out")
    return names


def public_settings(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Those settings that a tracker may know: numbers and names; of a path the last part, of a secret or a text nothing."""
    plain = {name: _public(value) for name, value in settings.items() if not _SECRET.search(name) or _is_number(value)}
    return {name: value for name, value in plain.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int)) or isinstance(value, float) and math.isfinite(value)


def _public(value: Any) -> Any:
    if _is_number(value):
        return value
    if isinstance(value, (list, tuple)):
        parts = [_public(part) for part in value]
        return None if None in parts else " ".join(map(str, parts))
    if not isinstance(value, str) or re.search(r"\s|://", value) or len(value) > 80:
        return None
    owner_and_name = value.count("/") == 1 and not value.startswith((".", "~", "/")) and not Path(value).exists()
    return value if owner_and_name else Path(value).name


class Tracker:
    """The run at each of some trackers; on all processes but the main one it does nothing.

    Args:
        names: of trackers, see `require_trackers`.
        output_dir: folder of the run.
        run_name: of the run; by default the name of its folder, that of a seed with the name of the folder above.
        project: that it belongs to.
        settings: of the run; what may not be told is left out here.
        options: of single trackers, by their name: keyword arguments of what starts a run there.
    """

    def __init__(
        self,
        names: Sequence[str],
        output_dir: str | Path,
        run_name: str | None = None,
        project: str = "sleepkit",
        settings: Mapping[str, Any] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.names, self.run_name, self.project = list(names), run_name, project
        self.settings, self.options = dict(settings or {}), dict(options or {})
        self.output_dir = Path(output_dir).absolute()
        self.folder = self.output_dir / FOLDER
        self.running: dict[str, Any] = {}
        self.steps: dict[str, list[int]] = {}  # training -> [step of the run at which it begins, its steps]
        self.runs: dict[str, str] = {}  # tracker -> id or name of the run there

    def start(self) -> None:
        """Begin or continue the runs, if that is not done yet.  Raises `SleepkitError` if one cannot be."""
        from accelerate import PartialState

        waiting, self.names = self.names, []
        if not waiting or not PartialState().is_main_process:
            return
        self._read()
        folder = self.output_dir.name
        own_name = f"{self.output_dir.parent.name}_{folder}" if folder.startswith("seed_") else folder
        for name in waiting:
            self._start(name, Path(self.run_name or own_name).name, dict(self.options.get(name, {})))
            self._tell(name, public_settings(self.settings))
        self._write()

    @property
    def step(self) -> int:
        """Steps of all trainings so far."""
        return max((first + count for first, count in self.steps.values()), default=0)

    def first_step(self, training: str, count: int) -> int:
        """The step of the run at which a training begins, the same when it is begun again.

        Args:
            training: its folder.
            count: its steps.
        """
        self.start()
        if not self.running:
            return 0
        path = Path(training).absolute()
        name = path.relative_to(self.output_dir).as_posix() if path.is_relative_to(self.output_dir) else path.name
        first = self.steps[name][0] if name in self.steps else self.step
        self.steps[name] = [first, count]
        self._write()
        return first

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Pass numbers on; by default at the step that was reached."""
        self.start()
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        at = self.step if step is None else step
        for name, tracker in list(self.running.items()):
            if numbers:
                self._try(name, partial(tracker.log, numbers, step=at))

    def finish(self) -> None:
        """Close the runs of all trackers."""
        for name, tracker in list(self.running.items()):
            self._try(name, _end_of_trackio if name == "trackio" else tracker.finish)
        self.running.clear()

    def _try(self, name: str, call: Any) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                call()
        except Exception as error:  # whatever a tracker or its network does
            del self.running[name]
            logger.warning(f"{name} failed ({first_line(error)}); the run goes on without it")

    def _start(self, name: str, run_name: str, options: dict[str, Any]) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        known, fresh = self.runs.get(name), secrets.token_hex(8)
        resumed: dict[str, dict[str, Any]] = {
            "trackio": {"name": run_name, "resume": "allow" if known else "never"},
            "wandb": {"name": run_name, "id": known or fresh, "resume": "allow", "dir": str(self.folder), "settings": WANDB},
            "mlflow": {"run_name": run_name, "run_id": known},
        }
        kind = LOGGER_TYPE_TO_CLASS[name]
        where = (run_name, self.folder) if kind.requires_logging_directory else (self.project,)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # they print where to look
                tracker = kind(*where, **{**resumed.get(name, {}), **options})
                tracker.start()
        except Exception as error:
            raise SleepkitError(f"{name} cannot start ({first_line(error)}); log in, or leave it out of report_to") from error
        self.runs[name] = known or (tracker.tracker.info.run_id if name == "mlflow" else fresh)
        self.running[name] = tracker

    def _tell(self, name: str, settings: Mapping[str, Any]) -> None:
        """Settings of the run; tensorboard's hyperparameters would be a run of their own."""
        tracker = self.running[name]
        if name == "tensorboard":
            rows = "\n".join(f"    {key}: {value}" for key, value in settings.items())
            self._try(name, lambda: tracker.tracker.add_text("settings", rows))
        else:
            self._try(name, lambda: tracker.store_init_configuration(dict(settings)))

    def _read(self) -> None:
        path = self.folder / STEPS_NAME
        if path.exists():
            found = read_json(path)
            self.steps, self.runs = found["steps"], found["runs"]

    def _write(self) -> None:
        write_json(self.folder / STEPS_NAME, {"steps": self.steps, "runs": self.runs})


def _end_of_trackio() -> None:
    import trackio

    trackio.finish()  # the run's own `finish` leaves it open for trackio, which closes it again, with a word, at the exit


_current: Tracker | None = None


@contextmanager
def tracked(config: TrainingArguments, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """Track the run inside the block as ``config`` asks for (``report_to``, ``run_name``, ``project``, ``trackio_*``).

    Raises:
        SleepkitError: a tracker that is unknown, not installed, or cannot start.
    """
    global _current
    space = {"space_id": config.trackio_space_id, "bucket_id": config.trackio_bucket_id, "private": config.hub_private_repo}
    options = {"trackio": {name: value for name, value in space.items() if value is not None}}
    project = "sleepkit" if config.project == "huggingface" else config.project  # transformers' default says nothing
    names = require_trackers(config.report_to)
    tracker = Tracker(names, str(config.output_dir), config.run_name, project, settings, options)
    before, _current = _current, tracker
    try:
        yield tracker
    finally:
        _current = before
        tracker.finish()


def is_tracked() -> bool:
    """Return whether the caller is inside a `tracked` block."""
    return _current is not None


def start() -> None:
    """`Tracker.start` of the run that is under way, if one is tracked."""
    if _current:
        _current.start()


def first_step(training: str, count: int) -> int:
    """`Tracker.first_step` of the run that is under way; 0 where none is tracked."""
    return _current.first_step(training, count) if _current else 0


def log(values: Mapping[str, Any], step: int | None = None) -> None:
    """`Tracker.log` of the run that is under way, if one is tracked."""
    if _current:
        _current.log(values, step)


def log_night(row: Mapping[str, Any]) -> None:
    """The numbers of a night, a row of `results.json`, at the step that its training has reached."""
    log({f"night/{name}": value for name, value in row.items()})


def log_final(metrics: Mapping[str, Any]) -> None:
    """Log the metrics of the whole run, each as ``run/<name>``."""
    log({f"run/{name}": value for name, value in metrics.items()})
