"""Starting anew deletes what a run wrote, and nothing that somebody put beside it."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.utils.run_folder import RECORD, RunFolder


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def left(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RECORD}


def test_what_others_put_into_the_folder_stays_however_often_a_run_starts_anew(tmp_path):
    run = RunFolder(tmp_path, ["model", "results.json"])
    run.claim()
    for _ in range(3):
        write(tmp_path, "model/weights", "model/inner/more", "results.json")
        run.note()
        write(tmp_path, "model/mine.txt", "notes.txt")  # later, and under a name that no run uses
        run.clear()
        assert left(tmp_path) == {"model/mine.txt", "notes.txt"}
        assert not (tmp_path / "model" / "inner").exists()


def test_a_folder_with_something_else_is_not_claimed(tmp_path):
    write(tmp_path, "model/mine.txt")
    for step in (RunFolder(tmp_path, ["model"]).claim, RunFolder(tmp_path, ["model"]).clear):
        with pytest.raises(SleepkitError, match="holds no run of sleepkit, but model/mine.txt"):
            step()
    RunFolder(tmp_path, ["results.json"]).claim()  # which would not write there
    assert left(tmp_path) == {"model/mine.txt"}


@pytest.mark.parametrize("record", ["[]", '{"files": ["../outside"], "foreign": []}', '{"files": ["/etc/x"], "foreign": []}'])
def test_a_damaged_record_deletes_nothing(record, tmp_path):
    write(tmp_path, "outside", "run/results.json")
    (tmp_path / "run" / RECORD).write_text(record)
    with pytest.raises(SleepkitError, match="is damaged, so nothing is deleted"):
        RunFolder(tmp_path / "run", ["results.json"]).clear()
    assert left(tmp_path) == {"outside", "run/results.json", f"run/{RECORD}"}
