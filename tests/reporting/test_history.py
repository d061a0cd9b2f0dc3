"""The nights of a run as a table."""

import pytest
from sample_runs import image_run, own_run, sample_run

from sleepkit.cli import main
from sleepkit.utils.files import write_json
from sleepkit.utils.sealed import seal


def lines_of(folder, capsys):
    assert main(["history", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_nights_of_a_finished_run(tmp_path, capsys):
    write_json(tmp_path / "results.json", own_run())
    head, _, first, second = lines_of(tmp_path, capsys)
    assert head.split() == "night experience verdict own questions earlier nights anchor KL time why".split()
    assert first.split()[0] == "1" and "lighthouse.md" in first and " kept " in first and "6% → 81% of 16" in first
    assert " undone " in second and second.endswith("more than the 10 points that may be lost")


def test_a_run_that_goes_on_is_read_from_its_state(tmp_path, capsys):
    run = own_run()
    write_json(tmp_path / "results.json", {**run, "nights": run["nights"][:1]})
    write_json(tmp_path / "state" / "night_02" / "cycle.json", {"nights": run["nights"]})
    seal(tmp_path / "state" / "night_02")
    assert len(lines_of(tmp_path, capsys)) == 4
    (tmp_path / "results.json").unlink()
    assert len(lines_of(tmp_path, capsys)) == 4


def test_days_give_dates_and_changed_settings(tmp_path, capsys):
    nights = [{"night": k, "experience": f"{k}.md", "committed": True} for k in (1, 2, 3)]
    nights[2]["date"] = "2026-03-05"
    days = [
        {"first_night": 1, "date": "2026-03-01", "config": {"max_steps": 200, "alpha": 0.5}},
        {"first_night": 2, "date": "2026-03-02", "config": {"max_steps": 100, "alpha": 0.5, "gate": False}},
        {"first_night": 3, "date": "2026-03-03", "config": {"max_steps": 100, "alpha": 0.5, "gate": False}},
    ]
    write_json(tmp_path / "results.json", {**sample_run(nights=nights), "days": days})
    lines = lines_of(tmp_path, capsys)
    assert [line.split()[1] for line in lines[2:5]] == ["2026-03-01", "2026-03-02", "2026-03-05"]
    assert lines[5:] == ["", "from night 2: max_steps 200 → 100, gate None → False"]


def test_what_is_left_of_a_night_that_was_forgotten(tmp_path, capsys):
    measured = {"forgotten_before": 0.75, "forgotten_after": 0.0, "forgotten_unslept": 0.25, "forgotten_n": 4}
    measured |= {"forgotten_loss_before": 1.5, "forgotten_loss_after": 4.125, "forgotten_loss_unslept": 4.0}
    forgotten = {"committed": True, "forgotten": True, "forgotten_date": "2026-05-01"}
    nights = [
        {"night": 1, "experience": "a.md", **forgotten, **measured},
        {"night": 2, "experience": "b.md", "committed": True},
        {"night": 3, "experience": "c.md", **forgotten},  # of an older version, or without questions
    ]
    write_json(tmp_path / "results.json", sample_run(nights=nights))
    head, _, first, second, third = lines_of(tmp_path, capsys)
    assert "of what was forgotten" in head
    assert "answered 75% → 0% of 4 (unslept 25%), loss 1.50 → 4.12 (unslept 4.00)" in first
    assert "answered" not in second + third


def test_other_runs_have_what_they_have(tmp_path, capsys):
    write_json(tmp_path / "results.json", image_run())
    assert lines_of(tmp_path, capsys)[0].split() == "night experience verdict class-IL why".split()
    write_json(tmp_path / "results.json", sample_run(nights=[{"night": 1}]))
    assert lines_of(tmp_path, capsys) == ["night", "-----", "    1"]


@pytest.mark.parametrize("seeds", [False, True])
def test_a_folder_without_nights_is_one_line(seeds, tmp_path, capsys):
    if seeds:
        write_json(tmp_path / "seed_3" / "results.json", own_run())
    assert main(["history", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "holds no night; give the output folder of a run" in error and error.count("\n") == 1
    assert (f"such as {tmp_path / 'seed_3'}" in error) == seeds


def test_damaged_results_are_one_line(tmp_path, capsys):
    (tmp_path / "results.json").write_text("{")
    assert main(["history", str(tmp_path)]) == 2
    assert "is not valid JSON" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("[]")
    assert main(["history", str(tmp_path)]) == 2
