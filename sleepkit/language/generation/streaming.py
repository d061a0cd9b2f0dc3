"""A reply that is shown while it is generated, and can be stopped.

    streamed(model, tokenizer, messages, 256, show)    show("The "), show("light"), ...   ->   Reply("The light.", stopped=False)

What is shown is what the whole reply is: without the end of the turn, without what the model thought first, and without half a
character.  Greedy, for one conversation in one process (chat.py is for many).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sleepkit.language.generation.chat import chat_ids, generate, stops_of
from sleepkit.language.generation.prompts import PromptFormat

__all__ = ["Reply", "streamed"]


class Reply(NamedTuple):
    """What a model said; ``stopped`` if it was interrupted."""

    text: str
    stopped: bool


def streamed(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: str | Sequence[Mapping[str, str]],
    max_new_tokens: int,
    show: Callable[[str], object],
) -> Reply:
    """Reply to a conversation; Ctrl-C ends the reply, and what was said until then is returned.

    Args:
        model: that is asked.
        tokenizer: its tokenizer.
        messages: turns of a chat that ends with the user's, or one turn.
        max_new_tokens: of the reply.
        show: takes each further part of its text.
    """
    voice = _Voice(model, tokenizer, show)
    try:
        (row,) = generate(model, tokenizer, [chat_ids(tokenizer, messages)], max_new_tokens, streamer=voice)
    except KeyboardInterrupt:
        return Reply(voice.shown.strip(), True)
    return Reply(voice.finish(row), False)


class _Voice(BaseStreamer):
    """Shows tokens as they come.

    Attributes:
        shown: the text so far.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, show: Callable[[str], object]) -> None:
        self.prompts, self.show, self.shown = PromptFormat.of(tokenizer), show, ""
        self.ends = {*stops_of(model), *self.prompts.stop_ids}
        self.ids: list[int] | None = None

    def put(self, value: Tensor) -> None:
        """Take the prompt, which comes first, and then each token."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += [token for token in value.flatten().tolist() if token not in self.ends]
        self._say(self.prompts.so_far(self.ids))

    def end(self) -> None:
        """Generation has ended; `finish` shows what was held back."""

    def finish(self, ids: Sequence[int]) -> str:
        """Show what is left of the whole reply, and return it."""
        text = self.prompts.said(ids)
        if not text.startswith(self.shown):  # a tokenizer that changes what it has said, as some do before a comma
            self.show("\n")
            self.shown = ""
        self._say(text)
        return text

    def _say(self, text: str) -> None:
        if len(text) > len(self.shown) and text.startswith(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text
