"""The dreaming experiment and published dreams, on a tiny model whose dreams are given."""

import json

import pytest
from test_run import command, files  # noqa: F401  # a fixture

from sleepkit import cli
from sleepkit.language.dreaming import trainer as dreaming_trainer
from sleepkit.language.dreaming.dataset import load_dream_set
from sleepkit.language.dreaming.dreams import Dream, Dreamed, context_name
from sleepkit.reporting.results import read_results
from sleepkit.runs.arguments.language import parse
from sleepkit.runs.dream import run_dream

SMALL = """--dream_rounds 2 --trial_steps 3 --trial_control false --trial_rank 2 --trial_learning_rate 1e-2 --dreamer_rank 2
    --dream_rehearsal_steps 2
    --dream_held_out 2 --styles wh cloze --expert_slots 3""".split()


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """A good and a useless dream of each context."""
    contexts = []

    def dreamed(context):
        chunk = context.chunk
        contexts.append(chunk.title)
        rows = [(f"Tell me about {chunk.title}.", line) for line in chunk.text.split(". ")]
        return Dreamed([Dream("rewrite", chunk.text, rows, context_name(chunk)), Dream("long", "z", [("z", "z z")], chunk.title)])

    monkeypatch.setattr(dreaming_trainer, "dream", lambda _, __, contexts, *___: list(map(dreamed, contexts)))
    return contexts


def arguments(files, output, *more):  # noqa: F811
    return [*command(files, output, *SMALL, "--nights", "1", *more)[1:]]


def test_shares_of_own_and_held_out_passages_for_each_round(files, tmp_path, calls, capsys):  # noqa: F811
    record = run_dream(*parse(arguments(files, tmp_path / "run")))
    assert calls == ["Bert", "Cleo", "Ada", "Bert", "Cleo", "Ada", "Bert", "Cleo"]
    shares = [f"share_positive_round_{r}" for r in (1, 2)] + [f"share_positive_held_out_round_{r}" for r in (1, 2, 3)]
    assert all(0 <= record.metrics[name] <= 1 for name in shares)
    assert read_results(tmp_path / "run")["metrics"] == record.metrics
    assert "| held out | 3 | 4 | 0 | 4 | 0 |" in (tmp_path / "run" / "report.md").read_text()
    assert (tmp_path / "run" / "rewards.png").is_file()
    (tmp_path / "run" / "results.json").unlink()
    again = run_dream(*parse(arguments(files, tmp_path / "run")))  # everything is read back
    assert again.metrics == record.metrics and len(calls) == 8 and again.seconds > record.seconds


def test_refusals(files, tmp_path, capsys):  # noqa: F811
    from sleepkit.errors import SleepkitError

    with pytest.raises(SleepkitError, match="dream_rounds is 0"):
        run_dream(*parse(arguments(files, tmp_path, "--dream_rounds", "0")))
    with pytest.raises(SleepkitError, match="limit is"):
        run_dream(*parse(arguments(files, tmp_path, "--dream_held_out", "7")))


@pytest.mark.usefixtures("undrawn")
def test_a_run_publishes_its_dreams_and_another_starts_from_them(files, tmp_path, calls, capsys):  # noqa: F811
    assert cli.main(["sleep", *arguments(files, tmp_path / "first")]) == 0
    published = tmp_path / "first" / "dreams"
    dreams = load_dream_set(str(published))
    assert dreams and {one.context for one in dreams} == {"Ada"} and all(one.reward > 0 for one in dreams)
    assert "config_name: night_01" in (published / "README.md").read_text()
    asked = len(calls)
    assert cli.main(["sleep", *arguments(files, tmp_path / "second", "--dream_set", str(published))]) == 0
    assert len(calls) == asked  # nothing was dreamed anew
    night = read_results(tmp_path / "second")["nights"][0]
    assert night["dreams_accepted"] == len(dreams)
    accepted = tmp_path / "first" / "night_01" / "dreams" / "accepted.jsonl"
    text = accepted.read_text()
    accepted.write_text(text.replace("red lamp", "bed lamp"))
    capsys.readouterr()
    assert cli.main(["sleep", *arguments(files, tmp_path / "first")]) == 2  # the same command publishes again
    assert "accepted.jsonl is damaged (it has changed); bring back a copy" in capsys.readouterr().err
    accepted.write_text(text)
    assert cli.main(["sleep", *arguments(files, tmp_path / "first")]) == 0
    capsys.readouterr()
    (published / "night_01.jsonl").write_text(json.dumps({"context": "Ada"}))
    assert cli.main(["sleep", *arguments(files, tmp_path / "third", "--dream_set", str(published))]) == 2
    assert "is not a dream" in capsys.readouterr().err and not (tmp_path / "third").exists()


@pytest.mark.parametrize("more", [["--bf16", "true"], ["--dtype", "bfloat16"]], ids=["autocast", "weights"])
def test_dreams_in_bfloat16(files, tmp_path, more):  # noqa: F811
    record = run_dream(*parse(arguments(files, tmp_path, "--gradient_checkpointing", "true", *more)))
    assert 0 <= record.metrics["share_positive_round_2"] <= 1
