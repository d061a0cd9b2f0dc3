"""Arguments of `sleepkit serve`: who answers, where, whether it is kept and slept on, and all options of the nights.

    parse_serve(["runs/life", "--remember", "true"])  ->  (ServeArguments, SleepConfig)

The first word is a run or a model, as of `sleepkit chat`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.chat import TalkArguments, is_its_own, parse_talk
from sleepkit.runs.arguments.run_of import beginning_of
from sleepkit.utils.options import option, require

if TYPE_CHECKING:
    from sleepkit.trainers.config import SleepConfig

__all__ = ["KEY", "ServeArguments", "parse_serve"]

KEY = "SLEEPKIT_API_KEY"  # in the environment


@dataclass
class ServeArguments(TalkArguments):
    """Options of a server."""

    sleep_every: str | None = option(
        None, "With remember: sleep once so long has passed since the last night, and something was said: 30m, 24h, 7d."
    )
    reply_tokens: int = option(256, "Tokens of a reply at most, where a request does not say.")
    host: str = option("127.0.0.1", "Address to listen at; the default is reached from this machine alone.")
    port: int = option(8000, "Port to listen at; 0 takes a free one.")
    api_key: str | None = option(None, f"What clients must send as their key; better given as {KEY} in the environment.")
    remember: bool = option(False, "Keep what users say in today.jsonl of the run, for a night to learn.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, ("port",), lambda value: 0 <= value <= 65535, "a whole number from 0 to 65535")
        if self.sleep_every is not None and not self.remember:
            raise SleepkitError(
                f"sleep_every is {self.sleep_every} and nothing is kept to sleep on; give --remember true, or leave it out"
            )

    @property
    def key(self) -> str | None:
        """The key of the option or the environment; raises `SleepkitError` if that is empty."""
        key = self.api_key if self.api_key is not None else os.environ.get(KEY)
        if key is not None and not key.strip():
            raise SleepkitError(f"{KEY} is empty; give a key, or unset it to answer without one")
        return key


def parse_serve(argv: Sequence[str]) -> tuple[ServeArguments, SleepConfig]:
    """Read the command line of `sleepkit serve`.

    With ``remember`` the model that it names is the one that the run began with, as of a chat; without, ``run`` is what answers.

    Raises:
        SleepkitError: as `chat.parse_chat`.
        SystemExit: after `--help`.
    """
    args, config = parse_talk(
        argv,
        ServeArguments,
        "sleepkit serve",
        "Let any chat client talk to a model, slept or not: `sleepkit serve RUN|MODEL` answers at http://127.0.0.1:8000/v1 as "
        "OpenAI's API does. With --remember true a night learns what users say.",
    )
    if args.remember and args.model is None and is_its_own(args, config):
        args.model, config.model_revision = beginning_of(Path(args.run), config.model_revision)
    return args, config
