"""Before anything is computed: do all processes of a launch run the same code, with the same arguments, in one folder?

    agree("runs/notes", {"seed": 0, ...})       one line on all of them, the same, where they do not

Each process leaves a statement in the store (store.py); process 0 compares them and leaves its verdict there, which all follow.
No collective is used: with other arguments, or another number of nights found, they would not meet in one.

    code        versions of sleepkit and the libraries below it, and a digest of sleepkit's files
    launch      what the launcher has put into the environment: precision, DeepSpeed, FSDP
    arguments   all but places and secrets
    folder      process 0 writes a file of a name that nobody used before; all others look for it
    state       the names of the files of the run that is in the folder
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sleepkit
from sleepkit.errors import SleepkitError
from sleepkit.utils.launch.build_lock import left_build_lock
from sleepkit.utils.launch.store import PATIENCE, Place, launched, place, store, wait_until
from sleepkit.utils.options import shown
from sleepkit.utils.states import states

__all__ = ["agree"]

LIBRARIES = ("torch", "transformers", "accelerate", "trl", "peft", "deepspeed")
PRIVATE = frozenset(("output_dir", "hub_token", "api_key", "local_rank", "config", "traceback", "help_all"))
FOR_TOKEN, FOR_STATE = 10.0, 40.0  # seconds: a network file system shows new files late, and old listings longer
NAMED = 5  # differences that a line names
_agreed: set[Path] = set()
_count = itertools.count()


def agree(folder: str | Path, arguments: Mapping[str, Any]) -> None:
    """Raise the same `SleepkitError` on all processes unless they agree; call it on all.

    Only the first call for a folder does anything; folders below it belong to it.  The folder is made, and goes again where they
    do not agree.

    Args:
        folder: of the run's output.
        arguments: by name; those that are no plain values are passed over, and so are places and secrets.

    Raises:
        SleepkitError: they differ in something, one has not come, or a killed build of DeepSpeed is in the way.
    """
    folder = Path(folder).expanduser().absolute()
    if not launched():
        if lock := left_build_lock():
            raise SleepkitError(lock)
        return
    if not _agreed.isdisjoint((folder, *folder.parents)):
        return
    notes, here = _Notes(f"start_{next(_count)}"), place()
    with _token(folder, here.rank == 0) as token:
        if here.rank == 0:
            notes.put("token", token)
        notes.put(here.rank, _statement(here, folder, arguments, notes.get("token", 0)))
        if here.rank == 0:
            notes.put("verdict", _verdict([notes.get(rank, rank) for rank in range(here.world)]))
        if verdict := notes.get("verdict", 0):
            raise SleepkitError(verdict)
    _agreed.add(folder)


class _Notes:
    """Notes of one agreement, in JSON."""

    def __init__(self, name: str) -> None:
        self.name = name

    def put(self, key: str | int, value: Any) -> None:
        store().set(f"{self.name}/{key}", json.dumps(value))

    def get(self, key: str | int, rank: int) -> Any:
        """Return the note that process ``rank`` leaves, when it is there."""
        name = f"{self.name}/{key}"
        if not wait_until(lambda: store().check([name]), PATIENCE):
            raise SleepkitError(
                f"process {rank} has not come to the start within {PATIENCE:.0f} s; look at what its machine prints"
            )
        return json.loads(store().get(name))


@contextmanager
def _token(folder: Path, is_main: bool) -> Iterator[dict[str, Any] | None]:
    """Process 0 writes a file of a new name inside the block; yields its name, what else is there, or why it could not."""
    if not is_main:
        yield None
        return
    path = folder / f".start-{uuid.uuid4().hex}"
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
        written: dict[str, Any] = {"name": path.name, "files": _files(folder)}
    except OSError as error:
        written = {"error": f"output_dir {folder} cannot be written to ({error.strerror}); choose another folder"}
    try:
        yield written
    except SleepkitError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            for one in made:
                one.rmdir()
        raise
    path.unlink(missing_ok=True)


# -- what a process states --------------------------------------------------------------------------------------------
def _statement(here: Place, folder: Path, arguments: Mapping[str, Any], token: Mapping[str, Any]) -> dict[str, Any]:
    sees_token = "error" not in token and wait_until((folder / token["name"]).exists, FOR_TOKEN)
    sees_files = sees_token and wait_until(lambda: _files(folder) == token["files"], FOR_STATE)
    return {
        "who": (here.host, here.machine),
        "code": _plain(_code()),
        "launch": _plain({name: value for name, value in os.environ.items() if name.startswith(("ACCELERATE_", "FSDP_"))}),
        "arguments": _plain({name: value for name, value in arguments.items() if name not in PRIVATE}),
        "refusal": token.get("error") or left_build_lock(),
        "sees": (sees_token, sees_files),
        "holds": f"{folder} holds {_content(folder)}",
    }


def _code() -> dict[str, str]:
    """Versions, and a digest of the files of this package."""
    root, total = Path(sleepkit.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    found = {name: found for name in LIBRARIES if (found := _version(name)) is not None}
    return found | {"sleepkit": sleepkit.__version__, "the digest of sleepkit's files": total.hexdigest()[:12]}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as JSON, which is the same on each machine; of an object, its class."""

    def simple(value: Any) -> Any:
        return value.value if isinstance(value, Enum) else type(value).__name__

    return {name: json.dumps(value, sort_keys=True, default=simple) for name, value in values.items()}


def _files(folder: Path) -> list[str]:
    """Names of all files that are not hidden, also below links at the top: their sizes reach another machine late."""
    found = []
    for top in folder.iterdir() if folder.is_dir() else ():
        inside = top.resolve().rglob("*") if top.is_dir() else [top.resolve()]
        found += [Path(top.name) / path.relative_to(top.resolve()) for path in inside if path.is_file()]
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _content(folder: Path) -> str:
    found = _files(folder)
    if not found:
        return "no run"
    kept = states(folder / "state")
    return f"{len(found)} files, and {f'state/{kept[-1].name}' if kept else 'no state'}"


# -- what process 0 makes of it ---------------------------------------------------------------------------------------
def _verdict(statements: Sequence[Mapping[str, Any]]) -> str:
    """One line about the first thing in which the processes differ; empty if there is none."""
    if refusals := [one["refusal"] for one in statements if one["refusal"]]:
        return str(refusals[0])
    for kind, remedy in (
        ("code", "install the same on all machines"),
        ("launch", "start all with the same accelerate configuration"),
        ("arguments", "start all with the same arguments"),
    ):
        if found := _differences(statements, kind):
            more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
            return f"the processes differ: {'; '.join(found[:NAMED])}{more}; {remedy}"
    if not all(one["sees"][0] for one in statements):
        return (
            f"output_dir is not one folder that all processes share: {_held(statements)}; give one on a file system that all "
            "machines mount, such as NFS"
        )
    if not all(one["sees"][1] for one in statements):
        return (
            f"the processes see different files of the run: {_held(statements)}; mount all of output_dir from one file system, "
            "or wait a minute if the last run has only just ended"
        )
    return ""


def _differences(statements: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    """``name is a (who), b (who)`` for each name whose values differ."""
    names = sorted({name for one in statements for name in one[kind]})
    grouped = {name: _grouped(statements, lambda one, name=name: one[kind].get(name)) for name in names}  # type: ignore[misc]
    return [
        f"{name} is {', '.join(f'{_value(value)} {whose}' for value, whose in found.items())}"
        for name, found in grouped.items()
        if len(found) > 1
    ]


def _value(text: str | None) -> str:
    return "not given" if text is None else shown(json.loads(text))


def _held(statements: Sequence[Mapping[str, Any]]) -> str:
    """What each machine finds in its folder, those apart that see what process 0 sees."""
    found = _grouped(statements, lambda one: (one["holds"], tuple(one["sees"]), tuple(one["who"])))
    return ", ".join(f"{holds} {whose}" for (holds, *_), whose in found.items())


def _grouped(statements: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], Any]) -> dict[Any, str]:
    """Who has which value: ``{value: "on node-a (processes 0 to 7)"}``."""
    ranks: dict[Any, dict[tuple[str, ...], list[int]]] = {}
    for rank, one in enumerate(statements):
        ranks.setdefault(of(one), {}).setdefault(tuple(one["who"]), []).append(rank)
    return {value: " and ".join(_where(who[0], found) for who, found in hosts.items()) for value, hosts in ranks.items()}


def _where(host: str, ranks: Sequence[int]) -> str:
    numbers = f"process {ranks[0]}" if len(ranks) == 1 else f"processes {ranks[0]} to {ranks[-1]}"
    return f"on {host} ({numbers})"
