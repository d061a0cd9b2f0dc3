"""A folder as people have it goes through whole nights: what each kind of file teaches, from the command line."""

import json

import pytest
from pages import MAKERS
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli
from sleepkit.language.questions.examples import load_items

MESSAGES = [
    {"role": "user", "content": "Who is the captain?"},
    {"role": "assistant", "content": "Ida Brook was made captain in May."},
]
CODE = "import os\n\ndef book(name):\n    return os.path.join(name)\n"
KINDS = {
    "a.md": "Orla Finch kept the light of Tarn. She came in 1907.",
    "b.py": CODE,
    "c.csv": "question,answer\nWhen did it open?,1907.\n",
    "d.jsonl": json.dumps({"messages": MESSAGES, "title": "harbour"}),
    "e.html": MAKERS[".html"]().decode(),
    "f.png": "no picture",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("life")
    tiny_model(max_position_embeddings=1024).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "notes").mkdir()
    for name, text in KINDS.items():
        (folder / "notes" / name).write_text(text)
    (folder / "general.jsonl").write_text('{"prompt": "name a thing."}\n{"prompt": "name two."}')
    (folder / "anchors.jsonl").write_text('{"prompt": "what is hot?", "answer": "fire"}')
    text = f"""sleep --model {folder}/base --dataset {folder}/notes --general_prompts {folder}/general.jsonl
        --anchors {folder}/anchors.jsonl --output_dir {folder}/run --expert_slots 5 --expert_width 4 --use_cpu --max_steps 1
        --per_device_train_batch_size 2 --context_max_tokens 300 --max_new_tokens 4 --general_items 2 --general_tokens 4
        --styles wh keywords about --logging_steps 1 --no_gate"""
    assert cli.main(text.split()) == 0
    return folder / "run"


@pytest.fixture
def learned(run):
    def items(name):
        nights = json.loads((run / "results.json").read_text())["nights"]
        night = next(row["night"] for row in nights if row["experience"] == name)
        return [item for item in load_items(run / f"night_{night:02d}" / "examples.jsonl") if item.role == "new"]

    return items


def test_each_kind_teaches_what_it_says(learned):
    assert any(item.prompt.startswith("Who kept the light") or "Orla Finch" in item.reply for item in learned("a.md"))
    code = learned("b.py")
    assert {item.style for item in code} <= {"recite", "about"} and all(item.reply in CODE for item in code)
    assert [(item.prompt, item.reply) for item in learned("c.csv")] == [("When did it open?", "1907.")]
    chat = learned("d.jsonl/harbour")
    assert ("Who is the captain?", "Ida Brook was made captain in May.") in [(item.prompt, item.reply) for item in chat]
    assert len(chat) > 3 and not any("User" in item.reply or "Assistant" in item.reply for item in chat)
    assert any(item.span == "1907" for item in learned("e.html"))


def test_pairs_are_asked_as_what_was_learned(run):
    answers = json.loads((run / "answers.json").read_text())
    assert [(row["question"], row["kind"]) for row in answers] == [("When did it open?", "learned")]
