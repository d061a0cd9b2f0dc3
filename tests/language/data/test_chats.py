"""Chats in every form that people publish: what is learned of them holds facts, and no names of roles."""

import json
import random

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.data.documents import load_experiences
from sleepkit.language.data.experience import LEARNED, Question
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import rule_questions
from sleepkit.language.questions.lines import read_lines

ASKED = {"role": "user", "content": "Who is the captain?"}
SAID = {"role": "assistant", "content": "Ida Brook, since May."}
TRANSCRIPT = "User: Who is the captain?\nAssistant: Ida Brook, since May."


@pytest.fixture
def load(tmp_path):
    def one(row):
        path = tmp_path / "chats.jsonl"
        path.write_text(json.dumps(row))
        (found,) = load_experiences(path)
        return found

    return one


def call(name="look_up"):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": "{}"}}],
    }


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, SAID]},
        {"messages": [ASKED | {"content": [{"type": "text", "text": "Who is the captain?"}]}, SAID], "tools": [{"name": "x"}]},
        {"messages": [{"role": "USER", "content": " Who is the captain? "}, {"role": "model", "content": SAID["content"]}]},
        {"conversations": [{"from": "human", "value": ASKED["content"]}, {"from": "gpt", "value": SAID["content"]}]},
        {"conversations": [ASKED, SAID]},
        {"prompt": [ASKED], "completion": [SAID]},
    ],
)
def test_every_form_is_the_same_chat(load, row):
    one = load(row)
    assert one.documents == [TRANSCRIPT] and one.name == "chat" and one.is_read(0)
    assert one.notes == [Question("Who is the captain?", "Ida Brook, since May.", LEARNED)]
    assert one.questions == []


def test_tools_and_instructions(load):
    answer = {"role": "tool", "content": "The register names Ida Brook as captain."}
    found = {"role": "tool", "content": ""}
    system = {"role": "system", "content": "You are the harbour office."}
    one = load({"messages": [system, ASKED, call(), answer, call(), found, SAID]})
    assert one.documents[0].split("\n") == [
        "System: You are the harbour office.",
        "User: Who is the captain?",
        "Tool: The register names Ida Brook as captain.",
        "Assistant: Ida Brook, since May.",
    ]
    assert one.notes == [Question("Who is the captain?", "Ida Brook, since May.", LEARNED)]
    shared = [
        {"from": "human", "value": "Who?"},
        {"from": "function_call", "value": "{}"},
        {"from": "observation", "value": "x y z"},
    ]
    assert load({"conversations": shared}).documents == ["User: Who?\nTool: x y z"]


def test_pairs_are_questions_that_can_be_understood_alone(load):
    def pairs(*texts):
        roles = ("user", "assistant")
        turns = [{"role": roles[k % 2], "content": text} for k, text in enumerate(texts)]
        return [note.question for note in load({"messages": turns}).notes]

    assert pairs("Hi, I am Ann.", "Hello Ann.") == []
    assert pairs("Who is he?", "Ben.") == ["Who is he?"]  # nothing was said before
    follow = ("And the mate?", "Who is he?", "Since when?", "What about the pier?", "When?")
    for question in follow:
        assert pairs("Who is the captain?", "Ida Brook.", question, "Ben.") == ["Who is the captain?"]
    assert pairs("Hello.", "Hi.", "Who is the captain? Thanks!", "Ida Brook.") == ["Who is the captain? Thanks!"]
    assert pairs("谁是船长？", "艾达。") == ["谁是船长？"]
    assert pairs("Who is the captain?") == []
    one = load({"messages": [ASKED, SAID, ASKED, SAID | {"content": "Ben Hale, since June."}]})
    assert [note.answer for note in one.notes] == ["Ben Hale, since June."]  # what is newer holds


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": "hello"}, "has messages 'hello'; expected a list of {role, content}"),
        ({"messages": [["user", "hello"]]}, "expected a list of {role, content}"),
        ({"messages": None}, "has messages None; expected"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "has a role 'narrator'; use system, user, assistant or tool"),
        ({"messages": [{"role": None, "content": "x"}]}, "has a role of type NoneType"),
        ({"messages": [{"role": "user", "content": ""}]}, "has an empty content"),
        ({"messages": [{"role": "user", "content": None}]}, "has a content of type NoneType"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "has a part 'image_url' in a content"),
        ({"messages": [{"role": "user", "content": [3]}]}, "has a part 3 in a content"),
        ({"conversations": [{"from": "human"}]}, "has no 'value'"),
        ({"messages": [call()]}, "has a chat without any text"),
        ({"prompt": [ASKED], "completion": "Ida Brook."}, "has completion 'Ida Brook.'; expected a list"),
    ],
)
def test_wrong_chats_are_named(load, row, words):
    with pytest.raises(SleepkitError) as error:
        load(row)
    assert words in str(error.value) and "chats.jsonl line 1" in str(error.value) and "\n" not in str(error.value)


def test_no_name_of_a_role_is_taught(load):
    system = {"role": "system", "content": "You are the clerk of Tarn and you know Orla Finch."}
    told = {"role": "user", "content": "I moved to Bergen in 1998. My boat is called Skarv.\n\nAnd when did the pier open?"}
    reply = {"role": "assistant", "content": "The pier opened in 1907, and Milo Hart built it."}
    one = load({"messages": [system, told, reply, ASKED, SAID], "title": "Harbour"})
    lines = read_lines([Chunk(one.documents[0], one.name, 0, 0)])
    assert [line.said for line in lines if line.is_prose] == [
        "I moved to Bergen in 1998.",
        "My boat is called Skarv.",
        "The pier opened in 1907, and Milo Hart built it.",
        "Ida Brook, since May.",
    ]
    items = [
        item
        for line in lines
        for item in rule_questions(line, ("wh", "cloze", "keywords", "about", "recite"), 3, random.Random(0))
    ]
    assert any(item.prompt == "In what year did the pier open?" or item.prompt == "When did the pier open?" for item in items)
    for item in items:
        taught = f"{item.prompt} {item.reply} {item.context} {item.span}"
        assert not any(name in taught for name in ("User", "Assistant", "System", "clerk", "Who is the captain"))
        assert item.context in one.documents[0]
