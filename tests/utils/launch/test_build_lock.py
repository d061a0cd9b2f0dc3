"""A lock that a killed build of DeepSpeed has left is named, with the way to be rid of it."""

import os

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.utils.launch.agreement import agree
from sleepkit.utils.launch.build_lock import left_build_lock


@pytest.fixture(params=["deepspeed_shm_comm", "py311_cpu/deepspeed_shm_comm"])
def build(request, tmp_path, monkeypatch):
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    return folder


def aged(path, seconds):
    path.write_text("")
    os.utime(path, (1e9 - seconds, 1e9 - seconds))
    return path


def test_no_lock(build):
    aged(build / "build.ninja", 9e6)
    assert left_build_lock(1e9) is None


def test_a_lock_that_was_left(build):
    lock = aged(build / "lock", 3600)
    aged(build / "shm.o", 3500)
    line = left_build_lock(1e9)
    assert "killed 58 minutes ago" in line and line.endswith(f"rm {lock}")
    with pytest.raises(SleepkitError, match="left from a build"):
        agree(build, {})


def test_a_build_that_goes_on(build, capsys):
    lock = aged(build / "lock", 3600)
    aged(build / "shm.o", 20)
    assert left_build_lock(1e9) is None
    assert f"{lock}: another process builds" in capsys.readouterr().err


def test_a_run_without_deepspeed_does_not_look(build, monkeypatch):
    aged(build / "lock", 3600)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    assert left_build_lock(1e9) is None
