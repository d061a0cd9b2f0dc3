"""Rows of every form, and values that people have in them: read as they are meant, or one line with the place."""

import gzip
import json

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.data.documents import load_experiences
from sleepkit.language.data.experience import LEARNED, Experience, Question


def write(path, *rows, between="\n"):
    path.write_text(between.join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def refused(path, **options):
    with pytest.raises(SleepkitError) as error:
        load_experiences(path, **options)
    line = str(error.value)
    assert "\n" not in line and len(line) < 1200 and line.encode()
    return line


@pytest.fixture
def only(tmp_path):
    """The one experience that a row is."""

    def load(row, **options):
        (one,) = load_experiences(write(tmp_path / "rows.jsonl", row), **options)
        return one

    return load


# Forms


@pytest.mark.parametrize(
    "answers",
    [
        {"text": "Orla Finch"},
        {"text": ["Orla Finch", "Finch"], "answer_start": [0, 5]},
        ["Orla Finch", "Finch"],
        [{"text": "Orla Finch", "answer_start": 0}],
        "Orla Finch",
    ],
)
def test_answers_in_every_form_of_squad(only, answers):
    row = {"context": "Orla Finch keeps it.", "question": "Who keeps it?"}
    assert only(row | {"answers": answers}).questions == [Question("Who keeps it?", "Orla Finch")]
    assert only({"question": "Who keeps it?", "answers": answers}).notes == [Question("Who keeps it?", "Orla Finch", LEARNED)]


def test_a_context_with_question_and_answer(only):
    one = only({"context": "It opened in 1907.", "question": "When?", "answer": 1907})
    assert one == Experience("passage", ["It opened in 1907."], [Question("When?", "1907")])


def test_squad_as_it_is_published(tmp_path):
    asked = [{"question": "When?", "answers": [{"text": "1907"}]}, {"question": "Why?", "answers": [], "is_impossible": True}]
    article = {
        "title": "Pier",
        "paragraphs": [{"context": "It opened in 1907.", "qas": asked}, {"context": "It is long.", "qas": []}],
    }
    found = load_experiences(write(tmp_path / "squad.json", {"version": "2", "data": [article]}))
    assert [(one.name, one.questions) for one in found] == [("Pier", [Question("When?", "1907")]), ("Pier [2]", [])]


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"question": "When did it open?", "answer": "1907."}, "When did it open?", "1907."),
        ({"question": "When did it open?", "answer": 1907}, "When did it open?", "1907"),
        ({"prompt": "Who is the captain?", "completion": "Ida Brook."}, "Who is the captain?", "Ida Brook."),
        ({"instruction": "Name the captain.", "input": "", "output": "Ida Brook."}, "Name the captain.", "Ida Brook."),
        ({"instruction": "Translate.", "input": "Hund", "output": "dog"}, "Translate.\n\nHund", "dog"),
        ({"instruction": "Name the captain.", "output": "Ida Brook."}, "Name the captain.", "Ida Brook."),
        ({" Question": "When?", "Answer ": "1907."}, "When?", "1907."),
    ],
)
def test_pairs_are_learned_as_they_are_asked(only, row, question, answer):
    one = only(row)
    assert one.notes == one.questions == [Question(question, answer, LEARNED)]
    assert one.name == "rows" and not one.is_read(0) and question in one.documents[0]


def test_plain_texts(only, tmp_path):
    assert only({"text": "The pier opened."}) == Experience("text", ["The pier opened."])
    assert only({"body": "The pier opened.", "title": "Pier"}, text_column="body") == Experience("Pier", ["The pier opened."])
    assert only({"context": "Other.", "body": "The pier."}, text_column="body").documents == ["The pier."]
    line = refused(write(tmp_path / "a.jsonl", {"text": "x"}), text_column="body")
    assert "line 1 has the columns ['text'], none of them the text_column 'body'" in line


def test_tables(tmp_path):
    quoted = 'question,answer\n"Who, then?","Orla ""Finch""\nof Tarn"\n\nWhen?,1907\n'
    expected = [("Who, then?", 'Orla "Finch"\nof Tarn'), ("When?", "1907")]
    for name, text in (("a.csv", quoted), ("b.tsv", quoted.replace(",a", "\ta").replace('","', '"\t"').replace("?,1", "?\t1"))):
        (one,) = load_experiences(write(tmp_path / name, text))
        assert [(note.question, note.answer) for note in one.notes] == expected
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress("\ufeffQuestion;Answer\r\nWhen?;1,907\r\n".encode()))
    assert load_experiences(tmp_path / "c.csv.gz")[0].notes[0].answer == "1,907"
    long = "long " * 40_000  # a document may be one cell
    assert load_experiences(write(tmp_path / "d.csv", f'context\n"{long}"'))[0].documents == [long]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question,answer\nWho?,Orla,Finch\n", "line 2 has 3 values for 2 columns"),
        ("question,answer\nWho?\n", "line 2 has an empty answer"),
        ("question,answer\nWho?,\n", "line 2 has an empty answer"),
        ('question,answer\nWho?,"Orla\n', "is not a line of a table"),
        ('question,answer\nWho?,"Orla"x\n', "line 2 is not a line of a table"),
        ("question,question\nWho?,Orla\n", "names the column 'question' twice"),
        ("question,answer\nWho?,Or\0la\n", "NUL"),
        ("question,answer\n", "has no rows"),
        ("", "has no rows"),
        ("question,answers\nWho?,\"['Orla', 'Finch']\"\n", "a list written as text"),
        ("messages\nhello\n", "has messages 'hello'; expected a list"),
    ],
)
def test_wrong_tables(tmp_path, text, words):
    line = refused(write(tmp_path / "a.csv", text))
    assert words in line and "a.csv" in line


def test_json_files(tmp_path):
    rows = [{"context": "Rome has hills."}, {"context": "Oslo is cold."}]
    for content in (rows, {"data": rows}):
        assert len(load_experiences(write(tmp_path / "a.json", content))) == 2
    assert load_experiences(write(tmp_path / "b.json", rows[0]))[0].documents == ["Rome has hills."]
    assert "b.json item 2 has no 'context'" in refused(write(tmp_path / "b.json", [rows[0], {"x": 1}]))
    assert load_experiences(write(tmp_path / "c.ndjson", *rows))[1].documents == ["Oslo is cold."]


# Values


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"context": null}', "has a context of type NoneType"),
        ('{"context": true}', "has a context of type bool"),
        ('{"context": ["x"]}', "has a context of type list"),
        ('{"context": "x", "title": ["x"]}', "has a title of type list"),
        ('{"context": "x", "questions": {"question": "Q?"}}', "expected a list of {question, answer, kind?}"),
        ('{"context": "x", "questions": [{"question": "Q?", "answer": "A", "kind": 3}]}', "has a kind of type int"),
        ('{"context": "x", "completions": [1]}', "expected a list of texts"),
        ('{"question": "Q?", "answer": true}', "has an answer of type bool"),
        ('{"question": "Q?", "answer": null}', "has an answer of type NoneType"),
        ('{"question": "Q?", "answer": 7.50}', "has an answer of type float"),
        ('{"question": "Q?", "answer": []}', "has no answer"),
        ('{"question": "Q?", "answer": [[["A"]]]}', "has an answer of type list"),
        ('{"question": "Q?", "answer": {"value": "A"}}', "has an answer of type dict"),
        ('{"question": 3, "answer": "A"}', "has a question of type int"),
        ('{"context": "x", "question": "Q?", "answers": null}', "has an answer of type NoneType"),
        ('{"prompt": "Q?", "completion": [{"role": "assistant", "content": "A"}]}', "has an answer of type dict"),
        ('{"instruction": "x", "output": "y", "input": 3}', "has a input of type int"),
        ('{"context": "\\ud800 x"}', "half of a surrogate pair ('\\ud800') in its context, at character 1"),
        ('{"context": "x", "title": "\\udfff"}', "half of a surrogate pair ('\\udfff') in its title"),
        ('{"question": "Q?", "answer": "a\\ud800"}', "half of a surrogate pair ('\\ud800') in its answer, at character 2"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "half of a surrogate pair"),
        ('{"text": "a\\u0000b"}', "a NUL character in its text, at character 2"),
        ('{"context": "x", "n": NaN}', "is not JSON (NaN is no JSON number)"),
        ('{"context": "x", "n": -Infinity}', "is not JSON"),
        ('{"context": "x", "context": "y"}', "the key 'context' stands twice"),
        ('{"context": "x", "n": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"context": ' + "[" * 100_000 + "}", "is nested too deeply"),
        ('{"context": ' + "[" * 700 + "]" * 700 + "}", "has a context of type list"),
        ("3", "is a int, not an object"),
        ("null", "is a NoneType, not an object"),
        ('"text"', "is a str, not an object"),
        ("{'context': 'x'}", "is not JSON"),
        ("{" + ", ".join(f'"c{k}": 1' for k in range(500)) + "}", "and 488 more"),
    ],
)
def test_wrong_values_are_named_with_their_line(tmp_path, row, words):
    line = refused(write(tmp_path / "a.jsonl", "", row))
    assert words in line and "a.jsonl line 2" in line


def test_rows_of_another_form_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {"context": "x"}, {"question": "Q?", "answer": "A"})
    assert "a.jsonl line 2 has no 'context' (found ['answer', 'question'])" in refused(path)
    assert "line 2 is a list, not an object" in refused(write(tmp_path / "b.jsonl", {"context": "x"}, "[]"))


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\u00a0", "\U0001f600"])
def test_signs_inside_a_text_are_no_ends_of_lines(tmp_path, sign):
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + json.dumps({"context": f"one{sign}two."}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert load_experiences(path)[0].documents == [f"one{sign}two."]


def test_very_long_lines_are_read(tmp_path):
    text = "word " * 400_000
    assert load_experiences(write(tmp_path / "a.jsonl", {"context": text}))[0].documents == [text]


def test_titles_make_names_that_stay(tmp_path):
    rows = [{"context": "a", "title": title} for title in ("Rome", "Rome [2]", "Rome", None, "", 7, "two\nlines")]
    names = [one.name for one in load_experiences(write(tmp_path / "a.jsonl", *rows))]
    assert names == ["Rome", "Rome [2]", "Rome [3]", "passage", "passage [2]", "7", "two lines"]
    more = [one.name for one in load_experiences(write(tmp_path / "a.jsonl", *rows, rows[0]))]
    assert more == [*names, "Rome [4]"]


def test_hub_rows_without_a_label_have_none(monkeypatch):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_list([{"text": "x", "label": 1}, {"text": "y", "label": -1}], features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    from sleepkit.language.data.documents import rows_of

    assert [row["label"] for _, row in rows_of("owner/name")] == ["b", None]
    assert [one.documents for one in load_experiences("owner/name")] == [["x"], ["y"]]
