"""Which recipe runs by which file of accelerate_configs/: every command as it is typed, against one process.

    python tests/distributed/matrix.py [FILE ...]     all files, or those named; `make test-distributed`

Each case is a whole run of a recipe on inputs so small that it takes seconds.  It is run by one process, and by two as a file's
launcher starts them (gloo), with half of the batch each::

    equal      the weights that it leaves and all that it measured are those of one process, to within its tolerance
    close      the same, where something in the model goes by what one process has in its batch, and the case says what
    refused    one line says why, before anything is computed or written
    fails      anything else

The table of docs/distributed.md is written when all files were tried.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(Path(__file__).parents[1] / "fault"), str(Path(__file__).parents[1])]

import pytest  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from commands import COMMANDS, DREAM, PASSAGES, SLEEP, given_dreams, prepare  # noqa: E402
from drawing import draw_nothing  # noqa: E402
from launch import ROOT, command, ranks  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny import tiny_model, tiny_tokenizer  # noqa: E402

from sleepkit.language.dreaming import trainer as dreaming_trainer  # noqa: E402
from sleepkit.utils.files import write_text  # noqa: E402

PAGE = ROOT / "docs" / "distributed.md"
TABLE = re.compile(r"(?<=<!-- written by tests/distributed/matrix\.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
CONFIGS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "accelerate_configs").glob("*.yaml"))}
ROUNDING, HALF, CLOSE = 1e-4, 3e-2, 0.1  # largest difference, against the largest value of the tensor, or 1
# Of a file, what says where its processes run and how many there are; here there are two, or one, on this CPU.
PLACES = ("use_cpu", "gpu_ids", "num_processes", "num_machines", "main_process_ip", "main_process_port")
BATCHES = ("--per_device_train_batch_size", "--replay_batch_size", "--dream_batch_size")
COSTS = re.compile("seconds|per_second|memory|runtime|cost_ratio|unet_calls|train_tokens")  # a prefix passes on each rank


@dataclass(frozen=True)
class Case:
    """A recipe with what it is run on.

    Attributes:
        line: what is typed, with ``INPUTS`` and ``OUTPUT`` for folders.
        tolerance: of the largest difference.
        because: what goes by the batch of each process.
    """

    line: str
    tolerance: float = ROUNDING
    because: str = ""

    def command(self, inputs: Path, output: Path, processes: int) -> Callable[[], Any]:
        """What each of so many processes does; together they take the batches that one takes by itself."""
        words = [word.replace("INPUTS", str(inputs)).replace("OUTPUT", str(output)) for word in self.line.split()]
        for place, word in enumerate(words):
            if word in BATCHES:
                words[place + 1] = str(int(words[place + 1]) // processes)
        return command(*words)


@dataclass(frozen=True)
class Cell:
    """What a case came to by one file: ``equal``, ``close``, ``refused`` or ``fails``; and why, or by how much it differs."""

    result: str
    detail: str = ""


BASE = PASSAGES.format(inputs="INPUTS")
BF16 = BASE.replace("/base", "/half") + " --dtype bfloat16"
MIXTURE = BASE.replace("/base", "/mixture")
NIGHTS = f"{SLEEP} --nights 2 --max_steps 4 --output_dir OUTPUT"
FAULTS = {one.name: " ".join(one.line(Path("INPUTS"), Path("OUTPUT"))) for one in COMMANDS}
CASES = {
    "sleep": Case(f"recipes/sleep.py {BASE} {NIGHTS}"),
    "sleep, bf16": Case(f"recipes/sleep.py {BF16} {NIGHTS}", HALF),
    "sleep, gated experts": Case(f"recipes/sleep.py {MIXTURE} {NIGHTS}"),
    "sleep, `dream_rounds`": Case(f"recipes/sleep.py {BASE} {NIGHTS} {DREAM}"),
    "sleep, `lmbda`": Case(f"recipes/sleep.py {BASE} {NIGHTS} --lmbda 1 --lmbda_start 1"),
    "dream": Case(FAULTS["dream"]),
    "arc": Case(FAULTS["arc"]),
    "text_baseline": Case(f"recipes/text_baseline.py --method lora {BASE} {NIGHTS}"),
    "vision_baseline": Case(FAULTS["vision"]),
    "mygo": Case(FAULTS["mygo"]),
    "dream2learn": Case(FAULTS["dream2learn"]),
    "disentangled": Case(FAULTS["disentangled"], CLOSE, "batch normalisation takes the statistics of each process's own batch"),
    "train_tiny_diffusion": Case(FAULTS["generator"]),
}


def prepared(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Write the inputs of all cases; runs draw no pictures from now on, which would take most of their time."""
    draw_nothing(patch)
    models = {"half": tiny_model(max_position_embeddings=2048).bfloat16()}
    models["mixture"] = tiny_model("mixtral", max_position_embeddings=2048)
    prepare(folder)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    return folder


def by_itself(case: Case, inputs: Path, folder: Path) -> dict[str, torch.Tensor]:
    """What one process without a launcher makes of a case."""
    with mock.patch.object(dreaming_trainer, "dream", given_dreams):
        (done,) = ranks(case.command(inputs, folder, 1), 1)
    assert done.returncode == 0, done.stderr[-3000:]
    return outcome(folder)


def launched(case: Case, config: str, inputs: Path, folder: Path, expected: Mapping[str, torch.Tensor]) -> Cell:
    """Run a case by the launcher of a file, and compare."""
    processes = 1 if CONFIGS[config]["distributed_type"] == "NO" else 2
    with mock.patch.object(dreaming_trainer, "dream", given_dreams):
        done = ranks(case.command(inputs, folder, processes), processes, config)
    said = [line.partition("error: ")[2] for one in done for line in one.stderr.splitlines() if line.startswith("sleepkit: ")]
    if all(one.returncode == 2 for one in done) and len(said) == 1 and not left(folder):
        return Cell("refused", said[0])
    if any(one.returncode for one in done):
        last = next((line for one in done for line in one.stderr.splitlines()[::-1] if line), "")
        codes = ", ".join(str(one.returncode) for one in done)
        return Cell("fails", f"exit codes {codes}, left {left(folder)[:3]}: {(said or [last])[0]}")
    name, difference = largest_difference(outcome(folder), expected)
    if difference > case.tolerance:
        return Cell("fails", f"{difference:.1e} at {name}")
    if case.because and processes > 1:
        return Cell("close", case.because)
    return Cell("equal", f"{difference:.1e} at {name}")


def alike(one: str, other: str) -> bool:
    """Whether two files launch the same processes, here: then one of them is tried."""
    first, second = ({key: value for key, value in CONFIGS[name].items() if key not in PLACES} for name in (one, other))
    return first == second


def left(folder: Path) -> list[str]:
    """Files that a run has written."""
    return [path.name for path in folder.rglob("*") if path.is_file()]


def outcome(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a run leaves, and the numbers that it has measured, by name."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        place = path.relative_to(folder)
        if {"model", "unet", "vae"} & set(place.parts) and not place.parts[0].startswith("night_"):
            found |= {f"{place}:{name}": value.float() for name, value in load_file(path).items() if value.numel()}
    if (folder / "results.json").is_file():
        results = json.loads((folder / "results.json").read_text())
        numbers = {name: value for name, value in results["metrics"].items() if isinstance(value, (int, float))}
        numbers |= {f"loss_{k}": row["loss"] for k, row in enumerate(results["history"]) if "loss" in row}
        found |= {name: torch.tensor(float(value)) for name, value in numbers.items() if not COSTS.search(name)}
    assert found, f"{folder} holds no result"
    return found


def largest_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> tuple[str, float]:
    """The name of what differs most, and by how much, against the largest of its values, or 1."""
    if one.keys() != other.keys():
        return str(sorted(one.keys() ^ other.keys())[:3]), math.inf
    found = {name: float((one[name] - other[name]).abs().max() / max(1.0, float(other[name].abs().max()))) for name in one}
    name = max(found, key=found.__getitem__)
    return name, found[name]


def table(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """The table of cases and files, and below it the reasons of what is not equal."""
    files = list(next(iter(cells.values())))
    reasons = list(dict.fromkeys(cell.detail for row in cells.values() for cell in row.values() if cell.result != "equal"))
    lines = [f"| recipe | {' | '.join(f'`{file}`' for file in files)} |", f"| --- |{' --- |' * len(files)}"]
    for name, row in cells.items():
        shown = ["equal" if c.result == "equal" else f"{c.result} ({reasons.index(c.detail) + 1})" for c in row.values()]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]) + "\n"


def main(chosen: Sequence[str]) -> int:
    """Try all cases; the table is written when all files were tried."""
    cells: dict[str, dict[str, Cell]] = {}
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        inputs = prepared(Path(place) / "inputs", patch)
        for number, (name, case) in enumerate(CASES.items()):
            expected, cells[name] = by_itself(case, inputs, Path(place) / f"one_{number}"), {}
            for config in chosen or CONFIGS:
                same = next((other for other in cells[name] if alike(other, config)), None)
                output = Path(place) / f"{config}_{number}"
                cell = cells[name][same] if same else launched(case, config, inputs, output, expected)
                cells[name][config] = cell
                print(f"{name:22} {config:16} {cell.result:8} {cell.detail}", flush=True)
    if not chosen:
        text, made = PAGE.read_text(encoding="utf-8"), table(cells)
        write_text(PAGE, TABLE.sub(lambda _: made, text))
    return int(any(cell.result == "fails" for row in cells.values() for cell in row.values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
