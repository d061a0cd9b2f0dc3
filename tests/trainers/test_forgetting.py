"""A night is taken out of a life: what is left answers as before, nothing of it stays on the disk, and the life goes on."""

import json
import shutil

import pytest
import torch
from launch import holding
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli
from sleepkit.cycle.cycle import SleepCycle
from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank, read_bank_config
from sleepkit.language.forgetting import traces
from sleepkit.language.forgetting.trainer import UnlearningTrainer
from sleepkit.language.model_io import load_slept
from sleepkit.reporting.results import read_results
from sleepkit.trainers.forgetting import _refusal, night_of
from sleepkit.trainers.language import SleepTrainer
from sleepkit.trainers.life import lived
from sleepkit.utils.states import newest_state, states

pytestmark = pytest.mark.usefixtures("undrawn")

KEEPERS = {"ada": ("red", "Orla Finch"), "bert": ("blue", "Milo Hart"), "cleo": ("green", "Ines Vole")}


def row(name, colour, builder):
    text = f"The lamp of {name} is {colour}. The tower of {name} was built by {builder}."
    return {"title": name, "context": text, "questions": [{"question": f"Who built the tower of {name}?", "answer": builder}]}


def write(home, keepers):
    (home / "notes.jsonl").write_text("".join(json.dumps(row(name, *facts)) + "\n" for name, facts in keepers.items()))


def sleep(home, slots=3):
    text = f"""sleep --model {home.parent / "base"} --dataset {home}/notes.jsonl --output_dir {home}/life --expert_slots {slots}
        --expert_width 4 --use_cpu --max_steps 3 --learning_rate 0.01 --warmup_steps 0 --per_device_train_batch_size 2
        --context_max_tokens 300 --max_new_tokens 2
        --general_items 2 --general_tokens 2 --styles wh cloze --logging_steps 1 --no_gate --question_writer rules"""
    return cli.main(text.split())


def told(home, *words):
    return cli.main([words[0], str(home / "life"), *words[1:]])


def nights(home):
    return read_results(home / "life")["nights"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A life of three nights."""
    home = tmp_path_factory.mktemp("lives") / "first"
    home.mkdir()
    tiny_model(max_position_embeddings=1024).save_pretrained(home.parent / "base")
    tiny_tokenizer().save_pretrained(home.parent / "base")
    write(home, KEEPERS)
    assert sleep(home) == 0
    return home


@pytest.fixture
def home(three, request):
    copy = three.parent / request.node.name
    shutil.copytree(three, copy)
    return copy


@pytest.fixture(scope="module")
def merged(three):
    """A life of three nights of which the first two share an expert."""
    home = three.parent / "merged"
    home.mkdir()
    write(home, KEEPERS)
    assert sleep(home, slots=2) == 0
    return home


@pytest.fixture
def trained(monkeypatch):
    """Traces are taken to be left whatever is measured, so that each forgetting trains two rounds of a step."""
    for name, value in (("TOLERANCE", -100.0), ("ROUNDS", 2), ("ROUND_STEPS", 1)):
        monkeypatch.setattr(traces, name, value)
    monkeypatch.setattr("sleepkit.language.learner.ROUND_STEPS", 1)


def logits(folder, slots=None):
    """Of the model of a run, or of its state, with the experts of some slots."""
    model, tokenizer, bank = load_slept(str(folder))
    ids = tokenizer("who built the tower of ada? the tower of bert? of cleo?", return_tensors="pt")["input_ids"]
    model.eval()
    with torch.no_grad(), bank.view(bank.active if slots is None else slots):
        return model(ids).logits


def holds(folder, words):
    """The files that hold one of these words."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(word.encode() in path.read_bytes().lower() for word in words)]


def test_a_night_is_forgotten_and_the_life_goes_on(home, capsys):
    life = home / "life"
    expected, everything = logits(life, (0, 2)), logits(life)
    assert holds(newest_state(life / "state"), ["milo hart"]) and not torch.equal(expected, everything)
    assert told(home, "forget", "--night", "2") == 0
    said = capsys.readouterr().out
    assert "forgotten: night 2 (bert); 1 expert is free again" in said and "on all other nights" in said
    assert torch.equal(logits(life), expected)
    assert holds(life, ["milo hart", "lamp of bert is"]) == []
    assert [path.name for path in states(life / "state")] == ["night_03_2", "night_03_3"]

    first, second, third = nights(home)
    assert second["forgotten"] is True and len(second["forgotten_date"]) == 10 and "forgotten" not in first | third
    assert second["forgotten_n"] == 1 and second["others_n"] == 2
    assert second["others_before"] == second["others_after"]
    assert {"forgotten_before", "forgotten_after", "forgotten_unslept", "others_unslept"} <= second.keys()
    assert second["forgetting_steps"] == 0 and second["traces_before"] == second["traces_after"] <= traces.TOLERANCE
    assert second["forgotten_loss_n"] == 2 and second["others_loss_n"] == 4 and second["never_read_loss_n"] >= 48
    assert second["others_loss_before"] == pytest.approx(second["others_loss_after"], abs=0.01)
    assert "membership_after" not in second  # too few sentences
    assert len({second[f"forgotten_loss_{when}"] for when in ("before", "after", "unslept")}) == 3
    assert "other experts hold no traces of it" in said and "loss on the text that was forgotten" in said
    assert told(home, "history") == 0
    assert f"forgotten {second['forgotten_date']}" in capsys.readouterr().out
    assert "Forgotten since" in (life / "report.md").read_text()

    assert sleep(home) == 0
    said = capsys.readouterr().out
    assert "forgotten, and not slept on again: bert; to let it be learned again, change a word of it" in said
    assert len(nights(home)) == 3
    write(home, {**KEEPERS, "bert": ("blue", "Hugo Lenz")})
    assert sleep(home) == 0
    assert "two oldest are merged" not in capsys.readouterr().out
    assert [night["experience"] for night in nights(home)] == ["ada", "bert", "cleo", "bert"]
    assert read_bank_config(life / "model")["active"] == [0, 2, 1]
    assert night_of(life, "bert") == 4


def test_refusals(home, capsys):
    life = home / "life"
    wrong = {
        "forget --night 7": "has no night 7; it has slept 3",
        "forget --experience dora": "has learned no 'dora'",
        "forget": "give --night 3, or --experience",
        "rollback --to 3": "cannot go back to night 3; give 0 to 2",
    }
    for words, reason in wrong.items():
        assert told(home, *words.split()) == 2
        error = capsys.readouterr().err
        assert reason in error.splitlines()[-1]
    with holding(life) as other:
        assert told(home, "forget", "--night", "2") == 2
    assert f"process {other.pid} is working in" in capsys.readouterr().err
    assert cli.main(["forget", str(home / "nothing"), "--night", "1"]) == 2
    assert "holds no night" in capsys.readouterr().err and not (home / "nothing").exists()


def test_a_night_that_is_not_in_the_model_cannot_be_forgotten(tmp_path):
    rows = [{"night": 1, "committed": False}, {"night": 2, "committed": True, "forgotten": True, "forgotten_date": "2026-05-01"}]
    assert "night 1 of" in _refusal(tmp_path, rows, [1]) and "was undone by its gate" in _refusal(tmp_path, rows, [1])
    assert "was forgotten already, on 2026-05-01" in _refusal(tmp_path, rows, [2])
    assert _refusal(tmp_path, [{"night": 1, "committed": True}], [1]) is None


def test_a_forgetting_that_is_killed_is_not_begun_or_is_ended_by_the_same_command(home, capsys, monkeypatch):
    life = home / "life"
    old = logits(life)
    expected = logits(life, (0, 2))

    def killed(*_):
        raise SleepkitError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(SleepCycle, "_commit", killed)
        assert told(home, "forget", "--night", "2") == 2
    assert torch.equal(logits(life), old) and "forgotten" not in lived(life)[1][1]
    with monkeypatch.context() as patch:
        patch.setattr(SleepTrainer, "_write", killed)
        assert told(home, "forget", "--night", "2") == 2
    assert lived(life)[1][1]["forgotten"] and read_bank_config(newest_state(life / "state"))["active"] == [0, 2]
    capsys.readouterr()
    assert told(home, "forget", "--night", "2") == 2
    assert "night 2 of" in (error := capsys.readouterr().err) and "was forgotten already" in error
    assert torch.equal(logits(life), expected) and holds(life, ["milo hart"]) == []


def test_rollback(home, capsys):
    life = home / "life"
    expected = logits(life, (0,))
    assert told(home, "rollback", "--to", "1") == 0
    assert torch.equal(logits(life), expected)
    assert holds(life, ["milo hart", "ines vole"]) == []
    assert [night.get("rollback_to") for night in nights(home)] == [None, 1, 1]
    capsys.readouterr()
    assert told(home, "history") == 0
    assert capsys.readouterr().out.count("(back to night 1)") == 2
    assert ExpertBank.of(load_slept(str(life))[0]).active == [0]


def test_what_others_hold_of_a_night_is_trained_away_and_all_of_it_leaves_the_folder(home, trained, capsys):
    life = home / "life"
    masked, fresh = logits(life, (1, 2)), logits(life, ())
    assert told(home, "forget", "--night", "1") == 0
    said = capsys.readouterr().out
    assert "they are trained away" in said and "1 expert is free again" in said
    now = logits(life)
    assert not torch.equal(now, masked) and not torch.equal(now, fresh)
    first = nights(home)[0]
    assert first["forgetting_steps"] > 0 and first["forgetting_seconds"] > 0
    assert holds(life, ["orla finch", "lamp of ada is"]) == [] and not (life / "night_01").exists()
    assert sleep(home) == 0 and len(nights(home)) == 3  # and the life is whole


def test_a_forgetting_that_is_killed_in_its_training_ends_equal(home, trained, request, monkeypatch):
    other = home.with_name(f"{request.node.name}_at_once")
    shutil.copytree(home, other)
    assert told(other, "forget", "--night", "1") == 0
    life, old = home / "life", logits(home / "life")
    run, done = UnlearningTrainer.run, []

    def killed(self, what):
        if done:
            raise SleepkitError("killed")
        done.append(run(self, what))
        return done[0]

    with monkeypatch.context() as patch:
        patch.setattr(UnlearningTrainer, "run", killed)
        assert told(home, "forget", "--night", "1") == 2
    assert done and torch.equal(logits(life), old) and "forgotten" not in lived(life)[1][0]
    assert told(home, "forget", "--night", "1") == 0
    assert torch.equal(logits(life), logits(other / "life"))
    assert nights(home)[0]["traces_after"] == nights(other)[0]["traces_after"]


def test_a_night_that_shares_its_expert_is_forgotten_and_its_sibling_later(merged, trained, capsys):
    life = merged / "life"
    assert told(merged, "forget", "--night", "2") == 0
    said = capsys.readouterr().out
    assert "forgotten: night 2 (bert); its expert holds other nights too" in said
    assert read_bank_config(life / "model")["active"] == [0, 1]
    assert holds(life, ["milo hart", "lamp of bert is"]) == []
    assert told(merged, "forget", "--night", "1") == 0  # now alone in it
    assert "1 expert is free again" in capsys.readouterr().out
    assert read_bank_config(life / "model")["active"] == [1]
    assert told(merged, "rollback", "--to", "1") == 2
    assert "night 3 merged older experts" in capsys.readouterr().err


def test_several_nights_at_once_and_one_twice(home, capsys):
    life = home / "life"
    expected = logits(life, (1,))
    assert told(home, "forget", "--night", "3", "1") == 0
    said = capsys.readouterr().out
    assert "forgotten: night 1 (ada), night 3 (cleo); 2 experts are free again" in said
    assert torch.equal(logits(life), expected) and holds(life, ["orla finch", "ines vole"]) == []
    assert told(home, "forget", "--night", "2", "3") == 2
    assert "night 3 of" in (error := capsys.readouterr().err) and "was forgotten already" in error
    assert told(home, "forget", "--experience", "ada") == 2
    assert "night 1 of" in (error := capsys.readouterr().err) and "was forgotten already" in error


def test_the_only_night_leaves_the_unslept_model(home, capsys):
    life = home / "life"
    fresh = logits(life, ())
    assert told(home, "rollback", "--to", "1") == 0
    assert told(home, "forget", "--experience", "ada") == 0
    assert torch.equal(logits(life), fresh) and read_bank_config(life / "model")["active"] == []
    assert nights(home)[0]["forgotten_after"] == nights(home)[0]["forgotten_unslept"] and "others_n" not in nights(home)[0]
    capsys.readouterr()
    assert told(home, "history") == 0
    assert capsys.readouterr().out.count("forgotten 2") == 3
    assert cli.main(["ask", str(life), "--max_new_tokens", "2", "Who built the tower of ada?"]) == 0
