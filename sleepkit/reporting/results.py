"""What one run leaves behind: `results.json`, with all that is needed to read, compare and repeat it.

    results.json = {method, seed, config, seconds, accuracy_matrix, matrices, metrics, examples, history, nights, days, plan,
                    versions, hardware, peak_memory_bytes}

- `accuracy_matrix[i][j]`: score in [0, 1] on experience j after night i; null where it was not measured.
- `matrices`: further matrices of that form, by name, such as `task_il` of an image stream.
- `metrics`: flat, name -> number. `history`: rows `{step, loss, ...}` of training, optionally with `night`.
- `nights`: rows `{night, committed, reason, anchor_kl, ...}`, counted from 1 as in the pictures; those of a night that
  was forgotten have `forgotten`, with `forgotten_date` and what was measured then (trainers/forgetting.py).
- `days`: rows `{first_night, date, config}`, one for each day that brought something new or other settings.
- `examples`: rows `{question, gold, before, after, in_context}` of text; those with `own` are the model's own questions, with
  `right_before` and `right_after`.
- `plan`: of a night of texts what it was going to cost, as `sleepkit plan --json` has it, and with `seen` what was seen of it.
- Times are in seconds, memory in bytes.

Writing is atomic: a reader, or a run that was killed, finds the old file or the new one, never half of one.
What it leaves out: plots and tables (report.py), and the metrics themselves (metrics.py).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import plain, read_json, write_json

__all__ = [
    "FILE_NAME",
    "RunRecord",
    "device_memory_bytes",
    "hardware",
    "in_model",
    "peak_memory_bytes",
    "plan_in",
    "read_results",
    "versions",
]

FILE_NAME = "results.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "sleepkit")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; those that are not installed are left out."""
    numbers = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            numbers[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return numbers


def hardware() -> dict[str, Any]:
    """The machine: `cpu` (model name), `cores` (that this process may use), `ram_bytes`, `gpus` (list of names)."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """Highest memory of this process since it started: resident in RAM, plus allocated by torch on its GPUs."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, in bytes on macOS
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return resident + device_memory_bytes()


def device_memory_bytes() -> int:
    """Highest memory that torch has allocated on the GPUs of this process since it started; 0 where there are none."""
    import torch

    return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def plan_in(output_dir: str | Path) -> dict[str, Any]:
    """The plan that stands in ``<output_dir>/results.json``; empty if there is none."""
    path = Path(output_dir) / FILE_NAME
    found = read_json(path) if path.is_file() else {}
    plan = found.get("plan") if isinstance(found, dict) else None
    return plan if isinstance(plan, dict) else {}


@dataclass
class RunRecord:
    """All that one run reports; see the module for the meaning of each field.

    `versions` and `hardware` are taken when the record is made, `peak_memory_bytes` grows each time it is saved.
    """

    method: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    accuracy_matrix: list[list[float | None]] = field(default_factory=list)
    matrices: dict[str, list[list[float | None]]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    nights: list[dict[str, Any]] = field(default_factory=list)
    days: list[dict[str, Any]] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    hardware: dict[str, Any] = field(default_factory=hardware)
    peak_memory_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as `results.json` holds it: plain numbers, text, lists and dictionaries."""
        document: dict[str, Any] = plain(self)
        return document

    def save(self, output_dir: str | Path, *, is_main: bool = True) -> Path:
        """Write `<output_dir>/results.json` where `is_main` is true; elsewhere do nothing. Returns its path.

        Args:
            output_dir: folder of the run; made if missing.
            is_main: whether this is the main process of a distributed run (`accelerator.is_main_process`).
        """
        path = Path(output_dir) / FILE_NAME
        if is_main:
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory_bytes())
            write_json(path, self)
        return path

    @classmethod
    def load(cls, output_dir: str | Path) -> RunRecord:
        """The record that `save` wrote to `output_dir`; errors as in `read_results`."""
        return cls(**read_results(output_dir))


def read_results(output_dir: str | Path) -> dict[str, Any]:
    """The content of `<output_dir>/results.json`; examples, history, matrices and nights may be absent.

    Raises:
        SleepkitError: if there is none, or it lacks another field, has one that this version does not know, or one that holds
            something else than a run writes.
    """
    path = Path(output_dir) / FILE_NAME
    data = read_json(path)
    if not isinstance(data, dict):
        raise SleepkitError(f"{path} holds a {type(data).__name__}, not a run; choose another output folder")
    fields = {item.name for item in dataclasses.fields(RunRecord)}
    missing = sorted(fields - set(data) - {"days", "examples", "history", "matrices", "nights", "plan"})
    unknown = sorted(set(data) - fields)
    if missing or unknown:
        raise SleepkitError(
            f"{path} is not from this version (missing {missing}, unknown {unknown}); choose another output folder"
        )
    for name, value in data.items():
        if not _FORMS[name](value):
            shown = json.dumps(value, ensure_ascii=False)
            raise SleepkitError(
                f"{path} has been changed: its {name} is {shown:.60}; run the same command again to write it anew"
            )
    return data


def in_model(night: Mapping[str, Any]) -> bool:
    """Whether what a night has learned is in the model: it was kept, and not forgotten since."""
    return bool(night.get("committed", True)) and not night.get("forgotten")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _matrix(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and all(item is None or _number(item) for item in row) for row in value
    )


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(map(_mapping, value))


_FORMS: dict[str, Callable[[Any], bool]] = {
    "method": lambda value: isinstance(value, str),
    "seed": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "config": _mapping,
    "seconds": _number,
    "accuracy_matrix": _matrix,
    "matrices": lambda value: isinstance(value, dict) and all(map(_matrix, value.values())),
    "metrics": lambda value: isinstance(value, dict) and all(item is None or _number(item) for item in value.values()),
    "examples": _rows,
    "history": _rows,
    "nights": lambda value: _rows(value) and all(isinstance(row.get("night", 0), int) for row in value),
    "days": _rows,
    "plan": _mapping,
    "versions": _mapping,
    "hardware": _mapping,
    "peak_memory_bytes": _number,
}
