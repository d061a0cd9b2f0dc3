"""The cycle with a small learner: the matrix, rollback, and that a run killed anywhere ends as one that was not."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sleepkit import cycle as cycle_module
from sleepkit.cycle import SleepCycle
from sleepkit.errors import SleepkitError
from sleepkit.gate import RetentionGate
from sleepkit.language.data.experience import Experience, Question
from sleepkit.results import read_json, read_results

STREAM = [
    Experience(name, [f"{name} is here."], [Question(f"{name}, question {k}?", f"{name} {k}") for k in range(count)])
    for name, count in (("Ada", 4), ("Bert", 2), ("Cleo", 4))
]


class Killed(BaseException):
    """Stands for a signal: nothing of ours may catch it."""


class Bomb:
    """Counts the events of a run and goes off at one of them; 0 never does."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.count = at, 0

    def tick(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Killed


class FakeLearner:
    """One skill per experience: a night raises that of its own, by random steps, and lowers the others a little."""

    is_main = True

    def __init__(self, bomb: Bomb | None = None) -> None:
        self.skills = torch.zeros(len(STREAM), dtype=torch.float64)
        self.today: Experience | None = None
        self.replay: list[float] = []
        self.bomb = bomb or Bomb()

    def wake(self, experience):
        self.bomb.tick()
        self.today = experience

    def sleep(self, night, output_dir):
        folder = Path(output_dir) / f"night_{night:02d}"
        folder.mkdir(exist_ok=True)
        self.bomb.tick()
        material = folder / "material.json"
        if not material.exists():
            material.write_text(json.dumps(torch.rand(4).tolist()))
        self.bomb.tick()
        steps = json.loads(material.read_text())
        if self.replay:
            steps.append(self.replay[-1])
        self.skills *= 0.9
        self.bomb.tick()  # dies with half-changed weights
        self.skills[night - 1] += sum(steps) / 10
        self.replay.append(steps[0])
        history = [{"step": step + 1, "loss": 1 - value} for step, value in enumerate(steps)]
        return {"history": history, "items": len(steps), "train_tokens": 10 * len(steps), "seconds": 1.0}

    def evaluate(self, experiences, in_context=False):
        return [self.ask(experience, in_context) for experience in experiences]

    def ask(self, experience, in_context):
        self.bomb.tick()
        skill = 1.0 if in_context else min(1.0, 0.1 + 0.5 * float(self.skills[STREAM.index(experience)]))
        answers = [f"{'read' if in_context else 'say'} {skill:.6f}" for _ in experience.questions]
        return SimpleNamespace(contained=skill, token_f1=skill / 2, answers=answers, n=len(answers))

    def snapshot(self):
        self.bomb.tick()
        return {"skills": self.skills.clone()}

    def restore(self, snapshot):
        self.skills = snapshot["skills"].clone()

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"skills": self.skills}, folder / "skills.safetensors")
        self.bomb.tick()
        (folder / "replay.json").write_text(json.dumps(self.replay))

    def load(self, folder):
        self.skills = load_file(folder / "skills.safetensors")["skills"]
        self.replay = read_json(folder / "replay.json")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(cycle_module.report, "write_report", lambda folder: None)


def make(folder, learner=None, **options):
    learner = learner or FakeLearner()

    def anchors():
        learner.bomb.tick()
        return {"anchor_kl": 0.01 * float(learner.skills.sum()), "anchor_accuracy": 0.75}

    defaults = {"gate": RetentionGate(), "seed": 3, "config": {"alpha": 0.5}}
    return SleepCycle(learner, STREAM, anchors, output_dir=folder, **{**defaults, **options})


def timeless(value):
    """Without what time and machine decide."""
    if isinstance(value, dict):
        skipped = ("seconds", "seconds_per_night", "peak_memory_bytes", "hardware", "versions")
        return {key: timeless(item) for key, item in value.items() if key not in skipped}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(folder):
    """Everything that a finished run leaves."""
    state = read_json(folder / "state" / "cycle.json")
    learner = {path.name: path.read_bytes() for path in (folder / "state" / state["learner"]).iterdir()}
    return timeless(read_results(folder)), read_json(folder / "answers.json"), timeless(state), learner


def test_matrix_and_metrics(tmp_path, capsys):
    record = make(tmp_path).run()
    a = np.array(record.accuracy_matrix)
    assert a.shape == (3, 3)
    weights = np.array([4, 2, 4]) / 10  # questions are pooled
    m = record.metrics
    assert m["closed_book_before"] == pytest.approx(0.1) and m["in_context"] == pytest.approx(1.0)
    assert m["closed_book_after"] == pytest.approx(a.diagonal() @ weights)
    assert m["closed_book_final"] == pytest.approx(a[-1] @ weights)
    assert m["recovery"] == pytest.approx((a.diagonal() @ weights - 0.1) / 0.9)
    assert m["recovery_final"] == pytest.approx((a[-1] @ weights - 0.1) / 0.9)
    assert m["recovery_per_experience"] == pytest.approx(np.mean((a.diagonal() - 0.1) / 0.9))
    assert m["closed_book_after_f1"] == pytest.approx(m["closed_book_after"] / 2)
    assert m["bwt"] == pytest.approx(np.mean(a[-1, :2] - a.diagonal()[:2])) and m["bwt"] < 0
    assert m["retention_first"] == pytest.approx(a[-1, 0] / a[0, 0])
    assert m["faa"] == pytest.approx(a[-1].mean())
    assert m["fwt"] == pytest.approx(0.0)
    assert m["nights_committed"] == 3 and m["train_tokens"] == 40 + 50 + 50
    assert m["answer_length_words"] == 2
    assert m["anchor_kl"] == pytest.approx(max(night["anchor_kl"] for night in record.nights))
    assert m["anchor_accuracy_before"] == m["anchor_accuracy_after"] == 0.75
    assert {row["night"] for row in record.history} == {1, 2, 3}
    assert record.examples[0] | {"after": ""} == {
        "question": "Ada, question 0?",
        "gold": "Ada 0",
        "before": "say 0.100000",
        "after": "",
        "in_context": "read 1.000000",
    }
    assert len(read_json(tmp_path / "answers.json")) == 10
    assert read_results(tmp_path)["metrics"] == record.metrics
    assert "night 3/3: kept (anchor KL" in capsys.readouterr().out


def test_report_is_written(tmp_path, monkeypatch):
    monkeypatch.undo()
    make(tmp_path).run()
    assert "## Nights" in (tmp_path / "report.md").read_text() and (tmp_path / "accuracy_matrix.png").exists()


@pytest.fixture
def counted_writes(monkeypatch):
    """Makes each rename and each JSON file an event, before and after it."""

    def count(bomb):
        def around(function):
            def counted(*args, **kwargs):
                bomb.tick()
                function(*args, **kwargs)
                bomb.tick()

            return counted

        monkeypatch.setattr(cycle_module, "os", SimpleNamespace(replace=around(os.replace)))
        monkeypatch.setattr("sleepkit.cycle_state.write_json", around(cycle_module.results.write_json))

    return count


def test_a_run_killed_at_any_event_and_resumed_equals_the_uninterrupted_run(tmp_path, counted_writes):
    whole = Bomb()
    counted_writes(whole)
    make(tmp_path / "whole", FakeLearner(whole)).run()
    expected = outcome(tmp_path / "whole")
    assert whole.count > 50
    for event in range(1, whole.count + 1):
        folder = tmp_path / f"killed_{event}"
        bomb = Bomb(event)
        counted_writes(bomb)
        with pytest.raises(Killed):
            make(folder, FakeLearner(bomb)).run()
        counted_writes(Bomb())
        make(folder).run()
        assert outcome(folder) == expected, f"killed at event {event}"
        assert [path.name for path in (folder / "state").glob("*") if path.is_dir()] == ["night_03"]


def test_a_run_killed_twice(tmp_path):
    make(tmp_path / "whole").run()
    for event in (25, 9):
        with pytest.raises(Killed):
            make(tmp_path / "twice", FakeLearner(Bomb(event))).run()
    make(tmp_path / "twice").run()
    assert outcome(tmp_path / "twice") == outcome(tmp_path / "whole")


def test_a_finished_run_is_read_back_without_asking_the_learner(tmp_path):
    first = make(tmp_path).run()
    bomb = Bomb(1)
    again = make(tmp_path, FakeLearner(bomb)).run()
    assert bomb.count == 0
    assert timeless(again.to_dict()) == timeless(first.to_dict())


def test_seeds_differ_and_repeat(tmp_path):
    runs = [make(tmp_path / str(number), seed=seed).run() for number, seed in enumerate((3, 3, 4))]
    assert runs[0].accuracy_matrix == runs[1].accuracy_matrix != runs[2].accuracy_matrix


class Greedy(FakeLearner):
    """Spoils the anchors in its second night."""

    def sleep(self, night, output_dir):
        log = super().sleep(night, output_dir)
        if night == 2:
            self.skills += 100
        return log


def test_a_bad_night_is_rolled_back_bit_for_bit(tmp_path, capsys):
    learner, evenings = Greedy(), []
    snapshot = learner.snapshot
    learner.snapshot = lambda: evenings.append(snapshot()["skills"]) or snapshot()
    record = make(tmp_path, learner).run()
    assert [night["committed"] for night in record.nights] == [True, False, True]
    assert record.nights[1]["reason"].startswith("anchor KL") and record.nights[1]["anchor_kl"] > 1
    assert record.accuracy_matrix[1] == record.accuracy_matrix[0]
    assert record.metrics["nights_committed"] == 2
    assert record.metrics["anchor_kl"] < 0.05  # of the models that were kept
    assert torch.equal(evenings[1], evenings[2])  # before the second night, and after its rollback
    assert "night 2/3: rolled back (anchor KL" in capsys.readouterr().out


def test_no_gate_keeps_every_night(tmp_path):
    record = make(tmp_path, Greedy(), gate=None).run()
    assert [night["reason"] for night in record.nights] == ["no gate"] * 3
    assert record.metrics["anchor_kl"] > 1 and record.metrics["nights_committed"] == 3


def test_the_learners_own_questions_reach_the_gate(tmp_path):
    class Tired(FakeLearner):
        def sleep(self, night, output_dir):
            gain = 0.0 if night == 3 else 0.5
            return super().sleep(night, output_dir) | {"before": {"held_out": 0.1}, "after": {"held_out": 0.1 + gain}}

    record = make(tmp_path, Tired()).run()
    assert [night["committed"] for night in record.nights] == [True, True, False]
    assert "own questions 0.100 -> 0.100" in record.nights[2]["reason"]


def test_an_inexact_rollback_is_a_bug_and_stops_the_run(tmp_path):
    class Sloppy(Greedy):
        def restore(self, snapshot):
            self.skills = snapshot["skills"] + 1e-12

    with pytest.raises(RuntimeError, match="night 2/3 was rolled back but"):
        make(tmp_path, Sloppy()).run()


def test_experiences_without_questions_have_no_scores(tmp_path, monkeypatch):
    silent = [Experience("Dora", ["Dora is here."]), STREAM[0], STREAM[1]]
    monkeypatch.setitem(globals(), "STREAM", silent)
    record = SleepCycle(FakeLearner(), silent, output_dir=tmp_path).run()
    assert [row[0] for row in record.accuracy_matrix] == [None] * 3
    assert "closed_book_after" in record.metrics and "anchor_kl" not in record.metrics
    nothing = SleepCycle(FakeLearner(), silent[:1], output_dir=tmp_path / "nothing").run()
    assert nothing.accuracy_matrix == [[None]] and "recovery" not in nothing.metrics and nothing.examples == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"config": {"alpha": 1.0}}, "config.alpha is 0.5 there and 1.0 here"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"method": "lora"}, "method is 'knowledge seeding' there and 'lora' here"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path, other, words):
    make(tmp_path).run()
    before = outcome(tmp_path)
    with pytest.raises(SleepkitError, match=words) as error:
        make(tmp_path, **other).run()
    assert "--overwrite" in str(error.value) and "\n" not in str(error.value)
    assert outcome(tmp_path) == before
    (tmp_path / "mine.txt").write_text("stays")
    record = make(tmp_path, **other, overwrite=True).run()
    assert timeless(read_results(tmp_path)) == timeless(record.to_dict())
    assert (tmp_path / "mine.txt").exists()


def test_other_documents_are_another_run(tmp_path):
    make(tmp_path).run()
    with pytest.raises(SleepkitError, match="experiences.3"):
        SleepCycle(FakeLearner(), STREAM[:2], output_dir=tmp_path, seed=3, config={"alpha": 0.5}).run()


def test_results_of_something_else_and_forbidden_resume_are_refused(tmp_path):
    make(tmp_path / "run").run()
    with pytest.raises(SleepkitError, match="holds a run"):
        make(tmp_path / "run", resume=False).run()
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SleepkitError, match="results of another run"):
        make(tmp_path).run()


def test_damaged_state_is_one_line(tmp_path):
    make(tmp_path).run()
    (tmp_path / "state" / "cycle.json").write_text('{"run": {')
    with pytest.raises(SleepkitError, match="not valid JSON"):
        make(tmp_path).run()
    (tmp_path / "state" / "cycle.json").write_text('{"run": {}}')
    with pytest.raises(SleepkitError, match="damaged or of another version"):
        make(tmp_path).run()


def test_a_full_disk_is_seen_before_the_first_night(tmp_path):
    bomb = Bomb()
    with pytest.raises(SleepkitError, match="free, the run needs"):
        make(tmp_path / "new", FakeLearner(bomb), needed_bytes=2**62).run()
    assert bomb.count == 0 and not (tmp_path / "new").exists()


def test_an_empty_stream_is_refused(tmp_path):
    with pytest.raises(SleepkitError, match="no experience"):
        SleepCycle(FakeLearner(), [], output_dir=tmp_path)
