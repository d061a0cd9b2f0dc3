"""Faults of machines and files over whole commands: what must never happen is a lost night, or a result that is silently wrong.

    python tests/fault/campaign.py [NAME ...]     all commands of commands.py, or those named; `make test-faults`

Of each command there is one run that nothing disturbs.  Then, for each fault, the command meets it and is typed once more::

    equal       the second one ends as the undisturbed one did, byte for byte, counters included
    refused     one line says why not, and nothing was changed
    traceback   somebody sees a traceback                                  wrong    exit code 0, and another result
    hung        it does not end                                            late     the one line comes after the work

Only what time and machine decide may differ (seconds, dates, versions, memory).  ``benchmarks/results/faults.md`` has the table.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from commands import COMMANDS, Command  # noqa: E402
from machine import ROOT, Fault, Outcome, run  # noqa: E402
from rounds import counts_table, rounds  # noqa: E402

from sleepkit.utils.files import write_text  # noqa: E402

GOOD = ("equal", "refused")
TIMES = re.compile(r"seconds|_per_second|runtime|^date$|^peak_memory|^versions$|^hardware$|^days$|^plan$|epoch_time|cost_ratio")
SKIPPED = re.compile(
    r"(^|/)(\.lock|\.sleepkit\.json|MANIFEST\.json|report\.(md|html)|baselines\.md|seconds\.json|.*\.seal|README\.md|training_args\.bin"
    r"|comparison\.md|events\.out.*|.*\.tmp)$|(^|/)checkpoint-\d+/|(^|/)draft/"
)


@dataclass
class Row:
    """What one fault came to."""

    command: str
    fault: str
    result: str
    detail: str = ""


@dataclass
class Campaign:
    """The faults of one command."""

    command: Command
    inputs: Path
    folder: Path
    rows: list[Row] = field(default_factory=list)
    count: int = 0

    def go(self) -> list[Row]:
        """Meet all faults."""
        whole = self.folder / "whole"
        outcome = self.typed(whole)
        assert outcome.code == 0, outcome.err[-3000:]
        self.whole, self.moments, self.steps = contents(whole), len(outcome.moments), outcome.steps
        for fault in self.faults():
            self.meets(fault)
        for path, what, spoil in self.damages(whole):
            self.is_damaged(path, what, whole, spoil)
        half = self.folder / "half"
        half.mkdir()
        self.typed(half, Fault("kill", 2 * self.moments // 3))
        for path, what, spoil in self.damages(half):
            self.is_damaged(path, what, half, spoil)
        for name, arguments in self.command.changes(self.inputs).items():
            self.is_changed(name, half, arguments)
        for name, other in self.command.twins.items():
            self.is_rewritten(name, other, half)
        for moment in (1, self.moments // 2):
            self.is_typed_twice(moment)
        return self.rows

    def typed(self, folder: Path, fault: Fault | None = None, more: tuple[str, ...] = ()) -> Outcome:
        """Run the command into a folder."""
        return run([*self.command.line(self.inputs, folder), *more], fault, watch=folder)

    def faults(self) -> Iterator[Fault]:
        """Kills over all of its moments, the others at fewer."""
        for kind, count in self.command.counts.items():
            last = self.steps if kind == "nan" else self.moments
            for k in range(min(count, last)):
                yield Fault(kind, 1 + k * (last - 1) // max(1, min(count, last) - 1))

    def meets(self, fault: Fault) -> None:
        """Let the command meet a fault, and type it again."""
        folder = self.fresh()
        first = self.typed(folder, fault)
        name = f"{fault.kind} at {fault.at} of {self.steps if fault.kind == 'nan' else self.moments}"
        if fault.kind == "clock":
            self.judged(name, first, folder)
        elif fault.kind != "kill" and first.traceback:
            self.add(name, "traceback", first.err[-400:])
        elif fault.kind in ("full", "denied", "nan") and first.code == 0 and contents(folder) != self.whole:
            self.add(name, "wrong", "exit code 0 after the fault")
        elif fault.kind in ("full", "denied", "nan") and first.code != 0 and not first.is_told:
            self.add(name, "traceback", f"exit code {first.code}: {first.err[-300:]}")
        else:
            self.judged(name, self.typed(folder), folder)
        shutil.rmtree(folder, ignore_errors=True)

    def is_damaged(self, path: Path, what: str, of: Path, spoil: Callable[[Path], None]) -> None:
        """Damage a file in a copy of a folder, and type the command again.

        What nobody reads again, such as a phase of a run that is over, may stay as it is; what is published may not.
        """
        folder, name = self.fresh(), path.as_posix()
        shutil.copytree(of, folder)
        spoil(folder / path)
        spoilt = contents(folder).get(name)
        outcome = self.typed(folder)
        unread = "model" not in path.parts and contents(folder).get(name) == spoilt
        self.judged(f"{what}{' half done' if of.name == 'half' else ''} {name}", outcome, folder, name if unread else "")
        shutil.rmtree(folder, ignore_errors=True)

    def is_changed(self, name: str, of: Path, arguments: tuple[str, ...]) -> None:
        """Type another command into a folder that is half done."""
        folder, alone = self.fresh(), self.fresh()
        shutil.copytree(of, folder)
        again = self.typed(folder, more=arguments)
        if again.code == 0:
            self.typed(alone, more=arguments)
            self.add(name, *_compared(contents(folder), contents(alone)))
        else:
            self.judged(name, again, folder)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(alone, ignore_errors=True)

    def is_rewritten(self, name: str, other: str, of: Path) -> None:
        """Change what stands at the path of an input, once half of the work is done."""
        folder, alone, kept = self.fresh(), self.fresh(), self.folder / "kept"
        shutil.copytree(of, folder)
        (self.inputs / name).rename(kept)
        try:
            (shutil.copytree if kept.is_dir() else shutil.copy)(self.inputs / other, self.inputs / name)
            again = self.typed(folder)
            if again.code == 0:
                self.typed(alone)
                self.add(f"rewritten {name}", *_compared(contents(folder), contents(alone)))
            else:
                self.judged(f"rewritten {name}", again, folder)
        finally:
            (shutil.rmtree if kept.is_dir() else os.unlink)(self.inputs / name)
            kept.rename(self.inputs / name)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(alone, ignore_errors=True)

    def is_typed_twice(self, moment: int) -> None:
        """Type the command while it runs: one of both works, the other says so, and the result is that of one."""
        folder = self.fresh()
        self.typed(folder, Fault("kill", moment))
        other = os.fork()
        if other == 0:
            second = self.typed(folder)
            os._exit(0 if second.code == 0 else 2 if second.is_told else 70)
        first = self.typed(folder)
        code = os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
        name = f"two at once, from moment {moment}"
        if sorted((first.code, code)) == [0, 2]:
            self.add(name, *_compared(contents(folder), self.whole))
        else:
            self.add(name, "wrong" if code == first.code == 0 else "traceback", f"exit codes {first.code} and {code}")
        shutil.rmtree(folder, ignore_errors=True)

    def damages(self, of: Path) -> Iterator[tuple[Path, str, Callable[[Path], None]]]:
        """A flipped bit in each file that may be read again, and of the newest state the first file cut and the last one gone."""
        over = _newest(of).removeprefix("state/").rstrip("/")  # the last night that is in a state
        files = sorted(path.relative_to(of) for path in of.rglob("*") if path.is_file() and path.name != ".lock")
        for path in files:
            drawn = path.suffix in (".png", ".md", ".html") or ("checkpoint-" in str(path) and path.suffix == ".bin")
            if not drawn and not (path.parts[0].startswith("night_") and path.parts[0] <= over and "generator" not in path.parts):
                yield path, "flipped", flip
        newest = [path for path in files if path.as_posix().startswith(_newest(of)) and len(path.parts) > 2]
        if newest:
            yield newest[-1], "cut", lambda file: os.truncate(file, file.stat().st_size // 2)
            yield newest[0], "deleted", Path.unlink

    def judged(self, name: str, outcome: Outcome, folder: Path, unread: str = "") -> None:
        """Add the row of the command that was typed after a fault; ``unread`` is a file that does not count."""
        if outcome.code == -999:
            self.add(name, "hung")
        elif outcome.traceback:
            self.add(name, "traceback", outcome.err[-400:])
        elif outcome.code == 0:
            self.add(name, *_compared(contents(folder) | {unread: None}, self.whole | {unread: None}))
        elif outcome.is_told:
            self.add(name, "refused", outcome.line)
        else:
            self.add(name, "traceback", f"exit code {outcome.code}: {outcome.err[-300:]}")

    def add(self, fault: str, result: str, detail: str = "") -> None:
        self.rows.append(Row(self.command.name, fault, result, detail))
        if result not in GOOD:
            print(f"{self.command.name}: {fault}: {result} {detail}", flush=True)

    def fresh(self) -> Path:
        self.count += 1
        return self.folder / f"run_{self.count}"


def contents(folder: Path) -> dict[str, Any]:
    """All that a run left but what time and machine decide."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not SKIPPED.search(name):
            found[name] = _timeless(path) if path.suffix in (".json", ".jsonl") else path.read_bytes()
    return {name: value for name, value in found.items() if not name.startswith("state/") or name.startswith(_newest(folder))}


def _newest(folder: Path) -> str:
    states = sorted(path.name for path in (folder / "state").glob("night_*"))
    return f"state/{states[-1]}/" if states else "state/"


def _timeless(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8")
    try:
        rows = [json.loads(line) for line in text.split("\n") if line] if path.suffix == ".jsonl" else json.loads(text)
    except ValueError:
        return text
    return _without_times(rows)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if not TIMES.search(key)}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _compared(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, str]:
    differing = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return ("wrong", ", ".join(differing[:8])) if differing else ("equal", "")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(data or b"x")


def write_table(rows: list[Row], output: Path) -> None:
    """The counts of each command and kind of fault, and every fault that did not end well.

    The rows of other commands that are there already stay.
    """
    path = output.with_suffix(".json")
    before = [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
    new = {row.command for row in rows}
    rows = [row for row in before if row.command not in new] + rows
    order = [command.name for command in COMMANDS]
    rows.sort(key=lambda row: order.index(row.command))
    tries = [(row.command, row.fault.split(" ")[0].rstrip(","), row.result) for row in rows]
    lines = ["# Faults", "", f"{len(rows)} faults; written by `make test-faults`.", ""]
    lines += counts_table("fault", ["equal", "refused", "wrong", "traceback", "hung"], tries)
    bad = [row for row in rows if row.result not in GOOD]
    lines += ["", "## Not well", ""] + [f"* {row.command}, {row.fault}: {row.result}" for row in bad] if bad else []
    write_text(output.with_suffix(".md"), "\n".join(lines) + "\n")
    write_text(path, json.dumps([vars(row) for row in rows], indent=1) + "\n")


def main() -> int:
    """Run the campaigns that are named, or all; exit code 1 if any fault did not end well."""
    rows = []
    for found in rounds(lambda command, inputs, folder: Campaign(command, inputs, folder).go()):
        rows += found
        write_table(found, ROOT / "benchmarks" / "results" / "faults")
    failed = sum(row.result not in GOOD for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
