"""A life of nights: what of today's documents is new, changed or gone; and days of it from the command line."""

import json
import re
import shutil

import pytest
from launch import holding
from local_hub import LocalHub
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli
from sleepkit.language.data.experience import Experience, Question, together
from sleepkit.language.experts.bank import read_bank_config
from sleepkit.reporting.results import read_results
from sleepkit.trainers.life import blank, extended
from sleepkit.utils.sealed import LOCK

pytestmark = pytest.mark.usefixtures("undrawn")


def doc(name, text=None, **fields):
    return Experience(name, [text or f"{name} is here."], **fields)


A, B, C, D = map(doc, ("a", "b", "c", "d"))
B2 = doc("b", "b has moved.")


def names(day):
    return [experience.name for experience in day.experiences]


def test_the_first_day_is_the_stream_itself():
    day = extended([], 0, [A, B, C], 2)
    assert day.experiences == [together([A, B]), C] and not day.lines() and not day.replaced


def test_a_document_more():
    day = extended([A, B], 2, [A, C, B])
    assert names(day) == ["a", "b", "c"] and not day.replaced and not day.gone
    assert day.lines() == ["2 nights were slept before; today brings 1 more"]
    assert extended([A, B], 2, [A, B]).lines() == ["nothing new to sleep on"]


def test_a_renamed_document_is_known():
    assert names(extended([A, B], 2, [A, doc("b (copy)", B.documents[0])])) == ["a", "b"]


def test_two_documents_of_the_same_content_are_two():
    twin = doc("a twin", A.documents[0])
    assert names(extended([], 0, [A, twin])) == ["a", "a twin"]
    assert names(extended([A], 1, [A, twin])) == ["a", "a twin"]
    assert extended([A, twin], 2, [A]).gone == ["a twin"]


def test_a_changed_document_replaces_the_one_before_and_a_document_that_is_gone_is_still_known():
    day = extended([A, B], 2, [B2])
    assert day.experiences[2].replaces == ["b"] and day.replaced == {1: 2} and day.changed == ["b"] and day.gone == ["a"]
    said = " ".join(day.lines())
    assert "changed, and slept on anew: b;" in said and "still known: a;" in said and "--overwrite true" in said
    tomorrow = extended(day.experiences, 3, [B2, C])
    assert names(tomorrow) == ["a", "b", "b", "c"] and tomorrow.replaced == {1: 2} and tomorrow.gone == ["a"]


def test_a_document_that_is_changed_back_is_new_again():
    life = extended([A, B], 2, [A, B2]).experiences
    back = extended(life, 3, [A, B])
    assert back.experiences[3].documents == B.documents and back.replaced == {1: 2, 2: 3}


def test_nights_of_several_documents_are_compared_document_by_document():
    life = extended([], 0, [A, B, C], 2).experiences
    day = extended(life, 2, [A, B2, C, D], 2)
    assert names(day) == ["a and 1 more", "c", "b and 1 more"] and day.experiences[2].replaces == ["b"]
    assert day.replaced == {0: 2}
    tomorrow = extended(day.experiences, 3, [A, B2, C, D], 2)
    assert tomorrow.lines() == ["nothing new to sleep on"]  # a shared its night with what is replaced, and is known
    assert extended(day.experiences, 3, [B2, C, D], 2).gone == ["a"]


def test_documents_of_a_day_share_a_night_unless_they_come_with_questions_or_are_long():
    assert names(extended([], 0, [A, B, C], None)) == ["a and 2 more"]
    asked = doc("q", questions=[Question("where is q?", "here")])
    assert names(extended([], 0, [A, asked, B], None)) == ["a", "q", "b"]
    long = doc("long", "word " * 1998)
    assert names(extended([], 0, [A, long, B, C], None)) == ["a", "long", "b and 1 more"]
    assert names(extended([A], 1, [A, B, C], None)) == ["a", "b and 1 more"]


def test_what_waits_for_its_night_keeps_its_place_unless_it_was_changed():
    assert names(extended([A, B, C], 1, [D, A, B, C])) == ["a", "b", "c", "d"]
    day = extended([A, B, C], 1, [A, B2, C, D])
    assert names(day) == ["a", "c", "b", "d"] and day.experiences[2].documents == B2.documents
    assert not day.replaced and not day.gone  # nobody has learned what b said


def test_given_pairs_are_compared_as_one():
    pairs = [Question("who?", "ada"), Question("where?", "in the tower")]
    life = [Experience("notes", ["as a text"], notes=pairs[:1])]
    assert names(extended(life, 1, life)) == ["notes"]
    assert extended(life, 1, [Experience("notes", ["as a text"], notes=pairs)]).changed == ["notes"]


def test_questions_are_not_what_is_learned():
    asked = doc("a", questions=[Question("where is a?", "here")])
    assert names(extended([A], 1, [asked])) == ["a"]


TEXTS = {
    "ada.md": "Ada keeps a red lamp in the north tower. The tower was built by Orla Finch in 1871.",
    "bert.txt": "Bert keeps a blue lamp in the south tower. The tower was built by Milo Hart in 1902.",
}


@pytest.fixture
def home(tmp_path):
    """A folder with a tiny model and two documents."""
    tiny_model(max_position_embeddings=2048).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "notes").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "notes" / name).write_text(text)
    return tmp_path


def sleep(home, *more, model=None, run="life", slots=3):
    text = f"""sleep --model {model or home / "base"} --dataset {home}/notes --output_dir {home / run} --expert_slots {slots}
        --expert_width 4 --use_cpu --max_steps 2 --per_device_train_batch_size 2 --context_max_tokens 300 --max_new_tokens 4
        --general_items 2 --general_tokens 4 --styles wh cloze --logging_steps 1 --no_gate --passages_per_night 1"""
    return cli.main([*text.split(), *more])


def nights(home, run="life"):
    return [night["experience"] for night in read_results(home / run)["nights"]]


def items(home, night):
    (path,) = home.glob(f"life/night_{night:02d}/**/examples.jsonl")
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_days_of_a_life(home, capsys):
    assert sleep(home) == 0 and nights(home) == ["ada.md", "bert.txt"]
    first = read_results(home / "life")
    (home / "notes" / "cleo.md").write_text(
        "Cleo keeps a green lamp in the west tower. The tower was built by Ines Vole in 1930."
    )
    assert sleep(home, "--max_steps", "3") == 0  # another setting on another day
    said = capsys.readouterr().out
    assert "2 nights were slept before; today brings 1 more" in said and nights(home) == ["ada.md", "bert.txt", "cleo.md"]
    second = read_results(home / "life")
    assert second["nights"][:2] == first["nights"] and second["accuracy_matrix"][2] == [None] * 3  # nobody gave questions
    assert [day["config"]["max_steps"] for day in second["days"]] == [2, 3]
    assert {item["source"] for item in items(home, 3) if item["style"] == "replay"} == {"ada", "bert"}

    (home / "notes" / "ada.md").write_text(TEXTS["ada.md"].replace("Orla Finch in 1871", "Cara Lund in 1880"))
    (home / "notes" / "bert.txt").unlink()
    assert sleep(home, "--max_steps", "3") == 0
    said = capsys.readouterr().out
    assert "slept on anew: ada;" in said and "still known: bert;" in said and nights(home)[3:] == ["ada.md"]
    fourth = items(home, 4)
    replayed = {item["source"] for item in fourth if item["style"] == "replay"}
    assert replayed == {"bert", "cleo"} and not any("1871" in item["reply"] for item in fourth)
    assert "Cara Lund" in " ".join(item["reply"] for item in fourth)

    assert sleep(home, "--max_steps", "3") == 0
    assert "nothing new to sleep on" in capsys.readouterr().out and len(nights(home)) == 4
    assert sleep(home, "--max_steps", "4") == 2  # the same documents with other settings are another experiment
    assert "config.max_steps is 3 there and 4 here" in capsys.readouterr().err
    (home / "notes" / "dora.md").write_text("Dora keeps a pale lamp in the east tower. The tower was built by Una Roth in 1999.")
    assert sleep(home, "--expert_width", "8") == 2
    assert "config.expert_width is 4 there and 8 here" in capsys.readouterr().err


def test_the_models_own_questions_say_whether_anything_was_learned(home, capsys):
    assert sleep(home) == 0
    results = read_results(home / "life")
    metrics = results["metrics"]
    assert metrics["self_test_n"] > 0 and 0 <= metrics["self_test_before"] <= 1 and 0 <= metrics["self_test_after"] <= 1
    own = [row for row in results["examples"] if row.get("own")]
    assert len(own) == metrics["self_test_n"] and {row["night"] for row in own} == {1, 2}
    trained = " ".join(item["prompt"] for night in (1, 2) for item in items(home, night))
    assert all(row["question"] in trained for row in own)  # of the examples, and kept back from training
    assert all({"held_out_before", "held_out_after", "held_out_n"} <= night.keys() for night in results["nights"])


def test_two_commands_at_once(home, capsys):
    text = f"sleep --model {home}/base --dataset {home}/notes --output_dir {home}/life --use_cpu --context_max_tokens 300"
    with holding(home / "life") as other:
        assert cli.main(text.split()) == 2
    assert re.search(rf"process {other.pid} is working in .*life; wait for it", capsys.readouterr().err)
    assert [path.name for path in (home / "life").iterdir()] == [LOCK]  # the other's; nothing was written


def test_more_nights_than_experts_are_said_when_the_run_starts(home, capsys):
    (home / "notes" / "cleo.md").write_text("Cleo keeps a green lamp in the west tower. It was built by Ines Vole in 1930.")
    assert sleep(home, slots=2) == 0
    said = capsys.readouterr().out
    assert "3 nights and 2 experts a layer" in said and "from night 3 on, the two oldest are merged" in said
    assert said.index("merged") < said.index("awake:")
    assert sleep(home, run="one", slots=1) == 2
    assert "expert_slots is 1, which is too few for 3 nights" in capsys.readouterr().err


def test_a_life_goes_on_from_another_with_what_it_rehearses(home, capsys):
    """A colleague sleeps on the model of a finished run: the experts, the base and the rehearsal buffer are those of before."""
    assert sleep(home) == 0
    before = read_bank_config(home / "life" / "model")
    for path in (home / "notes").iterdir():
        path.unlink()
    (home / "notes" / "cleo.md").write_text("Cleo keeps a green lamp in the west tower. It was built by Ines Vole in 1930.")
    assert sleep(home, model=home / "life", run="hers") == 0
    after = read_bank_config(home / "hers" / "model")
    assert len(before["active"]) == 2 and len(after["active"]) == 3 and after["base_name"] == before["base_name"]
    (path,) = (home / "hers").glob("night_01/**/examples.jsonl")
    examples = [json.loads(line) for line in path.read_text().split("\n") if line]
    replayed = [item for item in examples if item["style"] == "replay"]
    assert {item["source"] for item in replayed} == {"ada", "bert"} and all(item["night"] < 0 for item in replayed)
    assert cli.main(["ask", str(home / "hers"), "who?", "--max_new_tokens", "2"]) == 0


def test_a_life(home, tmp_path, capsys):
    """Two files, a third, a changed fact; a colleague loads it by its id, sleeps on a document of hers and publishes."""
    with LocalHub() as hub:
        hub.publish("org/base", home / "base")
        with hub.used_by(hub.token("me"), tmp_path / "mine"):
            my_life(home, capsys)
        mine = hub.repository("me/life")
        assert mine.private and not any(b"Orla Finch" in content for content in mine.files.values())
        mine.private = False
        shutil.rmtree(home / "notes")
        (home / "notes").mkdir()
        (home / "notes" / "bob.md").write_text("Bob keeps a bell in the yard. It was cast by Ira Lund in 1790.")
        with hub.used_by(hub.token("her"), tmp_path / "hers"):
            pushed = ("--push_to_hub_repo", "on-it", "--push_to_hub_form", "experts")
            assert sleep(home, *pushed, model="me/life", run="hers") == 0
            assert nights(home, "hers") == ["bob.md"]
            assert cli.main(["ask", "her/on-it", "Who cast the bell?", "--max_new_tokens", "3"]) == 0
        theirs, before = (json.loads(repository.files["expert_bank.json"]) for repository in (hub.repository("her/on-it"), mine))
    assert theirs["base_model"] == before["base_model"] == "org/base"
    assert len(before["active"]) == 4 and len(theirs["active"]) == 5


def my_life(home, capsys):
    """Four nights of three days, questions, and a push."""
    assert sleep(home, model="org/base", slots=6) == 0
    (home / "notes" / "cleo.txt").write_text("Cleo keeps bees. They came from Orta in 1988.")
    assert sleep(home, model="org/base", slots=6) == 0
    (home / "notes" / "bert.txt").write_text(TEXTS["bert.txt"].replace("1902", "1903"))
    assert sleep(home, model="org/base", slots=6) == 0
    assert nights(home) == ["ada.md", "bert.txt", "cleo.txt", "bert.txt"]
    capsys.readouterr()
    assert cli.main(["history", str(home / "life")]) == 0
    assert capsys.readouterr().out.count("bert.txt") == 2
    for question in ("Who built the tower of Ada?", "Where did the bees come from?"):
        assert cli.main(["ask", str(home / "life"), "--compare", question, "--max_new_tokens", "3"]) == 0
    assert cli.main(["publish", str(home / "life"), "me/life", "--form", "experts"]) == 0
    assert "no text that the model has read" in capsys.readouterr().out


def test_a_forgotten_document_is_new_when_it_is_changed_and_not_before():
    life = [A, blank(B), C]
    assert life[1].documents == [] and life[1].forgotten[0][0] == "b"
    assert Experience.from_dict(json.loads(json.dumps(life[1].to_dict()))) == life[1] and "forgotten" not in A.to_dict()
    day = extended(life, 3, [A, B, C])
    assert day.experiences == life and day.forgotten == ["b"] and not day.gone
    assert day.lines()[1].startswith("forgotten, and not slept on again: b;")
    changed = extended(life, 3, [A, B2, C])
    assert names(changed) == ["a", "b", "c", "b"] and changed.experiences[3].documents == B2.documents
    assert not changed.forgotten and not changed.replaced and not changed.gone
    assert extended(life, 3, [A, C]).lines() == ["nothing new to sleep on"]  # it is neither there nor known


def test_what_a_forgotten_version_had_replaced_is_known_again():
    life = extended([A, B], 2, [A, B2]).experiences
    left = [*life[:2], blank(life[2])]
    day = extended(left, 3, [A, B2])
    assert day.experiences == left and not day.replaced and day.gone == ["b"] and day.forgotten == ["b"]
