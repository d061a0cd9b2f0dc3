"""A night, or a round of dreams, that is killed with no warning and started again ends with the bits of one that was not."""

import signal

import pytest
from machine import preload, run

SCRIPT, DREAMER = "tests/fault/sleep_tiny.py", "tests/dream_tiny.py"


def sleep(folder, *where, script=SCRIPT):
    return run([script, str(folder), *where])


def left_behind(folder):
    return {path.name: path.read_bytes() for path in (folder / "second").iterdir()}


@pytest.fixture(scope="module", autouse=True)
def imported():
    preload()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = sleep(folder)
    assert done.code == 0, done.err[-3000:]
    return folder


@pytest.mark.parametrize("where", ["first", "examples", "step", "checkpoint"])
def test_killed_and_started_again(where, uninterrupted, tmp_path):
    assert sleep(tmp_path, where).code == -signal.SIGKILL
    night = tmp_path / ("night_00" if where == "first" else "night_01")
    found = {path.name for path in night.glob("checkpoints/checkpoint-*")}
    assert (night / "examples.jsonl").is_file() and not (tmp_path / "second").exists()
    steps = {"first": set(), "examples": set(), "step": {"checkpoint-2"}, "checkpoint": {"checkpoint-2", "checkpoint-4"}}
    assert found == steps[where]
    if where == "checkpoint":
        assert not (night / "checkpoints" / "checkpoint-4" / "trainer_state.json").exists()

    done = sleep(tmp_path)
    assert done.code == 0, done.err[-3000:]
    for name in ("night_00", "night_01"):
        assert (tmp_path / name / "examples.jsonl").read_bytes() == (uninterrupted / name / "examples.jsonl").read_bytes()
    expected, found = left_behind(uninterrupted), left_behind(tmp_path)
    assert {"expert_bank.safetensors", "general.jsonl", "replay.jsonl"} <= expected.keys() and found == expected


def dreamed(folder):
    """Contents of all files but PEFT's configuration, which lists a set in any order, and drafts of the one that was killed."""
    files = [path for path in sorted(folder.glob("dreams/*/*")) if path.is_file() and path.name != "adapter_config.json"]
    files = [path for path in files if not path.name.endswith(".tmp")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def dreamed_at_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dreamed")
    done = sleep(folder, script=DREAMER)
    assert done.code == 0, done.err[-3000:]
    assert (folder / "trials.txt").read_text() == 8 * "a trial\n"
    return folder


@pytest.mark.parametrize(("where", "trials"), [("dreamed", 0), ("tried", 2), ("learned", 4)])
def test_a_round_of_dreams_is_killed(where, trials, dreamed_at_once, tmp_path):
    assert sleep(tmp_path, where, script=DREAMER).code == -signal.SIGKILL
    done_before = tmp_path / "trials.txt"
    assert (done_before.read_text() if done_before.exists() else "") == trials * "a trial\n"
    assert not (tmp_path / "dreams" / "dreamer_1").exists()

    done = sleep(tmp_path, script=DREAMER)
    assert done.code == 0, done.err[-3000:]
    assert done_before.read_text() == 8 * "a trial\n"  # none twice
    expected, found = dreamed(dreamed_at_once), dreamed(tmp_path)
    assert "dreams/dreamer_1/adapter_model.safetensors" in expected and found == expected
