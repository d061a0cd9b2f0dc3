"""Arguments of `sleepkit chat`: whom to talk to, when it sleeps, and all options of its nights.  `sleepkit serve` has them too.

    parse_chat(["runs/life", "--sleep_every", "24h"])  ->  (ChatArguments, SleepConfig)

The first word is a run or a model.  In the folder of a run its own settings are the defaults, so that a chat goes on as the run
began; a recipe and the command line override them where a new day may.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.command_line import home_expanded, read
from sleepkit.runs.arguments.run_of import beginning_of, is_run, settings_of
from sleepkit.utils.options import option, require, shown

if TYPE_CHECKING:
    from sleepkit.trainers.config import SleepConfig

__all__ = ["ChatArguments", "TalkArguments", "is_its_own", "parse_chat", "parse_talk"]

Arguments = TypeVar("Arguments", bound="TalkArguments")

NEW = "runs/chat"  # folder of a chat with a model
_PERIOD = re.compile(r"([1-9]\d{0,5})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_GOES_ON = "a chat goes on with what is in its folder; leave it out, or give another --output_dir"
_PRIVATE = "a chat uploads nothing; leave it out, and see `sleepkit publish --help`"
_NOT_HERE = {
    **dict.fromkeys(("resume", "overwrite"), _GOES_ON),
    **dict.fromkeys(("push_to_hub_repo", "push_to_hub_form", "push_to_hub_dreams_repo", "push_to_hub_rehearsal"), _PRIVATE),
}


@dataclass
class TalkArguments:
    """Options of what talks, beside a `SleepConfig`.

    Raises `SleepkitError` for a value that cannot be used, naming it and what can.
    """

    run: str = option(
        "", "Output folder of a run, or Hub id or folder of a model, slept or not; may be the first word. Required."
    )
    model: str | None = option(None, "What the run began with, if it is no longer where the run found it.")
    sleep_every: str | None = option(
        None, "Sleep before a line is answered if so long has passed since the last night: 30m, 24h, 7d."
    )
    reply_tokens: int = option(256, "Tokens of a reply at most.")
    general_prompts: str | None = option(None, "JSONL of {prompt} for retention; None takes the shipped ones.")
    anchors: str | None = option(None, "Retention set, JSONL of {prompt, answer}; None: the shipped one.")

    def __post_init__(self) -> None:
        if not self.run.strip():
            raise SleepkitError("nobody is named to talk to; give a run or a model, such as runs/life, as the first word")
        require(self, ("reply_tokens",), lambda value: value >= 1, "a whole number of at least 1")
        if self.sleep_every is not None and not _PERIOD.fullmatch(self.sleep_every):
            raise SleepkitError(f"sleep_every is {shown(self.sleep_every)}; give minutes, hours or days, such as 30m, 24h or 7d")

    @property
    def period(self) -> float | None:
        """Seconds between two nights; None sleeps when told to."""
        found = _PERIOD.fullmatch(self.sleep_every or "")
        return int(found[1]) * _SECONDS[found[2]] if found else None


@dataclass
class ChatArguments(TalkArguments):
    """Options of a chat."""

    compare: bool = option(False, "Also show what the model said before it slept.")


def parse_chat(argv: Sequence[str]) -> tuple[ChatArguments, SleepConfig]:
    """Read the command line of `sleepkit chat`; the model that it names is the one that the run began with.

    Raises:
        SleepkitError: as `language.parse`; or the run is damaged, or one of several seeds.
        SystemExit: after `--help`.
    """
    description = "Talk to a model that sleeps on what you said: `sleepkit chat RUN|MODEL`, and /help in the chat."
    args, config = parse_talk(argv, ChatArguments, "sleepkit chat", description)
    if args.model is None and is_its_own(args, config):
        args.model, config.model_revision = beginning_of(Path(args.run), config.model_revision)
    return args, config


def parse_talk(argv: Sequence[str], kind: type[Arguments], prog: str, description: str) -> tuple[Arguments, SleepConfig]:
    """Read a command line whose first word is a run or a model, and that has all options of a night.

    Args:
        argv: arguments without the name of the program.
        kind: class of the options beside those of a night.
        prog, description: what `--help` says.

    Raises:
        SleepkitError: as `parse_chat`.
        SystemExit: after `--help`.
    """

    def given(defaults: Mapping[str, Any]) -> tuple[Arguments, SleepConfig]:
        from sleepkit.trainers.config import SleepConfig

        args, config = read(words, (kind, SleepConfig), prog=prog, description=description, ignored=_NOT_HERE, defaults=defaults)
        return args, config

    words = list(argv)
    first = words[:1] if words and not words[0].startswith("-") else []
    words = [*(["--run", *first] if first else []), *words[len(first) :]]
    run = home_expanded("run", _value_of("--run", words))
    args, config = given({"output_dir": run if is_run(Path(run)) else NEW})
    folder = str(config.output_dir)
    known = settings_of(Path(folder))
    return given({**known, "output_dir": folder}) if known else (args, config)


def is_its_own(args: TalkArguments, config: SleepConfig) -> bool:
    """Whether the run that is named is the one that goes on, and not the beginning of another life."""
    return os.path.abspath(args.run) == os.path.abspath(str(config.output_dir))


def _value_of(name: str, words: Sequence[str]) -> str:
    """The value of one option, before the others are understood."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(name, nargs="?", default="", const="")
    return str(parser.parse_known_args(words)[0].run)
