"""What a night does is dealt out: each of several processes has its share of every phase, and the night is the same."""

import json
import sys

import pytest
from launch import ROOT, command, together

sys.path.insert(0, str(ROOT / "benchmarks"))

from bench_ranks import phases, shares_of_work  # noqa: E402

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

MOST = 1.15  # times an equal share
UNEVEN = {  # a few items are tried by each; of a prompt's dreams in one step, which is read once for them, each has some
    "checking shortcuts": 2.0,
    "training the dreamer": 1.3,
}


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    found = {}
    for count in (1, 2):
        folder = tmp_path_factory.mktemp(f"of_{count}")
        words = ["--live", folder, "--hidden", 32, "--layers", 4, "--documents", 4]
        together(command(ROOT / "benchmarks" / "bench_ranks.py", *words), count)
        works = [json.loads((folder / f"work_{rank}.json").read_text()) for rank in range(count)]
        found[count] = works, json.loads((folder / "result.json").read_text())
    return found


def test_no_process_does_more_than_its_share(nights):
    rows = {row["phase"]: row for row in shares_of_work({count: works for count, (works, _) in nights.items()})}
    assert all(rows[name]["tokens"] > 0 for name in phases())
    over = {name: rows[name]["tokens_2"] for name in phases() if rows[name]["tokens_2"] > UNEVEN.get(name, MOST)}
    assert not over


def test_the_night_is_the_same(nights):
    (_, one), (_, two) = nights[1], nights[2]
    assert [row["text"] for rows in one["dreams"].values() for row in rows] == [
        row["text"] for rows in two["dreams"].values() for row in rows
    ]
    for name in ("dreams", "in_context", "after", "retention"):
        same(one[name], two[name])
    timed = {"seconds", "train_seconds", "seconds_writing", "train_tokens"}  # the beginning of a row is read by each
    same(*({key: value for key, value in night.items() if key not in timed} for night in (one["night"], two["night"])))
    assert two["night"]["train_tokens"] >= one["night"]["train_tokens"]


def same(one, other, where=""):
    """Equal, numbers up to rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for k, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}/{k}")
    elif isinstance(one, float):
        assert other == pytest.approx(one, abs=2e-4, rel=1e-3, nan_ok=True), where
    else:
        assert one == other, where
