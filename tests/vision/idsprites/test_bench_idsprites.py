"""benchmarks/bench_idsprites.py: what it measures, and its table."""

import importlib.util
import sys
from pathlib import Path

import pytest
from launch import succeed

from sleepkit.utils.files import read_json

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.slow
def test_renderers_are_measured_in_one_run(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "bench_idsprites.py"), "--output", str(tmp_path / "bench.json")]
    command += [
        "--sizes",
        "16",
        "--batch-size",
        "4",
        "--seconds",
        "0.02",
        "--repeats",
        "1",
        "--processes",
        "1",
        "--exemplars",
        "12",
    ]
    done = succeed(command)
    document = read_json(tmp_path / "bench.json")
    speeds = document["images_per_second"]["16"]
    assert speeds["tensors"]["one_process"] > 0 and "| 16 px | tensors |" in done.stdout
    assert all(document["query_milliseconds"]["12"][name] > 0 for name in ("nearest", "aligned"))
    assert "| 12 |" in done.stdout
    for name, module in (("idsprites", "idsprites"), ("sleepkit", "numba"), ("reference", "cv2")):
        installed = importlib.util.find_spec(module) is not None
        assert (name in speeds) == installed and (f"{name} is left out" in done.stdout) != installed
