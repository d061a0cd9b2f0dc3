"""Every form of data that `load_experiences` reads, order and grouping, and one-line errors for what it cannot read."""

import gzip
import json

import datasets
import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.data.documents import Experience, Question, load_experiences
from sleepkit.language.data.experience import LEARNED, together

PASSAGES = [
    {"title": "Rome", "context": "Rome has hills.", "questions": [{"question": "What has Rome?", "answer": "hills"}]},
    {"title": "Oslo", "context": "Oslo is cold.", "questions": []},
    {
        "title": "Rome",
        "context": "Rome has a river.",
        "questions": [{"question": "What flows?", "answer": "a river", "kind": "paraphrased"}],
        "completions": ["another column"],
    },
    {"title": "Bern", "context": "Bern has bears.", "questions": [{"question": "What has Bern?", "answer": "bears"}]},
]


def write_jsonl(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


# Forms of data


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_passages(tmp_path, name):
    stream = load_experiences(write_jsonl(tmp_path / name, PASSAGES))
    assert [experience.name for experience in stream] == ["Rome", "Oslo", "Rome [2]", "Bern"]
    assert stream[0] == Experience("Rome", ["Rome has hills."], [Question("What has Rome?", "hills")])
    assert stream[2].edits == [["another column"]] and Experience.from_dict(stream[2].to_dict()) == stream[2]
    assert together(stream).edits == [[], [], ["another column"], []] and together(stream[:2]).edits == []
    assert stream[1].questions == []
    assert stream[2].questions[0].kind == "paraphrased"


def test_json_round_trip(tmp_path):
    for experience in load_experiences(write_jsonl(tmp_path / "p.jsonl", PASSAGES)):
        assert Experience.from_dict(json.loads(json.dumps(experience.to_dict()))) == experience


def test_folder_of_texts(tmp_path):
    (tmp_path / "b.md").write_text("# B\n\nÜber b.", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(b"\xef\xbb\xbfText a.")
    (tmp_path / "a.txt").write_text("Text a.")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.md").write_text("hidden")
    stream = load_experiences(tmp_path)
    assert stream == [
        Experience("a.txt", ["Text a."], titles=["a"]),
        Experience("b.md", ["# B\n\nÜber b."], titles=["b"]),
        Experience("sub/a.txt", ["Text a."], titles=["sub/a"]),
    ]
    assert load_experiences(str(tmp_path / "b.md")) == [Experience("b", stream[1].documents)]
    assert {experience.name for experience in load_experiences(tmp_path, order="random", limit=2)} <= {
        "a.txt",
        "b.md",
        "sub/a.txt",
    }


def test_chats(tmp_path):
    messages = [{"role": "user", "content": "Hi, I am Ann. "}, {"role": "assistant", "content": "Hello Ann."}]
    rows = [{"messages": messages}, {"messages": messages, "title": "talk", "questions": PASSAGES[0]["questions"]}]
    stream = load_experiences(write_jsonl(tmp_path / "chats.jsonl", rows))
    assert stream[0] == Experience("chat", ["User: Hi, I am Ann.\nAssistant: Hello Ann."])
    assert stream[1].name == "talk" and stream[1].questions[0].answer == "hills"


def test_notes_are_one_experience(tmp_path):
    rows = [{"question": "Who?", "answer": "Ann"}, {"question": "When?", "answer": "In May"}]
    (experience,) = load_experiences(write_jsonl(tmp_path / "notes.jsonl", rows))
    assert experience.name == "notes"
    assert experience.documents == ["Q: Who?\nA: Ann\n\nQ: When?\nA: In May"]
    assert experience.questions == [Question("Who?", "Ann", LEARNED), Question("When?", "In May", LEARNED)]
    assert experience.notes == experience.questions and not experience.is_read(0)


def squad_rows():
    def row(title, context, question, *answers):
        return {
            "id": "0",
            "title": title,
            "context": context,
            "question": question,
            "answers": {"text": list(answers), "answer_start": [0] * len(answers)},
        }

    return [
        row("Rome", "Rome has hills.", "What has Rome?", "hills", "the hills"),
        row("Oslo", "Oslo is cold.", "How is Oslo?", "cold"),
        row("Rome", "Rome has hills.", "Who has hills?", "Rome"),
        row("Rome", "Rome has hills.", "Who has none?"),  # SQuAD 2.0: no answer
    ]


def test_squad_rows_are_grouped_by_context(tmp_path):
    stream = load_experiences(write_jsonl(tmp_path / "squad.jsonl", squad_rows()))
    assert [experience.name for experience in stream] == ["Rome", "Oslo"]
    assert stream[0].questions == [Question("What has Rome?", "hills"), Question("Who has hills?", "Rome")]


@pytest.mark.parametrize(("split", "loaded"), [(None, "train"), ("validation", "validation")])
def test_hub(monkeypatch, tmp_path, split, loaded):
    calls = []

    def load_dataset(name, split):
        calls.append((name, split))
        return datasets.Dataset.from_list(squad_rows())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    from_file = load_experiences(write_jsonl(tmp_path / "squad.jsonl", squad_rows()))
    assert load_experiences("owner/squad", split=split) == from_file
    assert calls == [("owner/squad", loaded)]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(PASSAGES[:1]))
    assert load_experiences("owner/passages")[0].documents == ["Rome has hills."]


# Order and grouping


def numbered(tmp_path, n=30):
    questions = [{"question": "Q?", "answer": "A"}]
    rows = [{"title": f"t{i}", "context": f"Text {i}.", "questions": questions if i % 3 else []} for i in range(n)]
    return write_jsonl(tmp_path / "n.jsonl", rows)


def test_file_order_takes_the_first(tmp_path):
    assert [e.name for e in load_experiences(numbered(tmp_path), limit=4)] == ["t0", "t1", "t2", "t3"]


def test_random_order_depends_on_the_seed_only_and_wants_questions(tmp_path):
    path = numbered(tmp_path)
    first = load_experiences(path, limit=8, order="random", seed=1)
    assert first == load_experiences(path, limit=8, order="random", seed=1)
    assert first[:5] == load_experiences(path, limit=5, order="random", seed=1)
    assert first != load_experiences(path, limit=8, order="random", seed=2)
    assert all(experience.questions for experience in first)
    everything = load_experiences(path, order="random", seed=1)
    assert len(everything) == 30 and [e for e in everything if e.questions][:8] == first


def test_passages_per_experience(tmp_path):
    stream = load_experiences(numbered(tmp_path), limit=5, passages_per_experience=2)
    assert [experience.name for experience in stream] == ["t0 and 1 more", "t2 and 1 more", "t4"]
    assert stream[0].documents == ["Text 0.", "Text 1."]
    assert [len(experience.questions) for experience in stream] == [1, 1, 1]


# Errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "x", "label": 1}], r"line 1 has the columns \['body', 'label'\]; expected \{context"),
        ([{"question": "Q?"}], r"\['question'\]; expected"),
        ([PASSAGES[0], {"title": "x"}], r"line 2 has no 'context' \(found \['title'\]\)"),
        ([{"context": " \n"}], "line 1 has an empty context"),
        ([{"context": 3}], r"context of type int \(3\)"),
        ([{"context": "x", "questions": ["Q?"]}], "expected a list of {question, answer"),
        ([{"context": "x", "questions": [{"question": "Q?"}]}], r"line 1 has no 'answer' \(found \['question'\]\)"),
        ([{"context": "x", "questions": [{"question": "Q?", "answer": ""}]}], "line 1 has an empty answer"),
        ([{"context": "x", "question": "Q?", "answers": 3.5}], "answer of type float .3.5.; give text, a list of it or {text:"),
        ([{"messages": []}], "expected a list of {role, content}"),
        ([{"messages": [{"role": "user"}]}], "line 1 has no 'content'"),
        ([{"messages": [{"role": "user", "content": [{"type": "image"}]}]}], "has a part 'image' in a content"),
        ([{"messages": [{"role": "user", "content": 3}]}], r"content of type int \(3\)"),
        ([["context"]], "line 1 is a list, not an object"),
        ([], "has no rows"),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, message):
    with pytest.raises(SleepkitError, match=message) as error:
        load_experiences(write_jsonl(tmp_path / "bad.jsonl", rows))
    assert "bad.jsonl" in str(error.value) and "\n" not in str(error.value)


def test_unreadable_files_are_named(tmp_path):
    def refused(path, message, **options):
        with pytest.raises(SleepkitError, match=message) as error:
            load_experiences(path, **options)
        assert "\n" not in str(error.value)

    (tmp_path / "cut.jsonl").write_text('{"context": "x"}\n{"context": "y')
    refused(tmp_path / "cut.jsonl", "cut.jsonl line 2 is not JSON")
    whole = write_jsonl(tmp_path / "p.jsonl.gz", PASSAGES * 50).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.jsonl.gz", "cut.jsonl.gz cannot be read")
    (tmp_path / "plain.jsonl.gz").write_text("{}")
    refused(tmp_path / "plain.jsonl.gz", "plain.jsonl.gz cannot be read")
    (tmp_path / "table.csv").write_text("name\nx\n")
    refused(tmp_path / "table.csv", r"table.csv line 2 has the columns \['name'\]; expected")
    refused(tmp_path / "missing.jsonl", "missing.jsonl does not exist")
    refused("./nowhere", "nowhere does not exist")
    (tmp_path / "texts").mkdir()
    refused(tmp_path / "texts", "texts has no file; give a folder of texts")
    (tmp_path / "texts" / "a.md").write_text("  \n")
    refused(tmp_path / "texts", "a.md has an empty text")
    (tmp_path / "texts" / "a.md").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "texts", "a.md has NUL characters|a.md cannot be read as UTF-8")
    refused(whole_path := tmp_path / "p.jsonl.gz", "split is 'train' but", split="train")
    refused(whole_path, "limit is 999 but .* has 200 passages;", limit=999)
    refused(whole_path, "limit is 200 but .* has 150 passages with a question", limit=200, order="random")
    refused(whole_path, "limit is 0", limit=0)
    refused(whole_path, "passages_per_experience is 0", passages_per_experience=0)
    refused(whole_path, "order is 'sorted'", order="sorted")


def test_hub_failure_is_one_line(monkeypatch):
    def load_dataset(name, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(SleepkitError, match=r"owner/name \(split 'train'\) .* \(no route\)") as error:
        load_experiences("owner/name")
    assert "\n" not in str(error.value)
