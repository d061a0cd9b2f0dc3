"""Where requests wait for the one model: it answers them one after the other, and sleeps in between.

    desk.submit(Ticket(asked, tell))     from any thread; refused in a night
    desk.work()                          the model's thread: answers, and a night when one is due, until Ctrl-C

A ticket is told each part of its answer as a `str`, then the whole as an `Answer`, or in place of that why there is none, a
`Refused`.  Whoever no longer waits sets ``is_over``, which ends the reply at the next token.

The model's thread is the main one: there Ctrl-C and SIGTERM arrive, in an answer and in a night as in `sleepkit chat`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.chat import chat_ids, window_of
from sleepkit.language.generation.streaming import streamed
from sleepkit.runs.chat import outcome
from sleepkit.runs.guard import report
from sleepkit.runs.serving.protocol import Answer, Asked, Refused

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sleepkit.trainers.chat import SleepChat

__all__ = ["Desk", "Ticket"]

RETRY_AFTER = 60  # seconds
LOOK = 10.0  # seconds after which to look whether a night is due


@dataclass
class Ticket:
    """A request that waits.

    Attributes:
        asked: what it asks for.
        tell: is called in the model's thread, with what comes of it.
        is_over: is set when nobody waits any more.
    """

    asked: Asked
    tell: Callable[[str | Answer | Refused], object]
    is_over: threading.Event = field(default_factory=threading.Event)


class Desk:
    """Answers requests with one model.

    Args:
        model: that answers.
        tokenizer: its tokenizer.
        reply_tokens: tokens of a reply at most, where a request does not say.
        chat: keeps what users say, and sleeps on it; ``model`` is its model.  None keeps nothing.
        period: seconds after which a night is due; None never sleeps.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        reply_tokens: int = 256,
        chat: SleepChat | None = None,
        period: float | None = None,
    ) -> None:
        self.model, self.tokenizer, self.reply_tokens = model, tokenizer, reply_tokens
        self.chat, self.period = chat, period
        self.closed: Callable[[], Refused] | None = None
        self._waiting: SimpleQueue[Ticket | None] = SimpleQueue()
        self._door = threading.Lock()

    # -- from any thread ----------------------------------------------------------------------------------------------
    def submit(self, ticket: Ticket) -> None:
        """Let a request wait for its turn; raises `Refused` in a night and when the server ends."""
        with self._door:
            if self.closed is not None:
                raise self.closed()
            self._waiting.put(ticket)

    def close(self) -> None:
        """Refuse all that waits and comes, and let `work` return."""
        self._refuse(_ending)
        self._waiting.put(None)

    @property
    def sleeps(self) -> bool:
        """Whether it is night."""
        return self.closed is _asleep

    # -- the model's thread -------------------------------------------------------------------------------------------
    def work(self) -> None:
        """Answer and sleep until `close` is called, or Ctrl-C raises `KeyboardInterrupt`."""
        while True:
            if self.chat is not None and self.chat.is_due(self.period):
                self._sleep(self.chat)
            try:
                ticket = self._waiting.get(timeout=None if self.period is None else LOOK)
            except Empty:
                continue
            if ticket is None:
                return
            if not ticket.is_over.is_set():
                self._serve(ticket)

    def _serve(self, ticket: Ticket) -> None:
        """Answer one request; what goes wrong is told to it, and the next one is answered."""
        try:
            ticket.tell(self._answer(ticket))
        except Refused as refused:
            ticket.tell(refused)
        except Exception as error:  # a full disk, too little memory, a fault: said here too, where it can be mended
            report(error)
            ticket.tell(Refused("the model could not answer; its server says why", 500, code="failed"))
        except BaseException:
            ticket.tell(_ending())
            raise

    def _answer(self, ticket: Ticket) -> Answer:
        asked, length = ticket.asked, self._length(ticket.asked)
        most = int(min(asked.most or self.reply_tokens, window_of(self.model) - length))
        is_new = self._keep(asked.messages[-1]["content"])
        with self._awake():
            reply = streamed(
                self.model,
                self.tokenizer,
                asked.messages,
                most,
                ticket.tell,
                ticket.is_over.is_set,
                asked.stop,
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=asked.seed,
            )
        if is_new and self.chat is not None:
            self.chat.today.add("assistant", reply.text)
        if reply.stopped and not ticket.is_over.is_set():
            raise KeyboardInterrupt
        return Answer(reply, length)

    def _length(self, asked: Asked) -> int:
        """Tokens of the conversation; raises `Refused` if it cannot be written, or leaves no room for a reply."""
        try:
            length = len(chat_ids(self.tokenizer, asked.messages))
        except SleepkitError as error:  # templates refuse roles and orders that they do not know
            raise Refused(str(error), param="messages") from error
        if length >= window_of(self.model):
            reason = f"the conversation has {length} tokens and the model's window {window_of(self.model)}; send less of it"
            raise Refused(reason, param="messages", code="context_length_exceeded")
        return length

    def _keep(self, text: str) -> bool:
        """Keep the user's last message, which alone is new: what is before it was sent before.

        A request that is sent again, as clients do after an error or to have another answer, says nothing new.

        Returns:
            Whether it is kept now.
        """
        if self.chat is None:
            return False
        last = next((line.text for line in reversed(self.chat.today.lines) if line.role == "user"), None)
        if text.strip() == last:
            return False
        self.chat.today.add("user", text.strip())
        return True

    def _awake(self) -> AbstractContextManager[object]:
        """The model with all that its nights have learned."""
        return nullcontext() if self.chat is None else self.chat.learner.bank.view(self.chat.learner.bank.active)

    # -- nights -------------------------------------------------------------------------------------------------------
    def _sleep(self, chat: SleepChat) -> None:
        self._refuse(_asleep)
        try:
            print(outcome(chat.sleep()), flush=True)
        except SleepkitError as error:  # today stays, and the next night tries again
            report(error)
        with self._door:
            self.closed = None if self.sleeps else self.closed

    def _refuse(self, why: Callable[[], Refused]) -> None:
        """Refuse all that waits and all that comes."""
        with self._door:
            if self.closed is not _ending:
                self.closed = why
            with suppress(Empty):
                while (ticket := self._waiting.get_nowait()) is not None:
                    ticket.tell(why())
                self._waiting.put(None)  # that it is to end


def _asleep() -> Refused:
    reason = "the model sleeps on what was said, and answers when it wakes; ask again later"
    return Refused(reason, 503, code="asleep", retry_after=RETRY_AFTER)


def _ending() -> Refused:
    return Refused("the server ends", 503, code="ending")
