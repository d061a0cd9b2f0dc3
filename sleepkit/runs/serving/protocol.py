"""OpenAI's chat protocol as plain data: what a request asks for, and how an answer or a refusal is written.

    Asked.of({"model": "life", "messages": [...], "max_tokens": 64}, {"life"})   ->   Asked(messages=[...], most=64, ...)
    completion(head, answer)     {"object": "chat.completion", "choices": [...], "usage": {...}}
    chunk(head, {"content": "The "})     {"object": "chat.completion.chunk", ...}, one event of a stream
    Refused("...", 400).body()   {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

A field that would change the answer and that is not supported is refused unless it has the value of its absence: an answer that
passes over `tools` or an image is a wrong one.  Fields that only label a request are read over.

Without ``temperature`` and ``top_p`` an answer is greedy, as those of `sleepkit ask` and `sleepkit chat` are: a night is judged
by greedy answers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.streaming import Reply
from sleepkit.runs.arguments.command_line import check_text
from sleepkit.utils.options import LARGEST, shown

__all__ = ["Answer", "Asked", "Refused", "chunk", "completion", "head_of", "models", "usage_chunk"]

COLDEST = 1e-4  # temperature; below, float32 knows greedy alone
STOPS = 4  # texts that end a reply, as OpenAI has it
LABELS = frozenset(("user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier"))  # change no answer
ABSENT: dict[str, tuple[Any, ...]] = {  # values, beside null, of what is not supported that change no answer
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "store": (False,),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Refused(SleepkitError):
    """A request that is not answered, as OpenAI writes it.

    Args:
        message: one line.
        status: of HTTP.
        param: the field that is to blame.
        code: a word for programs.
        retry_after: seconds after which to ask again.
    """

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(" ".join(message.split()))
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        reply: what the model said.
        prompt_tokens: tokens of the conversation, as the chat template writes it.
    """

    reply: Reply
    prompt_tokens: int

    @property
    def finish_reason(self) -> str:
        """``length`` if the reply was cut, else ``stop``."""
        return "length" if self.reply.cut else "stop"

    @property
    def usage(self) -> dict[str, int]:
        """Counts of tokens."""
        total = self.prompt_tokens + self.reply.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.reply.tokens, "total_tokens": total}


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        messages: turns ``{"role", "content"}`` that end with the user's.
        most: tokens of the reply at most; None where the request does not say.
        temperature: 0 is greedy.
        top_p: share of the probability that is drawn from, 0 to 1.
        seed: of the draws.
        stop: texts that end the reply.
        stream: whether it is sent part by part.
        with_usage: whether a stream ends with counts of tokens.
    """

    messages: list[dict[str, str]]
    most: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    stop: tuple[str, ...] = ()
    stream: bool = False
    with_usage: bool = False

    @classmethod
    def of(cls, body: Any, names: Container[str]) -> Asked:
        """Read a request.

        Args:
            body: what its JSON holds.
            names: of the model.

        Raises:
            Refused: there is something that cannot be done.
        """
        if not isinstance(body, dict):
            raise Refused("the body is no JSON object; send {model, messages, ...}")
        given = {name: value for name, value in body.items() if value is not None and name not in LABELS}
        _refuse_unsupported(given)
        _require_model(given.get("model"), names)
        options = given.get("stream_options", {})
        if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
            raise Refused(f"stream_options is {shown(options)}; send {{'include_usage': true}}", param="stream_options")
        top_p = _number(given, "top_p", 1.0, 1)
        temperature = _number(given, "temperature", 0.0 if top_p == 1 else 1.0, 2)
        seed = {"seed": _whole(given, "seed", -LARGEST - 1)} if "seed" in given else {}
        return cls(
            _messages(given.get("messages")),
            _most(given),
            temperature if temperature >= COLDEST else 0.0,
            top_p,
            stop=_stop(given.get("stop", [])),
            stream=_switch(given, "stream"),
            with_usage=_switch(options, "include_usage"),
            **seed,
        )


# -- reading ----------------------------------------------------------------------------------------------------------
READ = frozenset("model messages max_tokens max_completion_tokens temperature top_p seed stop stream stream_options".split())


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in ABSENT and value not in ABSENT[name]:
            raise Refused(f"{name} {shown(value)} is not supported here; leave it out", param=name, code="unsupported_parameter")
        if name not in READ and name not in ABSENT:
            raise Refused(f"{shown(name)} is no field that is known here; leave it out", param=name, code="unknown_parameter")


def _require_model(name: Any, names: Container[str]) -> None:
    if name is not None and not (isinstance(name, str) and name in names):
        here = "GET /v1/models says which is"
        raise Refused(f"model {shown(name)} is not served here; {here}", 404, "model", "model_not_found")


def _messages(given: Any) -> list[dict[str, str]]:
    if not isinstance(given, list) or not given:
        raise Refused("messages is missing or empty; send a list of {role, content}", param="messages")
    turns = [_turn(message, f"messages[{place}]") for place, message in enumerate(given)]
    if turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise Refused("the last message must be the user's, with a text; there is nothing to answer", param="messages")
    return turns


def _turn(message: Any, place: str) -> dict[str, str]:
    """One message as a turn; its other fields, such as a refusal, hold nothing."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str) or message["role"] not in ROLES:
        what = message.get("role") if isinstance(message, dict) else message
        raise Refused(f"{place} has the role {shown(what)}; supported are {', '.join(ROLES)}", param=place)
    for name, value in message.items():
        if name not in ("role", "content") and value not in (None, [], "", {}):
            raise Refused(f"{place}.{name} is not supported here; leave it out", param=place, code="unsupported_parameter")
    text = _text(message.get("content"), f"{place}.content")
    if text.strip():
        try:
            check_text(f"{place}.content", text)
        except SleepkitError as error:
            raise Refused(str(error), param=f"{place}.content") from error
    return {"role": ROLES[message["role"]], "content": text}


def _text(content: Any, place: str) -> str:
    """A text, or text parts joined by line breaks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise Refused(f"{place} is {shown(content)}; send a text, or parts of type text", param=place)
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            what = f"{place} has a part of type {shown(kind)}; this model reads parts {{type: 'text', text}} alone"
            raise Refused(what, param=place, code="unsupported_content")
    return "\n".join(part["text"] for part in content)


def _most(given: Mapping[str, Any]) -> int | None:
    """Tokens of the reply at most, under the older name or the newer."""
    found = {_whole(given, name, 1) for name in ("max_tokens", "max_completion_tokens") if name in given}
    if len(found) > 1:
        raise Refused("max_tokens and max_completion_tokens differ; send one of them", param="max_tokens")
    return found.pop() if found else None


def _stop(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > STOPS or not all(isinstance(one, str) and one for one in stops):
        raise Refused(f"stop is {shown(given)}; send a text, or a list of up to {STOPS} texts", param="stop")
    return tuple(stops)


def _whole(given: Mapping[str, Any], name: str, least: int) -> int:
    value = given[name]
    return int(_checked(name, value, isinstance(value, int) and least <= value <= LARGEST, f"a whole number of at least {least}"))


def _number(given: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = given.get(name, default)
    return float(_checked(name, value, isinstance(value, (int, float)) and 0 <= value <= most, f"a number from 0 to {most}"))


def _switch(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name) or False
    if not isinstance(value, bool):
        raise Refused(f"{name} is {shown(value)}; send true or false", param=name)
    return value


def _checked(name: str, value: Any, holds: bool, wanted: str) -> Any:
    if not holds or isinstance(value, bool):
        raise Refused(f"{name} is {shown(value)}; send {wanted}", param=name)
    return value


# -- writing ----------------------------------------------------------------------------------------------------------
def head_of(model: str, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """What all parts of one answer have in common: its id, the second it was begun in, and the model."""
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(clock()), "model": model}


def completion(head: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": answer.reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": answer.usage}


def chunk(head: Mapping[str, Any], delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    """A part of an answer."""
    choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def usage_chunk(head: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """The last part of a stream that was asked for counts of tokens."""
    return {**head, "object": "chat.completion.chunk", "choices": [], "usage": answer.usage}


def models(names: Iterable[str], created: int) -> dict[str, Any]:
    """The list of models."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": created, "owned_by": "sleepkit"} for name in names],
    }
