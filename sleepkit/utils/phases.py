"""Parts of a night that are done once: what a killed run has made is taken over if it is whole and the same, else made again.

    phase = PhaseFile(path, identity)        one file, with its seal ``<name>.seal`` beside it
    phase = PhaseFolder(path, identity)      a folder, with ``phase.json`` and the manifest of sealed.py

    log = phase.read()                       what was noted with it, or None: then it has to be made
    phase.write(make, log)                   ``make(draft)`` writes file or folder, which takes its place when it is whole

``identity`` is a flat mapping of what decides the content: seed, night, and digests of settings, experience and weights.  What
was made with another one, was cut short by a kill, or has changed since in any bit is named in a warning and removed.

A file may be written again and again (dreams, as they are tried one after the other): its seal is written first and knows the
content to come and the one before, so that a kill in between leaves a file that either is the one or the other.

Both methods are of one process: call them through `main_finds` and `main_only` where all ranks share a phase.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import encoded, plain, read_json, replacing, sync, writable, write_json
from sleepkit.utils.sealed import damage, file_digest, seal

__all__ = ["PHASE_FORMAT", "PhaseFile", "PhaseFolder", "digest_of"]

PHASE_FORMAT = 1  # of what phases hold: it is part of each identity
PHASE_NAME = "phase.json"
logger = logging.getLogger(__name__)

Identity = Mapping[str, Any]


def digest_of(value: Any) -> str:
    """16 hexadecimal digits of anything that `write_json` takes; equal for equal content, whatever the order of keys."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(encoded(text)).hexdigest()[:16]


class _Phase(ABC):
    """Base of phases that leave a file or a folder.

    Args:
        path: where it is kept.
        identity: flat, of numbers, texts and digests.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = Path(path)
        self.identity: dict[str, Any] = plain({"format": PHASE_FORMAT, **identity})

    def read(self) -> dict[str, Any] | None:
        """Return what was noted with the phase, an empty mapping if nothing was; None if it has to be made (again)."""
        if not any(path.exists() for path in self._paths()):
            return None
        try:
            reason = self._damage()
            if reason is None:
                note = self._note()
                reason, log = self._other(note), dict(note["log"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            reason = "what it was made with cannot be read"
        if reason is None:
            return log
        logger.warning(f"{self.path} is not taken over ({reason}); it is made again")
        self.forget()
        return None

    def is_same(self) -> bool:
        """Whether what is there, whole or damaged, was made with the same identity."""
        try:
            return self._other(self._note()) is None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return False

    def forget(self) -> None:
        """Remove it, if it is there."""
        with writable(self.path):
            for path in self._paths():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    def _other(self, note: Mapping[str, Any]) -> str | None:
        """What it was made with that is another now."""
        there = note["identity"]
        names = [name for name in {**self.identity, **there} if there.get(name) != self.identity.get(name)]
        return f"it was made with another {', '.join(name.replace('_', ' ') for name in names)}" if names else None

    @abstractmethod
    def _note(self) -> Mapping[str, Any]:
        """What was written with it: its identity and its log."""

    @abstractmethod
    def _damage(self) -> str | None:
        """Why it is not as it was written; None if it is."""

    @abstractmethod
    def _paths(self) -> tuple[Path, ...]:
        """Files and folders that it consists of."""


class PhaseFile(_Phase):
    """Phase of a night that leaves one file, sealed, which a later session takes over if nothing that decides it has changed."""

    def require_whole(self) -> None:
        """Raise `SleepkitError` unless it is as it was written; for who reads it later and cannot make it again."""
        try:
            reason = self._damage()
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            reason = "its seal cannot be read"
        if reason is not None:
            raise SleepkitError(
                f"{self.path} is damaged ({reason}); bring back a copy of it, or start anew with --overwrite true"
            )

    def write(self, make: Callable[[Path], object], log: Mapping[str, Any] | None = None) -> None:
        """Let ``make`` write the file, and put it in place with its identity and what is to be noted with it.

        Raises:
            SleepkitError: the disk does not take it.
        """
        before = self._digests()[:1] if self._seal.is_file() and self.path.is_file() else []
        with replacing(self.path) as draft:
            make(draft)
            note = {"identity": self.identity, "log": log or {}, "sha256": [file_digest(draft), *before]}
            write_json(self._seal, {**note, "check": digest_of(note)})

    @property
    def _seal(self) -> Path:
        return self.path.with_name(f"{self.path.name}.seal")

    def _digests(self) -> list[str]:
        """Of the content that is there, where the seal knows it."""
        try:
            found = file_digest(self.path)
            return [found] if found in self._note()["sha256"] else []
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def _note(self) -> Mapping[str, Any]:
        note: dict[str, Any] = read_json(self._seal)
        if note.pop("check") != digest_of(note):
            raise ValueError(f"{self._seal} has changed")
        return note

    def _damage(self) -> str | None:
        if not self.path.is_file():
            return "it was not finished"
        if not self._seal.is_file():
            return "it has no seal"
        return None if file_digest(self.path) in self._note()["sha256"] else "it has changed"

    def _paths(self) -> tuple[Path, ...]:
        return self.path, self._seal


class PhaseFolder(_Phase):
    """Phase of a night that leaves a folder, sealed, which a later session takes over if nothing that decides it has changed."""

    def write(self, make: Callable[[Path], object], log: Mapping[str, Any] | None = None) -> None:
        """Let ``make`` fill the folder, and put it in place with its identity and what is to be noted with it.

        Raises:
            SleepkitError: the disk does not take it.
        """
        self.begin()
        with writable(self.path):
            make(self.draft)
        self.commit(log)

    @property
    def draft(self) -> Path:
        """Folder that is filled before `commit` puts it in place."""
        return self.path.with_name(f"{self.path.name}.draft")

    def begin(self) -> None:
        """Make an empty draft, for what all ranks have to write together; `commit` ends it."""
        with writable(self.path):
            shutil.rmtree(self.draft, ignore_errors=True)
            self.draft.mkdir(parents=True)

    def commit(self, log: Mapping[str, Any] | None = None) -> None:
        """Seal the draft and put it in place."""
        write_json(self.draft / PHASE_NAME, {"identity": self.identity, "log": log or {}})
        seal(self.draft)
        with writable(self.path):
            self.forget()
            os.replace(self.draft, self.path)
            sync(self.path.parent)

    def _note(self) -> Mapping[str, Any]:
        note: Mapping[str, Any] = read_json(self.path / PHASE_NAME)
        return note

    def _damage(self) -> str | None:
        return damage(self.path)

    def _paths(self) -> tuple[Path, ...]:
        return (self.path,)
