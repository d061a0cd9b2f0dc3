"""A phase is taken over if it is whole and the same, and made again, with a word, in every other case."""

import os
import shutil

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.utils.phases import PhaseFile, PhaseFolder, digest_of

IDENTITY = {"seed": 3, "night": 1, "settings": digest_of({"steps": 4})}


def write(text):
    return lambda draft: (draft / "weights.bin" if draft.is_dir() else draft).write_text(text)


def content(phase):
    return (phase.path / "weights.bin" if phase.path.is_dir() else phase.path).read_text()


@pytest.fixture(params=[PhaseFile, PhaseFolder])
def make(request, tmp_path):
    """Makes the phase with an identity."""
    return lambda identity=IDENTITY: request.param(tmp_path / "night_01" / "phase", identity)


def files(phase):
    return sorted(path for path in phase.path.parent.rglob("*") if path.is_file())


def test_what_is_whole_and_the_same_is_taken_over(make, caplog):
    phase = make()
    assert phase.read() is None and not caplog.text and not phase.path.parent.exists()
    phase.write(write("one"), {"seconds": 2.5, "counts": {"a": 1}})
    assert make().read() == {"seconds": 2.5, "counts": {"a": 1}} and content(phase) == "one"
    phase.write(write("two"))
    assert make().read() == {} and content(phase) == "two"
    assert not caplog.text and not [path for path in files(phase) if "draft" in str(path) or path.name.endswith(".tmp")]


@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_any_bit_of_any_file_counts(make, place, caplog):
    make().write(write("some weights"), {"seconds": 2.5})
    for path in files(make()):
        before = path.read_bytes()
        changed = bytearray(before)
        changed[int(place * (len(before) - 1)) if place > 0 else place] ^= 1
        shutil.copytree(make().path.parent, make().path.parent.parent / "kept", dirs_exist_ok=True)
        path.write_bytes(changed)
        caplog.clear()
        found = make().read()
        assert found in (None, {"seconds": 2.5}), path
        if found is None:
            assert "phase is not taken over" in caplog.text and "it is made again" in caplog.text
            assert not make().path.exists()
        else:  # a bit of white space
            assert content(make()) == "some weights"
        shutil.rmtree(make().path.parent)
        os.rename(make().path.parent.parent / "kept", make().path.parent)


def test_each_file_cut_short_or_missing_counts(make, caplog):
    for name in [path.name for path in (make().write(write("some weights")), files(make()))[1]]:
        for cut in (True, False):
            make().write(write("some weights"))
            path = next(path for path in files(make()) if path.name == name)
            path.write_bytes(path.read_bytes()[:-3]) if cut else path.unlink()
            assert make().read() is None, (name, cut)
            assert make().read() is None
    make().write(write("again"))
    assert make().read() == {} and content(make()) == "again"


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 4}, "seed"), ({"settings": digest_of({"steps": 5})}, "settings"), ({"weights": "0"}, "weights")],
)
def test_another_identity_is_named(make, change, word, caplog):
    make().write(write("one"))
    other = make({**IDENTITY, **change})
    assert not other.is_same() and make().is_same()
    assert other.read() is None
    assert f"is not taken over (it was made with another {word}); it is made again" in caplog.text
    assert not other.path.exists()


def test_a_write_that_fails_leaves_what_was_there(make):
    make().write(write("one"), {"k": 1})

    def fails(draft):
        write("half")(draft)
        raise OSError(28, "No space left on device")

    with pytest.raises(SleepkitError, match="cannot write .*phase: No space left on device; free some space or choose another"):
        make().write(fails)
    assert make().read() == {"k": 1} and content(make()) == "one"


def test_a_file_between_two_writes_is_the_one_or_the_other(tmp_path, monkeypatch):
    phase = PhaseFile(tmp_path / "dreams.jsonl", IDENTITY)
    phase.write(write("one"))
    replace, calls = os.replace, []

    def dies(source, target):
        calls.append(target)
        if str(target).endswith("dreams.jsonl"):  # the seal is written, the file is not
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        phase.write(write("two"))
    monkeypatch.undo()
    assert len(calls) == 2 and phase.read() == {} and content(phase) == "one"
    phase.write(write("three"))
    assert phase.read() == {} and content(phase) == "three"
    phase.write(write("four"))
    phase.path.write_text("one")  # which nobody was writing any more
    assert phase.read() is None


def test_a_file_without_a_seal_is_of_an_older_version(tmp_path, caplog):
    phase = PhaseFile(tmp_path / "examples.jsonl", IDENTITY)
    phase.path.write_text("{}")
    assert phase.read() is None and "it has no seal" in caplog.text and not phase.path.exists()


def test_digests_are_of_content():
    assert digest_of({"a": 1, "b": [2.0, None]}) == digest_of({"b": [2.0, None], "a": 1})
    assert len({digest_of(value) for value in ("a", ["a"], {"a": None}, "\ud83d", "", None, 1.5)}) == 7
