"""A reply that is shown while it is generated, and can be stopped.

    streamed(model, tokenizer, messages, 256, show)    show("The "), show("light"), ...   ->   Reply("The light.", stopped=False)

What is shown is what the whole reply is: without the end of the turn, without what the model thought first, and without half a
character.  For one conversation in one process (chat.py is for many).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sleepkit.language.generation.chat import chat_ids, generate, stops_of
from sleepkit.language.generation.prompts import PromptFormat

__all__ = ["Reply", "streamed"]


class Reply(NamedTuple):
    """What a model said.

    Attributes:
        text: without the end of the turn.
        stopped: whether it was interrupted.
        cut: whether it ended for no other reason than that it had as many tokens as it may have.
        tokens: how many were generated, with the end of the turn and what was thought.
    """

    text: str
    stopped: bool
    cut: bool = False
    tokens: int = 0


def streamed(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: str | Sequence[Mapping[str, str]],
    max_new_tokens: int,
    show: Callable[[str], object],
    is_over: Callable[[], bool] = lambda: False,
    stop: Sequence[str] = (),
    **drawing: Any,
) -> Reply:
    """Reply to a conversation; Ctrl-C ends the reply, and what was said until then is returned.

    Args:
        model: that is asked.
        tokenizer: its tokenizer.
        messages: turns of a chat that ends with the user's, or one turn.
        max_new_tokens: of the reply.
        show: takes each further part of its text.
        is_over: is asked before each token; True ends the reply as Ctrl-C does.
        stop: further texts that end the reply and are no part of it.
        drawing: ``temperature``, ``top_p`` and ``seed`` as `generate` takes them; greedy without them.
    """
    voice = _Voice(model, tokenizer, show, is_over, stop)
    try:
        (row,) = generate(model, tokenizer, [chat_ids(tokenizer, messages)], max_new_tokens, stop=stop, streamer=voice, **drawing)
    except (KeyboardInterrupt, _Over):
        return Reply(voice.shown.strip(), True, tokens=voice.count)
    return Reply(voice.finish(row), False, voice.count >= max_new_tokens and not voice.ended, voice.count)


class _Over(Exception):
    """Nobody waits for the rest of a reply."""


class _Voice(BaseStreamer):
    """Shows tokens as they come.

    Attributes:
        shown: the text so far.
        count: tokens so far, with what ends the reply.
        ended: whether the last token or a text has ended the reply.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        show: Callable[[str], object],
        is_over: Callable[[], bool] = lambda: False,
        stop: Sequence[str] = (),
    ) -> None:
        self.prompts, self.show, self.is_over, self.stop = PromptFormat.of(tokenizer), show, is_over, stop
        self.shown, self.count, self.ended = "", 0, False
        self.ends = {*stops_of(model), *self.prompts.stop_ids}
        self.ids: list[int] | None = None

    def put(self, value: Tensor) -> None:
        """Take the prompt, which comes first, and then each token."""
        if self.is_over():
            raise _Over
        if self.ids is None:
            self.ids = []
            return
        tokens = value.flatten().tolist()
        self.count += len(tokens)
        self.ended = not self.ends.isdisjoint(tokens)
        self.ids += [token for token in tokens if token not in self.ends]
        self._say(self.prompts.so_far(self.ids, self.stop))

    def end(self) -> None:
        """Generation has ended; `finish` shows what was held back."""

    def finish(self, ids: Sequence[int]) -> str:
        """Show what is left of the whole reply, and return it."""
        text = self.prompts.said(ids)
        self.ended = self.ended or list(ids) != (self.ids or [])  # a text has cut it
        if not text.startswith(self.shown):  # a tokenizer that changes what it has said, as some do before a comma
            self.show("\n")
            self.shown = ""
        self._say(text)
        return text

    def _say(self, text: str) -> None:
        if len(text) > len(self.shown) and text.startswith(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text
