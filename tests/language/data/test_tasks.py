"""Streams of classification tasks."""

import gzip
import json

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience, together
from sleepkit.language.data.tasks import LabelledColumns, asked, load_tasks

ROWS = [
    {"text": f"{word} {k}", "intent": f"ask_{word}", "domain": domain}
    for domain, words in (("bank", ("pay", "save")), ("home", ("cook", "clean")), ("trip", ("fly",)))
    for word in words
    for k in range(6)
]
COLUMNS = LabelledColumns("text", "intent", "domain")


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def rows(tmp_path):
    return write(tmp_path / "rows.jsonl.gz", ROWS)


def texts(questions):
    return {question.question.rsplit("\n\n")[-1] for question in questions}


def test_tasks_by_a_column(rows):
    tasks = load_tasks(rows, COLUMNS, rows_per_label=3, test_rows_per_label=2)
    assert [task.name for task in tasks] == ["bank", "home", "trip"]
    bank = tasks[0]
    assert {note.answer for note in bank.notes} == {"ask pay", "ask save"} and len(bank.notes) == 6 and len(bank.questions) == 4
    assert not texts(bank.notes) & texts(bank.questions) and bank.notes[0].kind == "label"
    assert bank.notes[0].question.startswith("Which category") and " -> ask pay" in bank.documents[0]
    assert Experience.from_dict(bank.to_dict()) == bank
    shown = bank.examples[0]
    assert [note.answer for note in shown] == ["ask pay", "ask save"] * 3 and set(shown) <= set(bank.notes)
    both = together(tasks[:2])
    assert both.examples == [shown, tasks[1].examples[0]] and {question.document for question in both.questions} == {0, 1}
    assert load_tasks(rows, COLUMNS, rows_per_label=3, test_rows_per_label=2) == tasks
    assert load_tasks(rows, COLUMNS, rows_per_label=3, test_rows_per_label=2, seed=1)[0].notes != bank.notes
    assert [task.name for task in load_tasks(rows, COLUMNS, tasks=["trip", "bank"], test_rows_per_label=1)] == ["trip", "bank"]
    listed = load_tasks(rows, COLUMNS, list_labels=True, test_rows_per_label=1)[1]
    assert "One of: ask cook, ask clean." in listed.questions[0].question


def test_test_rows_of_another_file(rows, tmp_path):
    other = write(tmp_path / "test.jsonl", [{**row, "text": f"please {row['text']}"} for row in ROWS])
    task = load_tasks(rows, COLUMNS, other, test_rows_per_label=3)[0]
    assert len(task.notes) == 12 and len(task.questions) == 6 and all("please" in text for text in texts(task.questions))


def test_groups_of_labels(rows):
    columns = LabelledColumns("text", "intent")
    tasks = load_tasks(rows, columns, labels_per_task=2, test_rows_per_label=1)
    assert [task.name for task in tasks] == ["labels 1", "labels 2", "labels 3"]
    assert {note.answer for note in tasks[2].notes} == {"ask fly"}
    firsts = [
        load_tasks(rows, columns, labels_per_task=2, test_rows_per_label=1, order="random", seed=seed)[0].notes
        for seed in range(5)
    ]
    shuffled = {tuple(sorted({note.answer for note in notes})) for notes in firsts}
    assert len(shuffled) > 1


def test_a_folder_of_tasks(tmp_path):
    for name in ("mood", "topic"):
        write(tmp_path / f"{name}_train.jsonl", [{"text": f"{name} {k}", "label": "ab"[k % 2]} for k in range(8)])
    with pytest.raises(SleepkitError, match="mood_train but nothing to test on"):
        load_tasks(tmp_path, LabelledColumns("text", "label"))
    for name in ("mood", "topic"):
        write(tmp_path / f"{name}_val.jsonl.gz", [{"text": f"new {name} {k}", "label": "ab"[k % 2]} for k in range(4)])
    mood, topic = load_tasks(tmp_path, LabelledColumns("text", "label"))
    assert (mood.name, topic.name) == ("mood", "topic") and len(mood.notes) == 8 and len(mood.questions) == 4
    assert texts(topic.questions) == {f"new topic {k}" for k in range(4)}


def test_refusals(rows, tmp_path):
    with pytest.raises(SleepkitError, match=r"has no 'label' \(found .*\); expected text, label"):
        load_tasks(rows, LabelledColumns("text", "label"))
    with pytest.raises(SleepkitError, match="tasks has 'sea', which"):
        load_tasks(rows, COLUMNS, tasks=["sea"])
    with pytest.raises(SleepkitError, match="label 'ask pay' of task 'bank' has no row to learn"):
        load_tasks(rows, COLUMNS, test_rows_per_label=6)
    with pytest.raises(SleepkitError, match="no file <task>_train.jsonl"):
        load_tasks(tmp_path, COLUMNS)
    assert asked("hello", "Which?") == "Which?\n\nhello"


def test_written_answers_are_tasks(tmp_path):
    words = [{"text": f"w{k}", "answer": f"word_{k}", "task": "words"} for k in range(12)]
    path = write(tmp_path / "rows.jsonl", [*words, {"text": "ka ka", "answer": "Two birds.", "task": "sentences"}] + [])
    columns = LabelledColumns("text", "answer", "task", "chrf")
    (task,) = load_tasks(path, columns, tasks=["words"], rows_per_label=9, test_rows_per_label=3, instruction="Translate.")
    assert len(task.notes) == 9 and len(task.questions) == 3 and task.notes[0].kind == "chrf"
    assert not texts(task.notes) & texts(task.questions) and all("word_" in note.answer for note in task.notes)
    assert task.documents[0].count(" -> ") == 8
    with pytest.raises(SleepkitError, match="'sentences' of task 'sentences' has no row to learn"):
        load_tasks(path, columns, test_rows_per_label=1)
