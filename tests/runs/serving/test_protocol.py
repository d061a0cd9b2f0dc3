"""What a request asks for, field by field, and what is refused."""

import pytest

from sleepkit.language.generation.streaming import Reply
from sleepkit.runs.serving.protocol import Answer, Asked, Refused, completion

HELLO = [{"role": "user", "content": "hello"}]


def asked(**fields):
    return Asked.of({"model": "life", "messages": HELLO, **fields}, {"life"})


def test_what_a_request_asks_for():
    plain = asked()
    assert (plain.messages, plain.most, plain.temperature, plain.top_p, plain.stop, plain.stream) == (
        HELLO,
        None,
        0,
        1,
        (),
        False,
    )
    full = asked(
        max_tokens=7, temperature=0.5, top_p=0.9, seed=-3, stop=["a", "b"], stream=True, stream_options={"include_usage": True}
    )
    assert (full.most, full.temperature, full.top_p, full.seed, full.stop) == (7, 0.5, 0.9, -3, ("a", "b"))
    assert full.stream and full.with_usage
    assert asked(max_completion_tokens=7).most == asked(max_completion_tokens=7, max_tokens=7).most == 7
    assert asked(stop="x").stop == ("x",)
    assert asked(top_p=0.5).temperature == 1  # as OpenAI's own default, where somebody wants draws
    assert asked(temperature=1e-40).temperature == 0  # which float32 cannot divide by
    assert asked().seed != asked().seed


def test_texts_and_parts_of_texts():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    before = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": ""}]
    before += [{"role": "assistant", "content": "hm", "refusal": None, "tool_calls": [], "annotations": None}]
    turns = asked(messages=[*before, {"role": "user", "content": parts}]).messages
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[-1] == {"role": "user", "content": "one\ntwo"}


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "tools": [], "tool_choice": "none", "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0},
        {"response_format": {"type": "text"}, "logit_bias": {}, "modalities": ["text"], "parallel_tool_calls": True},
        {"user": "ada", "metadata": {"a": "b"}, "store": False},
        dict.fromkeys(("n", "tools", "stop", "seed", "max_tokens", "temperature", "stream", "stream_options", "unheard_of")),
    ],
)
def test_what_changes_no_answer_is_read_over(fields):
    assert asked(**fields).messages == HELLO


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"n": 2}, "n", "n 2 is not supported here"),
        ({"tools": [{"type": "function"}]}, "tools", "tools .* is not supported"),
        ({"tool_choice": "required"}, "tool_choice", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
        ({"logit_bias": {"5": -100}}, "logit_bias", "not supported"),
        ({"top_k": 5}, "top_k", "no field that is known"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": True}, "max_tokens", "at least 1"),
        ({"max_tokens": 2.5}, "max_tokens", "at least 1"),
        ({"max_tokens": 2**70}, "max_tokens", "at least 1"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "differ"),
        ({"temperature": -1}, "temperature", "from 0 to 2"),
        ({"temperature": float("nan")}, "temperature", "from 0 to 2"),
        ({"temperature": "hot"}, "temperature", "from 0 to 2"),
        ({"top_p": 1.5}, "top_p", "from 0 to 1"),
        ({"seed": "x"}, "seed", "a whole number"),
        ({"stop": [""]}, "stop", "up to 4 texts"),
        ({"stop": list("abcde")}, "stop", "up to 4 texts"),
        ({"stop": {"a": 1}}, "stop", "up to 4 texts"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"other": 1}}, "stream_options", "include_usage"),
        ({"model": 5}, "model", "not served here"),
        ({"messages": []}, "messages", "missing or empty"),
        ({"messages": "hello"}, "messages", "missing or empty"),
        ({"messages": ["hello"]}, "messages[0]", "has the role 'hello'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "has the role 'tool'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0]", "has the role"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "hi"}]}, "messages", "last message must be the user's"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "last message must be the user's"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "send a text"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "send a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "type 'image_url'"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content", "type 'x'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content", "alone"),
        ({"messages": [{"role": "user", "content": "x", "name": "ada"}]}, "messages[0]", "name is not supported"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "UTF-8"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "messages[0].content", "UTF-8"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields, param, said):
    with pytest.raises(Refused, match=said) as refused:
        asked(**fields)
    assert refused.value.param == param and refused.value.status == (404 if param == "model" else 400)
    error = refused.value.body()["error"]
    assert (
        error["type"] == "invalid_request_error"
        and "\n" not in error["message"]
        and set(error)
        == {
            "message",
            "type",
            "param",
            "code",
        }
    )


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object(body):
    with pytest.raises(Refused, match="no JSON object"):
        Asked.of(body, {"life"})


def test_another_model():
    with pytest.raises(Refused, match="'gpt' is not served") as refused:
        asked(model="gpt")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


def test_a_whole_answer():
    answer = Answer(Reply("hi", False, True, 3), 7)
    written = completion({"id": "1", "created": 2, "model": "life"}, answer)
    assert written["choices"][0]["finish_reason"] == "length" and written["choices"][0]["message"]["content"] == "hi"
    assert written["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
