"""Chats in the forms that people publish them, as transcripts to read and as the questions that were answered in them.

    {messages: [{role, content}]}              TRL and the chat APIs; a content may be a list of parts {type: "text", text}
    {conversations: [{from, value}]}           ShareGPT; human and gpt are user and assistant
    {prompt: [messages], completion: [messages]}                                                       TRL

A user's question and the assistant's next answer are a pair to learn as it is, if the question can be understood alone.
Calls of tools say nothing and are left out; what tools answer is part of the transcript.  Instructions of the system are
there for the reader; nothing is asked about them (language/prose.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import Row, checked, shown, text_of, title_of, value_of
from sleepkit.language.data.experience import LEARNED, Experience, Question, render_message

__all__ = ["Turn", "chat", "turns_of"]

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "ai", "chatgpt"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
_CALLS = ("function_call", "tool_call")  # roles of ShareGPT for what others give as `tool_calls`
_EXPECTED = "a list of {role, content} or {from, value}"
_ASKS = re.compile(r"[?？؟](?=[\s\"'”’)]|$)")
_REFERS_BACK = re.compile(
    r"\A[\s\"'“(]*(?:(?:and|but|so|or|also|und|aber|et|mais|y|pero|what about|how about)\b|"
    r"(?:\w+\s)?(?:why|when|where|whom?|how|what|which one)\s*\?)|"
    r"\b(?:he|she|it|its|his|they|them|their|him|her|hers|this|that|those|these|there|then|one|ones)\b",
    re.IGNORECASE,
)


class Turn(NamedTuple):
    """What somebody said in a chat; ``role`` is system, user, assistant or tool."""

    role: str
    text: str


def chat(row: Row, columns: Sequence[str], place: str, questions: list[Question]) -> Experience:
    """A chat as an experience: its transcript, and the pairs in it.

    Args:
        columns: those that hold its messages, in order.
        questions: to be asked afterwards.
    """
    turns = [turn for column in columns for turn in turns_of(value_of(row, column, place), column, place)]
    if not turns:
        raise SleepkitError(f"{place} has a chat without any text; give messages with content")
    transcript = "\n".join(render_message(turn.role, turn.text) for turn in turns)
    notes = _pairs(turns)
    title = title_of(row, "chat", place)
    return Experience(title, [transcript], questions, notes=notes, also_read=[0] if notes else [])


def turns_of(messages: Any, column: str, place: str) -> list[Turn]:
    """The turns of a chat that have text.

    Raises:
        SleepkitError: no list of messages, an unknown role, or content that is no text.
    """
    named = all(isinstance(part, Mapping) for part in messages) if isinstance(messages, list) else False
    if not messages or not named:
        raise SleepkitError(f"{place} has {column} {shown(messages)}; expected {_EXPECTED}")
    return [turn for part in messages for turn in _turn(part, place)]


def _turn(message: Mapping[str, Any], place: str) -> list[Turn]:
    names = ("from", "value") if "from" in message and "role" not in message else ("role", "content")
    role = text_of(message, names[0], place, _EXPECTED).strip().lower()
    if role in _CALLS:
        return []
    if role not in _ROLES:
        raise SleepkitError(f"{place} has a role {role!r:.60}; use system, user, assistant or tool")
    calls = message.get("tool_calls") or message.get("function_call")
    content = message.get(names[1]) if calls else value_of(message, names[1], place, _EXPECTED)
    text = _text(content, names[1], place) if content is not None or not calls else ""
    if not text.strip():
        if calls or _ROLES[role] == "tool":
            return []
        raise SleepkitError(f"{place} has an empty {names[1]}; fill or remove it")
    return [Turn(_ROLES[role], text.strip())]


def _text(content: Any, column: str, place: str) -> str:
    if isinstance(content, list):
        return "\n".join(_part(part, column, place) for part in content)
    if not isinstance(content, str):
        raise SleepkitError(f"{place} has a {column} of type {type(content).__name__} ({shown(content)}); give text")
    return checked(content, place, column)


def _part(part: Any, column: str, place: str) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return checked(part["text"], place, column)
    if isinstance(part, str):
        return checked(part, place, column)
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise SleepkitError(f"{place} has a part {shown(kind)} in a {column}; only parts {{type: 'text', text: ...}} are read")


def _pairs(turns: Sequence[Turn]) -> list[Question]:
    """Questions of the user with the answer that followed, for which nothing before them is needed; of equal ones the last."""
    answers: dict[str, str] = {}
    asked, is_first = "", True
    for turn in turns:
        if turn.role == "user":
            alone = is_first or not _REFERS_BACK.search(turn.text)
            asked, is_first = turn.text if alone and _ASKS.search(turn.text) else "", False
        elif turn.role == "assistant" and asked:
            answers[asked], asked = turn.text, ""
    return [Question(question, answer, LEARNED) for question, answer in answers.items()]
