"""A sealed folder is whole to the bit or says what is wrong with it; a locked one belongs to one process."""

import os

import pytest
from launch import holding

from sleepkit.errors import SleepkitError
from sleepkit.utils.sealed import MANIFEST, damage, locked, seal
from sleepkit.utils.seeds import derive_seed


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "night_01"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(256)) * 9)
    (folder / "inner" / "items.jsonl").write_text("{}\n")
    seal(folder)
    return folder


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: None, None),
        (lambda folder: flip(folder / "weights"), "weights has changed"),
        (lambda folder: (folder / "weights").write_bytes(b""), "weights has changed"),
        (lambda folder: (folder / "inner" / "items.jsonl").unlink(), "inner/items.jsonl is missing"),
        (lambda folder: (folder / "more").write_text(""), "more is not part of it"),
        (lambda folder: (folder / MANIFEST).unlink(), "it was not finished"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text('{"files": []}'), "is not part of it"),
    ],
)
def test_damage(folder, spoil, words):
    spoil(folder)
    found = damage(folder)
    assert found == words if words is None else words in found


def test_every_bit_of_the_manifest_counts(folder):
    text = (folder / MANIFEST).read_bytes()
    for place in range(0, len(text), 7):
        spoiled = bytearray(text)
        spoiled[place] ^= 1
        (folder / MANIFEST).write_bytes(spoiled)
        found = damage(folder)  # a flip in white space or in the version may be harmless; the files are whole then
        assert found is None or isinstance(found, str)


def test_one_process_at_a_time_and_none_after_a_kill(tmp_path):
    folder = tmp_path / "run"
    with holding(folder) as other, pytest.raises(SleepkitError, match=f"process {other.pid} is working"), locked(folder):
        pass
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text() == f"{os.getpid()}\n"


def test_seeds_of_other_purposes_and_runs_do_not_meet():
    seeds = {derive_seed(seed, "night", night) for seed in (0, 1, 2, 20240115, -1) for night in range(200)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(0, "night", 1) == 2849089124  # the same everywhere
