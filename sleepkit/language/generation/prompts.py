"""How a model is talked to: what stands around a question and around its reply, and where a reply ends, as token ids.

    chat     as the tokenizer's chat template renders it                                    models with a template
    plain    "Question: When did it open?\\nAnswer: 1907.\\n\\nQuestion:" and so on           base models, which have none

A prompt of the chat format is all that the template writes before a reply, so that a model which can think aloud, or has
channels, begins with its answer; with ``enable_thinking`` it is asked to think, and what it thinks is no part of its reply.
A taught reply ends as the template ends a turn, whatever the tokenizer calls its end-of-sequence token.

Text of documents and users stays text: the name of a control token in it (``<|im_end|>``) is read letter by letter.  Plain
text begins with what the tokenizer puts before any text (BOS).  Templates that print today's date are given `DATE`, so that
prompts of all nights, of a run that is resumed and of a model that is asked next year are the same.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.options import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["FORMATS", "PromptFormat", "template_variables", "until"]

FORMATS = ("auto", "chat", "plain")
DATE = datetime.datetime(2025, 1, 1)
TEMPLATE_DEFAULTS = {"enable_thinking": False, "thinking": False}  # Qwen3's name and DeepSeek's; other templates have no use
NEXT_QUESTION = "\n\nQuestion:"  # what ends a reply in the plain format
PLAIN_TEMPLATE = """{% for message in messages -%}
{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\nAnswer:' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + '\\n\\n' }}
{%- else %}{{ message['content'] + '\\n\\n' }}{% endif %}
{%- endfor %}"""  # as `_plain` writes it
_ASKED, _REPLIED = "Sleepkitasked", "Sleepkitreplied"  # one word each, which no template changes


class PromptFormat:
    """How one model is talked to.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the model.
        prompt_format (`str`, defaults to `"auto"`): one of `FORMATS`; ``auto`` is ``chat`` where there is a chat template.
        chat_template_kwargs (mapping, *optional*): variables for the template, such as ``{"enable_thinking": True}``.

    Raises:
        SleepkitError: a chat format without a template, or a template that cannot be rendered.

    Example:

        >>> prompts = PromptFormat(tokenizer)
        >>> prompts.prompt("Who kept the light?"), prompts.reply("Orla kept it.")
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_format: str = "auto",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        if prompt_format == "chat" and not tokenizer.chat_template:
            name = tokenizer.name_or_path or "the model"
            raise SleepkitError(f"the tokenizer of {name} has no chat template; use prompt_format plain, or a chat model")
        self.is_chat = prompt_format == "chat" or (prompt_format == "auto" and bool(tokenizer.chat_template))
        if self.chat_template_kwargs and not self.is_chat:
            raise SleepkitError("chat_template_kwargs are for a chat template and prompt_format is plain; leave one of them out")
        self.thinks = any(self.chat_template_kwargs.get(name) for name in TEMPLATE_DEFAULTS)
        self._made_for = _state(tokenizer)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
        """Return the format that `use` has given to a tokenizer, or the usual one."""
        known = getattr(tokenizer, "sleepkit_prompts", None)
        if known is not None and known.tokenizer is tokenizer and known._made_for == _state(tokenizer):
            return cast(PromptFormat, known)
        return cls.use(tokenizer, **(known.settings() if known is not None else {}))

    @classmethod
    def use(cls, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> PromptFormat:
        """Make a format, arguments as `PromptFormat` takes them, and let `of` find it at the tokenizer."""
        made = cls(tokenizer, **settings)
        tokenizer.sleepkit_prompts = made
        return made

    def settings(self) -> dict[str, Any]:
        """What makes the same format for another copy of the tokenizer: ``prompt_format`` and ``chat_template_kwargs``."""
        return {"prompt_format": "chat" if self.is_chat else "plain", "chat_template_kwargs": self.chat_template_kwargs}

    # -- prompts and replies ------------------------------------------------------------------------------------------
    def prompt(self, messages: str | Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation that waits for the assistant's reply; a string is one message of the user."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(turn) for turn in messages]
        if not self.is_chat:
            return [*self.beginning, *self.text(_plain(turns))]
        return [
            *self._rendered(turns, True, tokenize=True, return_dict=False, sanitize_control_tokens=True),
            *self._ids(self._head),
        ]

    def reply(self, text: str) -> list[int]:
        """Token ids of a reply behind its prompt, without `end`."""
        if not self.is_chat:
            return self.text(f" {text}")
        before = self._before_ids
        whole = self._ids(self._before_reply + self._lead + text)
        if whole[: len(before)] == before and self._control_ids.isdisjoint(whole[len(before) :]):
            return whole[len(before) :]
        return [*self._ids(self._lead), *self.text(text)]

    def said(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The reply in generated token ids, as stripped text: without its end, and without what was thought before it.

        Args:
            ids: what was generated.
            stop: texts that end it, beside those of the format.
        """
        if (mark := self._end_of_thought) in (tokens := list(ids)):
            tokens = tokens[len(tokens) - tokens[::-1].index(mark) :]
        return until(str(self.tokenizer.decode(tokens, skip_special_tokens=True)), (*self.stop_strings, *stop)).strip()

    def so_far(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The part of `said` that is sure while more tokens are to come: no half character, no thought, no half of a stop."""
        if self.thinks and self._end_of_thought not in ids:
            return ""
        text = self.said(ids, stop).rstrip("\N{REPLACEMENT CHARACTER}")
        stops = (*self.stop_strings, *stop)
        halves = [k for one in stops for k in range(1, len(one)) if text.endswith(one[:k])]
        return text[: len(text) - max(halves, default=0)].rstrip()

    @cached_property
    def end(self) -> list[int]:
        """Token ids that end a taught reply."""
        if not self.is_chat:
            return self.text(NEXT_QUESTION)
        tail = self._ids(self._around_reply[1].rstrip(" "))
        first = next((k for k, token in enumerate(tail) if token in self._control_ids), None)
        eos = self.tokenizer.eos_token_id
        return tail[: first + 1] if first is not None else [*tail, *([eos] if eos is not None else [])]

    @property
    def stop_ids(self) -> set[int]:
        """Tokens at which a reply ends, beside those of the model's generation configuration."""
        ends = {self.tokenizer.eos_token_id} & self._control_ids
        return {*ends, self.end[-1]} if self.is_chat and self.end else ends

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts at which a reply ends: where the plain format would ask the next question."""
        return () if self.is_chat else (NEXT_QUESTION[1:],)

    @property
    def template(self) -> str:
        """A chat template for other programs: the tokenizer's own, or one that writes the plain format."""
        if self.is_chat:
            return str(self.tokenizer.chat_template)
        return f"{self.tokenizer.decode(self.beginning)}{PLAIN_TEMPLATE}"

    # -- text ---------------------------------------------------------------------------------------------------------
    def text(self, text: str) -> list[int]:
        """Token ids of text as text, without anything before it: no control token, whatever stands in it."""
        ids = self._ids(text)
        if self._control_ids.isdisjoint(ids):
            return ids
        spelled: list[int] = []
        for part in re.split(f"({self._controls.pattern})", text):
            is_name = part in self._control_names and len(part) > 1
            for piece in (part[:1], part[1:]) if is_name else ():  # cut in two, the name is no control token
                spelled += self.text(piece)
            spelled += [] if is_name else self._ids(part, split_special_tokens=True)
        return spelled

    @cached_property
    def beginning(self) -> list[int]:
        """What the tokenizer puts before any text: BOS, or nothing."""
        whole, alone = self.tokenizer("a")["input_ids"], self._ids("a")
        starts = range(len(whole) - len(alone) + 1)
        return list(whole[: next((k for k in starts if whole[k : k + len(alone)] == alone), 0)])

    # -- the template -------------------------------------------------------------------------------------------------
    @cached_property
    def _template(self) -> str:
        """The chat template, with a date that does not change."""
        template = str(self.tokenizer.get_chat_template())
        if "strftime_now" not in template:
            return template
        parts = "".join(f" | replace('%{part}', '{DATE:%{part}}')" for part in "aAbBdHIjmMpSyY")
        return f"{{%- macro strftime_now(format) -%}}{{{{ format{parts} }}}}{{%- endmacro -%}}{template}"

    def _rendered(self, turns: Sequence[Mapping[str, str]], waits: bool, **how: Any) -> Any:
        """What the template makes of a conversation that ``waits`` for a reply, as text or token ids."""
        given = {**TEMPLATE_DEFAULTS, **self.chat_template_kwargs, **how, "chat_template": self._template}
        try:
            return self.tokenizer.apply_chat_template([dict(turn) for turn in turns], add_generation_prompt=waits, **given)
        except Exception as error:  # of Jinja, or raised by the template
            raise SleepkitError(
                f"the chat template of {self.tokenizer.name_or_path or 'the model'} cannot be rendered ({first_line(error)}); "
                "mend it, or use another prompt_format"
            ) from error

    @cached_property
    def _around_reply(self) -> tuple[str, str]:
        """What the template writes between a prompt and its reply, and behind the reply."""
        asked = [{"role": "user", "content": _ASKED}]
        replied = [*asked, {"role": "assistant", "content": _REPLIED}]
        waiting, whole = (self._rendered(turns, turns is asked, tokenize=False) for turns in (asked, replied))
        before, found, after = whole.rpartition(_REPLIED)
        if not found:
            return "", ""
        return (before[len(waiting) :] if before.startswith(waiting) else ""), after

    @property
    def _head(self) -> str:
        """What a prompt ends with, beyond what the template writes for a model that may think or choose a channel."""
        return "" if self.thinks or not self._around_reply[0].strip() else self._around_reply[0]

    @property
    def _lead(self) -> str:
        """What a taught reply begins with."""
        return "" if self._head else self._around_reply[0]

    @cached_property
    def _before_reply(self) -> str:
        return str(self._rendered([{"role": "user", "content": _ASKED}], True, tokenize=False)) + self._head

    @cached_property
    def _before_ids(self) -> list[int]:
        return self._ids(self._before_reply)

    # -- control tokens -----------------------------------------------------------------------------------------------
    @cached_property
    def _control_names(self) -> dict[str, int]:
        """Tokens that are no text: special ones, and tags that the chat template writes (``<think>``)."""
        template = str(self.tokenizer.chat_template or "")
        added = self.tokenizer.added_tokens_decoder.items()
        return {
            token.content: i for i, token in added if token.special or (token.content[:1] in "<[" and token.content in template)
        }

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self._control_names.values())

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        names = sorted(filter(None, self._control_names), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or "(?!)")

    @cached_property
    def _end_of_thought(self) -> int | None:
        """The last control token before a reply, of a model that thinks or has channels."""
        ids = [token for token in self._ids(self._around_reply[0]) if token in self._control_ids] if self.is_chat else []
        return ids[-1] if ids else None

    def _ids(self, text: str, **how: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False, **how)["input_ids"]) if text else []


def template_variables(value: Any) -> dict[str, Any] | None:
    """Variables for a chat template as a mapping, of one or of JSON; raises `SleepkitError` if it is neither."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = value
    if found is None or (isinstance(found, dict) and all(isinstance(name, str) and name.isidentifier() for name in found)):
        return found
    raise SleepkitError(f'chat_template_kwargs is {shown(value)}; give a mapping, such as {{"enable_thinking": true}}')


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of some strings, all of it where none is in it."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


def _state(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    """What a format is made of; another format is needed when it changes."""
    return tokenizer.chat_template, tokenizer.eos_token, len(tokenizer)


def _plain(turns: Sequence[Mapping[str, str]]) -> str:
    """A conversation as questions and answers, up to where the next answer begins."""
    forms = {"user": "Question: {}\nAnswer:", "assistant": " {}\n\n"}
    return "".join(forms.get(turn["role"], "{}\n\n").format(turn["content"]) for turn in turns)
