"""Paths as users type them, and memory that is asked for before it is taken."""

from pathlib import Path

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.utils.paths import existing, new_folder
from sleepkit.utils.ram import require_memory


def test_what_is_there_and_what_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert existing("~/file", "dataset") == tmp_path / "file" and existing(tmp_path, "dataset") == tmp_path
    for given in ("~/nothing", tmp_path / "file" / "inside", "owner/name"):
        assert existing(given, "dataset") is None


@pytest.mark.parametrize("given", ["", "a" * 300, "a\0b", "~nobody-at-all/digits"])
def test_paths_that_no_file_system_takes(given):
    for look in (existing, new_folder):
        with pytest.raises(SleepkitError, match="^dataset ") as error:
            look(given, "dataset")
        assert ";" in str(error.value)


def test_a_folder_to_write_to(tmp_path):
    assert new_folder(tmp_path / "a" / "b", "output_dir").is_dir() and not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "b", Path("/proc/nothing")):
        with pytest.raises(SleepkitError, match=r"^output_dir .* cannot be .*; choose another folder|correct the path"):
            new_folder(path, "output_dir")
    assert (tmp_path / "file").read_text() == "mine"


def test_memory_that_is_not_there():
    require_memory(1, "an image", "lower --image_size")
    with pytest.raises(SleepkitError, match=r"^60 images would take 931,322,574,615.5 GiB .* are free; lower --image_size$"):
        require_memory(10**21, "60 images", "lower --image_size")
