"""Pages and tables of experiments with several methods and seeds."""

import json

import pytest

from sleepkit.cli import main
from sleepkit.reporting.experiments import differences_table, runs_table
from sleepkit.reporting.metrics import mean_interval
from sleepkit.reporting.results import hardware


def run(variant, seed, recovery, first):
    matrix = [[first, 0.0], [first / 2, 0.5]]
    return {
        "variant": variant,
        "seed": seed,
        "recovery": recovery,
        "accuracy_matrix": matrix,
        "seconds": 61.25,
        "seconds_total": 122.5,
    }


def test_interval_is_that_of_the_t_distribution():
    assert mean_interval([]) == (None, None) and mean_interval([0.5]) == (0.5, None)
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / 3**0.5)
    assert mean_interval([0.0, 1.0] * 50)[1] == pytest.approx(1.96 * 0.5025 / 10, rel=1e-3)


def test_page_of_an_experiment(tmp_path, capsys):
    runs = [run("knowledge_seeding", seed, 0.6 + 0.1 * seed, 1.0) for seed in range(3)] + [run("lora", 0, None, 0.5)]
    document = {"name": "squad", "config": "squad.yaml", "arguments": ["--nights", "2"], "runs": runs, "hardware": hardware()}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(document))
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "squad.md")
    text = (tmp_path / "squad.md").read_text()
    assert "| knowledge_seeding | 0, 1, 2 | 0.700 ± 0.248 |" in text and "| lora | 0 | – |" in text
    assert "| lora | 0 | – |" in text.partition("Differences of the runs")[2]
    assert "--config squad.yaml --nights 2" in text and "after night 2 of seed 2   0.50  0.50" in text
    assert (tmp_path / "squad_retention.png").stat().st_size > 1000
    assert "| knowledge_seeding | 3 | 0.700 ± 0.100 |" in runs_table(runs)


def test_variants_are_compared_on_the_seeds_that_they_share():
    runs = [run("knowledge_seeding", seed, 0.2 * seed, 1.0) for seed in range(3)]
    assert differences_table(runs) == ""
    runs += [run("no_imitation", seed, 0.2 * seed - 0.25, 1.0) for seed in (1, 2, 3)] + [run("lora", 0, 0.5, 1.0)]
    *_, lower, single = differences_table(runs).splitlines()
    assert lower == "| no_imitation | 1, 2 | -0.250 ± 0.000 |"  # not seed 3
    assert single == "| lora | 0 | +0.500 |"
    assert differences_table([*runs[:3], run("lora", 7, 0.5, 1.0)]) == ""


def test_a_file_without_runs_is_refused(tmp_path, capsys):
    (tmp_path / "other.json").write_text("{}")
    assert main(["report", str(tmp_path / "other.json")]) == 2
    assert "holds no runs" in capsys.readouterr().err
