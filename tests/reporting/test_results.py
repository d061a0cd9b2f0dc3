import errno
import json
import os
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.reporting import results
from sleepkit.reporting.results import RunRecord, hardware, peak_memory_bytes, read_results, versions
from sleepkit.utils.files import read_json, write_json


class Colour(Enum):
    BLUE = "blue"


def record(**changes):
    return RunRecord(method="seeding", seed=3, config={"lr": 1e-3}, metrics={"recovery": 0.7}, **changes)


def test_versions_and_hardware_describe_this_machine():
    found = versions()
    assert found["torch"] == torch.__version__
    assert {"python", "transformers", "trl", "peft", "accelerate", "datasets"} <= set(found)
    machine = hardware()
    assert machine["cpu"] and machine["cores"] >= 1 and machine["ram_bytes"] > 2**28
    assert machine["gpus"] == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def test_packages_that_are_absent_are_left_out(monkeypatch):
    monkeypatch.setattr(results, "_PACKAGES", ("torch", "surely-not-installed"))
    assert set(versions()) == {"python", "torch"}


def test_peak_memory_is_in_bytes_and_grows():
    before = peak_memory_bytes()
    assert 2**25 < before < 2**40
    block = np.ones(2**25)  # 256 MiB
    assert peak_memory_bytes() >= max(before, block.nbytes)


def test_write_json_takes_numpy_torch_paths_and_enums(tmp_path):
    value = {
        "numpy": np.float32(0.5),
        "array": np.array([[1, 2]]),
        "torch": torch.tensor(2.0, dtype=torch.bfloat16),
        "matrix": [[1.0, float("nan")], [np.nan, float("inf")]],
        "path": Path("runs") / "demo",
        "enum": Colour.BLUE,
        "dtype": torch.bfloat16,
        "flag": np.bool_(True),
        1: ("é", None),
    }
    write_json(tmp_path / "new" / "file.json", value)
    assert read_json(tmp_path / "new" / "file.json") == {
        "numpy": 0.5,
        "array": [[1, 2]],
        "torch": 2.0,
        "matrix": [[1.0, None], [None, None]],
        "path": "runs/demo",
        "enum": "blue",
        "dtype": "torch.bfloat16",
        "flag": True,
        "1": ["é", None],
    }


def test_what_has_no_json_form_is_refused_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with pytest.raises(SleepkitError, match="object"):
        write_json(path, {"a": object()})
    assert read_json(path) == 1


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_json(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SleepkitError, match=r"cannot write .*file.json: No space left on device; free some space"):
        write_json(path, "new")
    assert read_json(path) == "old"
    assert os.listdir(tmp_path) == ["file.json"]  # no draft left behind


def test_record_survives_a_round_trip(tmp_path):
    first = record(
        accuracy_matrix=[[0.5, None], [0.25, 1.0]],
        examples=[{"question": "Who?", "gold": "Ada", "before": "I do not know", "after": "Ada", "in_context": "Ada"}],
        history=[{"step": 1, "loss": 0.5}],
        nights=[{"night": 0, "committed": True, "reason": "gain", "anchor_kl": 0.01}],
        seconds=12.5,
    )
    path = first.save(tmp_path)
    assert path == tmp_path / "results.json"
    assert RunRecord.load(tmp_path) == first
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data == first.to_dict()
    assert data["peak_memory_bytes"] > 0
    assert data["versions"] == versions()


def test_only_the_main_process_writes(tmp_path):
    record().save(tmp_path / "run", is_main=False)
    assert not (tmp_path / "run").exists()


def test_peak_memory_never_shrinks_when_a_run_is_resumed(tmp_path):
    record(peak_memory_bytes=2**60).save(tmp_path)
    again = RunRecord.load(tmp_path)
    again.save(tmp_path)
    assert RunRecord.load(tmp_path).peak_memory_bytes == 2**60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*give the output folder of a run"),
        ('{"method": "seed', "not valid JSON"),
        ("[1]", "holds a list, not a run"),
        ('{"method": "x", "colour": 2}', r"missing \['accuracy_matrix', .*'seed', .*unknown \['colour'\]"),
    ],
)
def test_bad_files_are_one_line_errors(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(SleepkitError, match=message) as error:
        RunRecord.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metrics", [1]),
        ("metrics", {"faa": "high"}),
        ("metrics", {"faa": [0.5]}),
        ("metrics", {"faa": True}),
        ("accuracy_matrix", {"0": [1]}),
        ("accuracy_matrix", [0.5]),
        ("accuracy_matrix", [["1"]]),
        ("matrices", {"probe": 1}),
        ("nights", {"night": 1}),
        ("nights", [1]),
        ("nights", [{"night": "one"}]),
        ("history", "none"),
        ("examples", [["q", "a"]]),
        ("config", "default"),
        ("method", 3),
        ("seed", "0"),
        ("seed", None),
        ("seconds", "long"),
        ("hardware", []),
        ("days", [None]),
    ],
)
def test_an_edited_record_is_one_line(tmp_path, name, value):
    path = RunRecord("seeding", 0, metrics={"faa": 0.5}, accuracy_matrix=[[0.5, None]], nights=[{"night": 1}]).save(tmp_path)
    document = json.loads(path.read_text())
    assert read_results(tmp_path) == document
    path.write_text(json.dumps({**document, name: value}))
    with pytest.raises(SleepkitError, match=f"results.json has been changed: its {name} is .*; run the same command") as error:
        read_results(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": -Infinity}', "[" * 100_000, '{"a": 1', "\x00"])
def test_what_is_no_json_is_one_line(tmp_path, text):
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(SleepkitError, match="one.json is not valid JSON .*; delete it and run again"):
        read_json(tmp_path / "one.json")
