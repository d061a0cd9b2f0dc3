"""The conversation of `sleepkit chat`, line by line.

    My cat is called Miso.     is kept until the night, and answered
    /remember TEXT             is kept, without an answer
    /forget 2, /forget Miso    takes the line of that number, or with these words, out of today
    /history                   the nights so far, and the lines of today with their numbers
    /sleep                     the night
    /quit                      ends; today is kept

Ctrl-C stops an answer; inside a night it ends the chat, and the next /sleep goes on with that night.  Ctrl-D quits.  Without a
terminal, lines are read from the input until it ends, and nothing but answers is printed between them.  What cannot be done is
one line on stderr, and the chat goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.reporting.history import history_text
from sleepkit.reporting.live import progress
from sleepkit.runs.arguments.chat import ChatArguments, TalkArguments
from sleepkit.runs.arguments.command_line import check_text
from sleepkit.utils.sealed import locked

if TYPE_CHECKING:
    from sleepkit.trainers.chat import SleepChat
    from sleepkit.trainers.config import SleepConfig
    from sleepkit.trainers.outputs import Night

__all__ = ["Conversation", "chat_of", "outcome", "run_chat"]

HELP = """/remember TEXT   keep a text for the night, without an answer
/forget N        take line N of today out of it (/history numbers them), or the line with these words
/sleep           the night: the model learns what you said today, and begins tomorrow with nothing in its context
/history         the nights so far, and the lines of today
/help            this
/quit            end; today is kept
Ctrl-C stops an answer, Ctrl-D quits."""


def run_chat(args: ChatArguments, config: SleepConfig) -> None:
    """Talk until the input ends or the user quits.

    Raises:
        SleepkitError: model or options that cannot be used, or a folder that belongs to another run or is in use.
    """
    with locked(Path(str(config.output_dir))):
        with progress.shown(plain=bool(config.disable_tqdm)):
            chat = chat_of(args, config)
        conversation = Conversation(chat, args.period, args.compare)
        if sys.stdin.isatty():
            import readline  # noqa: F401  input() then edits its line

            conversation.greet()
        for line in _lines():
            if not conversation.take(line):
                break
        if sys.stdin.isatty() and chat.today.said:
            print(f"today is kept in {chat.today.path}; the next chat goes on with it")


def chat_of(args: TalkArguments, config: SleepConfig) -> SleepChat:
    """Return the chat that a command line asks for."""
    from sleepkit.trainers.chat import SleepChat

    return SleepChat(
        args.model or args.run,
        config,
        general_prompts=args.general_prompts,
        anchors=args.anchors,
        reply_tokens=args.reply_tokens,
    )


def _lines() -> Iterator[str]:
    """The lines that are typed or piped, without empty ones."""
    interactive = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                print()
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(Ctrl-D or /quit ends)")
            continue
        except UnicodeDecodeError as error:
            raise SleepkitError(f"a line has bytes that are no text in UTF-8 ({error.reason}); type it anew") from None
        if line:
            yield line


class Conversation:
    """Does what each line asks for, and prints what comes of it.

    Args:
        chat: with whom.
        period: seconds after which a night is due; None sleeps when told to.
        compare: also show what the model said before it slept.
    """

    def __init__(self, chat: SleepChat, period: float | None = None, compare: bool = False) -> None:
        self.chat, self.period, self.compare = chat, period, compare
        self.commands: dict[str, Callable[[str], object]] = {
            "remember": self._remember,
            "forget": self._forget,
            "sleep": lambda _: self._sleep(),
            "history": lambda _: self._history(),
            "help": lambda _: print(HELP),
        }

    def greet(self) -> None:
        """Say with whom one talks, and where it is kept."""
        nights = self.chat.nights_slept
        print(f"{self.chat.given.model}, {nights} {'night' if nights == 1 else 'nights'} slept; /help lists the commands")
        print(f"What you say is kept in {self.chat.today.path.absolute()} until the night; nothing is uploaded.")
        if self.chat.today.said:
            print(f"Today goes on: {len(self.chat.today.said)} lines so far.")

    def take(self, line: str) -> bool:
        """Do what a line asks for; False if the chat is to end."""
        name, _, rest = line[1:].partition(" ")
        if line.startswith("/") and name in ("quit", "exit"):
            return False
        with _one_line():
            check_text("line", line)
            if not line.startswith("/"):
                self._say(line)
            elif name in self.commands:
                self.commands[name](rest.strip())
            else:
                raise SleepkitError(f"/{name} is no command of a chat; /help lists them")
        return True

    def _say(self, line: str) -> None:
        with _one_line():  # a night that fails keeps no line from its answer
            if self.chat.is_due(self.period):
                self._sleep()
        self._reply(line)

    def _reply(self, line: str) -> None:
        if self.compare:
            print(f"before sleep: {_safe(self.chat.reply_unslept(line))}")
            print("after sleep:  ", end="", flush=True)
        reply = self.chat.reply(line, lambda text: print(_safe(text), end="", flush=True))
        print(" ... (stopped)" if reply.stopped else "", flush=True)

    def _remember(self, text: str) -> None:
        self.chat.remember(text)
        print(f"kept as line {len(self.chat.today.said)} of today", flush=True)

    def _forget(self, what: str) -> None:
        line = self.chat.today.forget(what)
        print(f"forgotten: {_safe(line.text)}", flush=True)

    def _sleep(self) -> None:
        print(outcome(self.chat.sleep()), flush=True)

    def _history(self) -> None:
        print(history_text(self.chat.folder) if self.chat.nights_slept else "no night yet")
        said = self.chat.today.said
        print(f"today, in {self.chat.today.path}:" if said else "nothing was said today")
        for number, line in enumerate(said, 1):
            print(f"{number:4}  {_safe(line.text)}{'' if line.is_learned else '   (states nothing: not learned)'}")
        sys.stdout.flush()


def outcome(night: Night) -> str:
    """One line about a night of a chat."""
    if night.kept:
        return f"night {night.number} was kept ({night.reason}); a new day begins, with nothing in the context"
    return f"night {night.number} was undone ({night.reason}); today stays, and the next night tries again"


@contextmanager
def _one_line() -> Iterator[None]:
    """Print what cannot be done, and go on."""
    try:
        yield
    except SleepkitError as error:
        print(f"sleepkit: {error}", file=sys.stderr, flush=True)


def _safe(text: str) -> str:
    """A text without what a terminal would obey."""
    return progress.printable(text, sys.stdout.encoding)
