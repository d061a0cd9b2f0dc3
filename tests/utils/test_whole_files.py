"""A file is there whole or not at all, and a disk that does not take it is one line."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_model, tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.model_io import save_model
from sleepkit.utils.files import open_to_all, read_jsonl, replacing, save_figure, writable, write_json, write_jsonl, write_text


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "new" / "report.md"
    write_text(path, "one")
    with pytest.raises(RuntimeError, match="our own"), replacing(path) as draft:
        draft.write_text("half of")
        raise RuntimeError("our own")
    assert path.read_text() == "one" and os.listdir(path.parent) == ["report.md"]
    write_text(path, "two")
    assert path.read_text() == "two" and os.listdir(path.parent) == ["report.md"]


def full_disk(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {"a": 1}),
        lambda path: write_jsonl(path, [{"a": 1}]),
        lambda path: write_text(path, "text"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(write, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full_disk)
            with pytest.raises(SleepkitError, match=f"cannot write {path}: No space left on device; free some space"):
                write(path)
        assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_file_in_place_of_a_folder_and_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "run").write_text("mine")
    (tmp_path / "folder" / "report.md").mkdir(parents=True)
    with pytest.raises(SleepkitError, match="a file stands where a folder is needed: move it away"):
        write_json(tmp_path / "run" / "results.json", {})
    with pytest.raises(SleepkitError, match="a folder stands in the file's place"):
        write_text(tmp_path / "folder" / "report.md", "")
    assert (tmp_path / "run").read_text() == "mine" and os.listdir(tmp_path / "folder") == ["report.md"]


def test_what_other_libraries_say_of_a_full_disk(tmp_path):
    with pytest.raises(SleepkitError, match="cannot write here: .*; free some space"), writable("here"):
        save_file({"a": torch.zeros(1)}, tmp_path / "nowhere" / "file")  # safetensors has an error of its own
    with (
        pytest.raises(SleepkitError, match="cannot write here: .*PytorchStreamWriter failed.*; free some space"),
        writable("here"),
    ):
        raise RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/0")
    with pytest.raises(RuntimeError, match="CUDA"), writable("here"):
        raise RuntimeError("CUDA error")


def test_a_figure_is_whole_or_not_there(tmp_path):
    class Figure:
        def savefig(self, path, format):
            path.write_text(format)

    save_figure(Figure(), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_text() == "png" and os.listdir(tmp_path) == ["one.png"]


ENDS = ["a\u2028b", "\u2029", "\x85", "\x0b", "\x0c", "\x1c\x1d\x1e", "\r", "a\nb", "\ud83d", "\x00"]


@pytest.mark.parametrize("text", ENDS, ids=ascii)
def test_rows_hold_what_python_takes_for_the_end_of_a_line(text, tmp_path):
    rows = [{"text": text, "n": 1}, {"text": f"x{text}y", "n": 2}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    write_json(tmp_path / "one.json", rows)
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == rows


def test_half_a_row_is_an_error(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}, {"a": 2}])
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError):
        read_jsonl(path)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_have_the_mode_of_all_other_files(mask, mode, tmp_path):
    """safetensors writes for the owner alone, so that a model in a shared folder could be read by nobody else."""
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "experts.safetensors") as draft:
            save_file({"a": torch.zeros(1)}, draft)
        save_model(tiny_model(), tiny_tokenizer(), tmp_path / "plain")
        open_to_all(tmp_path / "nothing there")
        write_text(tmp_path / "text", "")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and {path.stat().st_mode & 0o777 for path in files} == {mode}
