"""What a user can get wrong, by the thousand: every command must say it in one line, before it computes or writes anything.

    python tests/fault/bad_inputs.py [NAME ...]     all commands of commands.py, or those named; `make test-faults`

Hypothesis draws values of another type for options and for keys of recipes, and spoils the files of data and models; ranges are
those of ../test_command_line.py.  Each input is given to a whole command::

    refused     exit code 2 and one line, nothing computed and nothing written
    taken       it runs to its end: fine where what was spoilt is still data (another letter in a text), listed to be looked at
    late        the one line comes after the first step, or leaves files            traceback    somebody sees a traceback
    wrong       it runs to its end with a value that cannot be meant                hung         it does not end

``benchmarks/results/bad_inputs.md`` has the table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("fault", ".", "runs/arguments")]

import yaml  # noqa: E402
from commands import Command  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from machine import ROOT, Outcome, run  # noqa: E402
from rounds import counts_table, rounds  # noqa: E402
from test_command_line import CASES, PARSERS  # noqa: E402

SECONDS = 60
SMALL_COMMANDS = """
    nonsense | slep | ask | ask /nowhere q | ask {inputs}/rows.jsonl q | ask {inputs}/images q
    ask {inputs}/base q --max_new_tokens 0
    ask {inputs}/base q --max_new_tokens x | ask {inputs}/base q --max_new_tokens -1 | ask {inputs}/base q --compar
    report | report /nowhere | report {inputs} | report {inputs}/rows.jsonl | report {inputs}/base {inputs}/base
    history | history /nowhere | history {inputs} | history {inputs}/rows.jsonl | publish | publish /nowhere a/b
    publish {inputs} a/b
    publish {inputs}/base | publish {inputs}/rows.jsonl a/b | publish {inputs} a/b/c | publish {inputs} --dreams x
    expand | expand {inputs}/base | expand /nowhere {output} | expand {inputs}/base {inputs}/rows.jsonl
    expand {inputs}/base {output} --slots 0 | expand {inputs}/base {output} --width -1 | expand {inputs}/base {output} --layers 99
    expand {inputs}/base {output} --layers none | expand {inputs}/images {output} | expand {inputs}/rows.jsonl {output}
    idsprites --columns 0 | idsprites --image_size 0 | idsprites --image_size x | idsprites --vertices 1 0 | idsprites --seed -1
    idsprites --output {inputs} | idsprites --output {output}/x.doc | idsprites --first_class -1 | idsprites --colums 3
"""
COUNTS = {"option": 60, "key": 60, "spoilt": 40}
NO_NUMBER = st.sampled_from(["x", "", " ", "1,5", "[1]", "{}", "None", "1e", "--", "0x10", "1_0_", "\N{INFINITY}", "½"])
NO_BOOL = st.sampled_from(["maybe", "2", "", "[true]", "None", "yess", "-"])
NO_VALUE: dict[type, st.SearchStrategy[Any]] = {
    int: st.one_of(
        NO_NUMBER, st.sampled_from(["1.5", "nan", "inf", "1e3", "true"]), st.floats(1e19, 1e40).map(lambda x: str(int(x)))
    ),
    float: st.one_of(NO_NUMBER, st.just("true")),
    bool: NO_BOOL,
}
NESTED = st.recursive(
    st.one_of(st.integers(-9, 9), st.text(max_size=4), st.booleans(), st.none(), st.dates()),
    lambda inner: st.one_of(st.lists(inner, min_size=1, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
MAPPING = st.dictionaries(st.text("abc", min_size=1, max_size=3), NESTED, min_size=1, max_size=3)


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Different values of a strategy, the same ones each time."""
    values: dict[str, Any] = {}

    @settings(
        max_examples=6 * count, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def draw(value: Any) -> None:
        values.setdefault(repr(value), value)

    draw()
    return list(values.values())[:count]


@dataclasses.dataclass
class Row:
    """What one bad input came to."""

    command: str
    kind: str
    given: str
    result: str
    detail: str = ""


@dataclasses.dataclass
class BadInputs:
    """The bad inputs of one command."""

    command: Command
    inputs: Path
    folder: Path
    rows: list[Row] = dataclasses.field(default_factory=list)

    def go(self) -> list[Row]:
        """Give all of them."""
        for kind, more in (*self.options(), *self.keys(), *self.ranges()) if self.command.parser else ():
            self.judged(kind, " ".join(more)[-90:], self.typed(more), may_run=False)
        for line in self.small_commands():
            words = line.format(inputs=self.inputs, output=self.folder / "out").split()
            self.judged("small command", line, run(["sleepkit", *words], None, self.folder / "out", SECONDS), may_run=False)
        for name, spoil in self.files():
            place = self.inputs / name
            kept = place.read_bytes()
            for what, content in spoil(kept):
                place.write_bytes(content)
                self.judged(f"spoilt {name.split('/')[0]}", f"{name}: {what}", self.typed(()), may_run=True)
            place.write_bytes(kept)
        return self.rows

    def typed(self, more: tuple[str, ...]) -> Outcome:
        """Run the command into a new folder."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        return run(
            [*self.command.line(self.inputs, self.folder / "out"), *more], None, watch=self.folder / "out", seconds=SECONDS
        )

    def fields(self) -> list[tuple[str, Any]]:
        """Names and types of all options."""
        parser, base = PARSERS[self.command.parser]
        parts = parser(base.split())
        parts = parts if isinstance(parts, tuple) else (parts,)
        hints = {name: kind for part in parts for name, kind in get_type_hints(type(part)).items()}
        names = {field.name for part in parts for field in dataclasses.fields(part) if field.init}
        return sorted(((name, hints[name]) for name in names), key=lambda pair: pair[0])

    def options(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Values of another type on the command line, and names that are nearly right."""
        typed = [(name, NO_VALUE[kind]) for name, kind in self.fields() if kind in NO_VALUE and name not in HIDDEN]
        pairs = st.sampled_from(range(len(typed))).flatmap(lambda k: st.tuples(st.just(typed[k][0]), typed[k][1]))
        for name, value in drawn(pairs, COUNTS["option"]):
            yield "option", (f"--{name}={value}",)
        names = st.sampled_from([name for name, _ in typed if len(name) > 4])
        for name, cut in drawn(st.tuples(names, st.integers(1, 3)), COUNTS["option"] // 6):
            yield "option", (f"--{name[:cut]}{name[cut + 1 :]}q", "1")

    def keys(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Recipes with a mapping, a list of lists or a date where something else belongs."""
        plain = [name for name, kind in self.fields() if kind in (int, float, bool, str) and name not in HIDDEN]
        odd = st.one_of(MAPPING, st.lists(st.lists(st.integers(), max_size=2), min_size=2, max_size=3), st.dates())
        for number, (name, value) in enumerate(drawn(st.tuples(st.sampled_from(plain), odd), COUNTS["key"])):
            if dict(self.fields())[name] is str and not isinstance(value, (dict, list)):
                continue  # a date is a text, too
            path = self.folder / f"{number}.yaml"
            path.write_text(yaml.safe_dump({name: value}), encoding="utf-8")
            yield "key", ("--config", str(path))

    def ranges(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Values out of range, or without effect."""
        for row in CASES[self.command.parser].splitlines() if self.command.ranges else ():
            for line in row.split("|"):
                yield "range", tuple(f"--{line.strip()}".split())

    def small_commands(self) -> list[str]:
        """Whole lines of the commands that have no recipe."""
        lines = re.split(r"[|\n]", SMALL_COMMANDS) if self.command.name == "sleep" else []
        return [line.strip() for line in lines if line.strip()]

    def files(self) -> Iterator[tuple[str, Callable[[bytes], Iterator[tuple[str, bytes]]]]]:
        """Files of data and models, and how they are spoilt."""
        for name in self.command.reads:
            yield name, SPOILT.get(Path(name).suffix, _spoilt_bytes)

    def judged(self, kind: str, given: str, outcome: Outcome, may_run: bool) -> None:
        began = outcome.steps > 0 or any("night_" in moment or "/model" in moment for moment in outcome.moments)
        if outcome.code == -999:
            result, detail = "hung", ""
        elif outcome.traceback or (outcome.code != 0 and not outcome.is_told):
            result, detail = "traceback", outcome.err[-300:]
        elif outcome.code == 0:
            result, detail = "taken" if may_run else "wrong", ""
        else:
            result, detail = "late" if began else "refused", outcome.line
        self.rows.append(Row(self.command.name, kind, given, result, detail))
        if result != "refused":
            print(f"{self.command.name}, {kind}, {given!r}: {result} {detail}", flush=True)


HIDDEN = {"dataset", "output_dir", "use_cpu", "model"}


def _spoilt_bytes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Cut, emptied, overwritten."""
    yield "empty", b""
    for share in drawn(st.integers(1, 99), 3):
        yield f"cut at {share} %", content[: len(content) * share // 100]
    for at in drawn(st.integers(0, 30), 3):
        yield f"overwritten from byte {at}", content[:at] + bytes(64) + content[at + 64 :]
    yield "a page of HTML", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    yield "a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


def _spoilt_json(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The same, and one value of the JSON in another type, or gone."""
    return _spoilt_lines([content.decode("utf-8")])


def _spoilt_rows(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The same of the first row."""
    return _spoilt_lines(content.decode("utf-8").splitlines())


def _spoilt_lines(lines: list[str]) -> Iterator[tuple[str, bytes]]:
    yield from _spoilt_bytes("\n".join(lines).encode())
    first = json.loads(lines[0])
    places = [place for place in _places(first) if place]
    odd = st.one_of(MAPPING, st.just([[[0]]]), st.booleans(), st.floats(-9, 9), st.none(), st.just("GONE"))
    for place, value in drawn(st.tuples(st.sampled_from(places), odd), COUNTS["spoilt"]):
        copy = json.loads(lines[0])
        inside = copy
        for step in place[:-1]:
            inside = inside[step]
        if value == "GONE":
            del inside[place[-1]]
        else:
            inside[place[-1]] = value
        yield f"{'.'.join(map(str, place))} = {value}"[:80], "\n".join([json.dumps(copy, default=str), *lines[1:]]).encode()


SPOILT = {".json": _spoilt_json, ".jsonl": _spoilt_rows}  # by the suffix of a file; the others by bytes alone


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield before
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from _places(item, (*before, key))


def write_table(rows: list[Row], output: Path) -> None:
    """Counts of each command, and every input that was not refused at once."""
    lines = ["# Bad inputs", "", f"{len(rows)} bad inputs; written by `make test-faults`.", ""]
    tries = [(row.command, row.kind, row.result) for row in rows]
    lines += counts_table("input", ["refused", "taken", "late", "wrong", "traceback", "hung"], tries)
    others = [row for row in rows if row.result != "refused"]
    lines += ["", "## Not refused", ""] + [f"* {row.command}, {row.kind}, `{row.given}`: {row.result}" for row in others]
    output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Give the bad inputs of the commands that are named, or of all; exit code 1 if any was not met well."""
    rows = [row for found in rounds(lambda *places: BadInputs(*places).go()) for row in found]
    if not sys.argv[1:]:
        write_table(rows, ROOT / "benchmarks" / "results" / "bad_inputs")
    failed = sum(row.result not in ("refused", "taken") for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
