"""Trackers: one run for all nights over one count of steps, continued after a kill, and nothing told that is private."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import accelerate.tracking
import pytest
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_images import write_npz

from sleepkit.errors import SleepkitError
from sleepkit.reporting.live import tracking
from sleepkit.reporting.live.tracking import Tracker, public_settings, require_trackers
from sleepkit.runs.arguments.images import parse_vision
from sleepkit.runs.images import run_vision
from sleepkit.utils.files import read_json
from sleepkit.vision.incremental.learner import ImageLearner

ROOT = Path(__file__).parents[3]
SECRET = "hf_planted_secret"
SMALL = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 2 --per_device_train_batch_size 8 --method er
    --replay_batch_size 8 --buffer_size 12 --logging_steps 4 --use_cpu --report_to tensorboard""".split()


class Fake(GeneralTracker):
    """Remembers what it is told; breaks where it is told to."""

    name, requires_logging_directory = "fake", False
    started: list["Fake"] = []
    broken: tuple[str, ...] = ()

    def __init__(self, project, **options):
        self.project, self.options, self.rows, self.settings = project, options, [], {}

    @property
    def tracker(self):
        return self

    def _do(self, what):
        print("* a tracker's word")
        if what in self.broken:
            raise ConnectionError(f"no network to {what}\nmore")

    def start(self):
        self._do("start")
        self.started.append(self)

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step=None, **kwargs):
        self._do("log")
        self.rows.append((step, values))

    def finish(self):
        self._do("finish")


@pytest.fixture
def fake(monkeypatch):
    """A tracker called wandb that is none."""
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Fake)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["wandb", "tensorboard"])
    monkeypatch.setattr(Fake, "started", [])
    monkeypatch.setattr(Fake, "broken", ())
    return Fake


def test_names_of_trackers(fake):
    assert require_trackers("none") == require_trackers([]) == require_trackers(None) == []
    assert require_trackers(["tensorboard", "wandb", "tensorboard"]) == ["tensorboard", "wandb"]
    assert require_trackers("all") == ["tensorboard", "wandb"]
    with pytest.raises(
        SleepkitError, match="report_to has 'tensorbord'; give none, all, or some of mlflow, tensorboard, trackio, wandb"
    ):
        require_trackers("tensorbord")
    with pytest.raises(SleepkitError, match="report_to has mlflow, which is not installed; run `pip install mlflow`"):
        require_trackers(["mlflow"])


def test_settings_that_may_be_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes" / "mine").mkdir(parents=True)
    settings = {"hub_token": SECRET, "api_key": SECRET, "alpha": 0.5, "gate": True, "context_max_tokens": 512, "seed": 3}
    settings |= {"model": "owner/model", "dataset": str(tmp_path / "notes"), "base": "notes/mine", "relative": "../x/y.md"}
    settings |= {"home": "~/notes/z.md", "url": f"https://me:{SECRET}@host/x", "instruction": "Say what you think of it."}
    settings |= {
        "styles": ["wh", "cloze"],
        "layers": [1, 2],
        "texts": ["one two"],
        "lost": float("nan"),
        "empty": None,
        "map": {},
    }
    assert public_settings(settings) == {
        **{"alpha": 0.5, "gate": True, "context_max_tokens": 512, "seed": 3, "model": "owner/model", "dataset": "notes"},
        **{"base": "mine", "relative": "y.md", "home": "z.md", "styles": "wh cloze", "layers": "1 2"},
    }


def test_nights_are_one_run_over_one_count_of_steps(fake, tmp_path, capsys):
    tracker = Tracker(["wandb"], tmp_path / "life", settings={"alpha": 0.5, "hub_token": SECRET})
    assert not fake.started and not tmp_path.joinpath("life").exists()  # the folder may not be the run's own yet
    assert tracker.first_step(str(tmp_path / "life" / "night_01" / "checkpoints"), 20) == 0
    tracker.log({"train/loss": 2.0}, 20)
    tracker.log({"night/committed": True, "night/reason": "a text", "night/anchor_kl": float("nan")})
    assert tracker.first_step(str(tmp_path / "life" / "night_02" / "checkpoints"), 10) == 20
    tracker.log({"night/committed": False})
    tracker.finish()
    (one,) = fake.started
    assert one.rows == [(20, {"train/loss": 2.0}), (20, {"night/committed": 1.0}), (30, {"night/committed": 0.0})]
    assert one.settings == {"alpha": 0.5} and one.project == "sleepkit" and one.options["name"] == "life"
    assert capsys.readouterr().out == ""


def test_a_run_that_was_killed_goes_on_in_the_same_run(fake, tmp_path):
    first = Tracker(["wandb"], tmp_path)
    first.first_step(str(tmp_path / "night_01"), 20)
    first.first_step(str(tmp_path / "night_02"), 20)
    again = Tracker(["wandb"], tmp_path)  # after a kill: the second night is trained again
    assert again.first_step(str(tmp_path / "night_02"), 20) == 20
    assert again.first_step(str(tmp_path / "night_03"), 20) == 40
    assert [one.options["id"] for one in fake.started] == [fake.started[0].options["id"]] * 2
    assert fake.started[0].options["resume"] == "allow" and fake.started[0].options["settings"]["x_disable_meta"]
    other = Tracker(["wandb"], tmp_path / "other")
    other.start()
    assert other.runs != again.runs and other.step == 0
    Tracker(["wandb"], tmp_path / "life" / "seed_3").start()
    assert fake.started[-1].options["name"] == "life_seed_3"


def test_a_tracker_that_cannot_start_is_one_line(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(Fake, "broken", ("start",))
    with pytest.raises(SleepkitError, match="^wandb cannot start .no network to start.; log in, or leave it out of report_to$"):
        Tracker(["wandb"], tmp_path).start()


@pytest.mark.parametrize("when", ["log", "finish"])
def test_a_tracker_that_fails_later_is_left_out(when, fake, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Fake, "broken", (when,))
    tracker = Tracker(["wandb"], tmp_path)
    for step in range(3):
        tracker.log({"x": 1.0}, step)
    tracker.finish()
    assert [record.getMessage() for record in caplog.records] == [
        f"wandb failed (no network to {when}); the run goes on without it"
    ]


def test_other_processes_track_nothing(fake, tmp_path, monkeypatch):
    from accelerate import PartialState

    monkeypatch.setattr(PartialState, "is_main_process", False)
    tracker = Tracker(["wandb"], tmp_path)
    assert tracker.first_step(str(tmp_path / "night_01"), 20) == 0
    tracker.log({"x": 1.0})
    assert not fake.started and not list(tmp_path.iterdir())


def test_without_trackers_nothing_is_written(tmp_path):
    tracker = Tracker([], tmp_path / "run")
    tracker.log({"x": 1.0}, tracker.first_step("night_01", 5))
    tracker.finish()
    tracking.log_night({"night": 1, "anchor_kl": 0.1})  # no run is under way
    assert not (tmp_path / "run").exists()


# -- real ones ----------------------------------------------------------------------------------------------------------
def scalars(folder):
    """Of all nights: {tag: [(step, value), ...]} of the one run in a folder."""
    (run,) = [path for path in (folder / "tracking").iterdir() if path.is_dir()]
    assert not [path for path in run.iterdir() if path.is_dir()]  # tensorboard would show each as a run
    events = EventAccumulator(str(run)).Reload()
    return {tag: [(one.step, round(one.value, 5)) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_one_run_of_all_nights_and_continues_it(tmp_path, monkeypatch):
    data = write_npz(tmp_path / "private digits")

    def run(name):
        arguments = ["--dataset", str(data), "--output_dir", str(tmp_path / name), "--hub_token", SECRET, *SMALL]
        (record,) = run_vision(*parse_vision(arguments))
        return record

    record = run("whole")
    found = scalars(tmp_path / "whole")
    steps = [step for step, _ in found["train/loss"]]
    assert steps == sorted(set(steps)) and len(steps) > 4  # one count, that a second night does not begin again
    nights = found["night/class_il"]
    assert [step for step, _ in found["night/night"]] == [12, 24] and steps[-1] <= 24
    assert [value for _, value in nights] == [round(row["class_il"], 5) for row in record.nights]
    assert found["run/class_il"] == [(24, round(record.metrics["class_il"], 5))]

    sleep = ImageLearner.sleep

    def killed(self, night, output_dir):
        log = sleep(self, night, output_dir)
        if night == 2:
            raise KeyboardInterrupt
        return log

    monkeypatch.setattr(ImageLearner, "sleep", killed)
    with pytest.raises(KeyboardInterrupt):
        run("parts")
    monkeypatch.setattr(ImageLearner, "sleep", sleep)
    run("parts")
    again = scalars(tmp_path / "parts")
    assert set(again["train/loss"]) == set(found["train/loss"]) and again["night/class_il"] == nights
    for path in (tmp_path / "parts" / "tracking").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes()


TRACKIO = """
import socket, sys
def refuse(self, address):
    raise AssertionError(f"something left the machine: {address}")
socket.socket.connect = refuse
from sleepkit.reporting.live.tracking import Tracker
for night in (1, 2):  # the second one after a kill
    tracker = Tracker(["trackio"], sys.argv[1], settings={"alpha": 0.5, "hub_token": "hf_planted_secret"})
    first = tracker.first_step(f"{sys.argv[1]}/night_{night:02d}", 10)
    tracker.log({"train/loss": 1.0 / night}, first + 10)
    tracker.log({"night/anchor_kl": 0.01 * night})
    tracker.finish()
"""


def test_trackio_has_one_run_of_all_nights_and_nothing_leaves_the_machine(tmp_path):
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", TRACKIO, str(tmp_path / "life")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    with sqlite3.connect(tmp_path / "trackio" / "sleepkit.db") as database:
        rows = list(database.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id"))
        (settings,) = {config for (config,) in database.execute("SELECT config FROM configs")}
    assert len({row[0] for row in rows}) == 1 and {row[1] for row in rows} == {"life"}
    assert [row[2] for row in rows] == [10, 10, 20, 20]
    assert b'"train/loss":0.5' in rows[2][3] and b'"night/anchor_kl":0.02' in rows[3][3]
    assert b"alpha" in settings and b"planted" not in settings
    assert read_json(tmp_path / "life" / "tracking" / "steps.json")["steps"] == {"night_01": [0, 10], "night_02": [10, 10]}
