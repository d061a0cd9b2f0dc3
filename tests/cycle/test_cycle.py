"""The cycle with a small learner: the matrix, rollback, and that a run killed anywhere ends as one that was not."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sleepkit.cycle import cycle as cycle_module
from sleepkit.cycle.cycle import SleepCycle
from sleepkit.cycle.gate import RetentionGate
from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience, Question
from sleepkit.reporting.results import read_results
from sleepkit.utils.files import read_json
from sleepkit.utils.sealed import seal
from sleepkit.utils.states import newest_state

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
        examples = folder / "examples.json"
        if not examples.exists():
            examples.write_text(json.dumps(torch.rand(4).tolist()))
        self.bomb.tick()
        steps = json.loads(examples.read_text())
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
    monkeypatch.setattr(cycle_module, "write_report", lambda folder: None)


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
        skipped = ("seconds", "seconds_per_night", "peak_memory_bytes", "hardware", "versions", "plan")
        return {key: timeless(item) for key, item in value.items() if key not in skipped}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(folder):
    """Everything that a finished run leaves."""
    newest = newest_state(folder / "state")
    parts = {path.name: path.read_bytes() for path in newest.iterdir() if path.name not in ("cycle.json", "MANIFEST.json")}
    return timeless(read_results(folder)), read_json(folder / "answers.json"), timeless(read_json(newest / "cycle.json")), parts


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
        monkeypatch.setattr("sleepkit.cycle.state.write_json", around(cycle_module.write_json))

    return count


@pytest.mark.usefixtures("undrawn")
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
        assert sorted(path.name for path in (folder / "state").iterdir()) == ["night_02", "night_03"]


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


def flip(path):
    """One bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_a_flipped_bit_in_any_file_of_the_state_is_never_taken(tmp_path, capsys):
    make(tmp_path / "whole").run()
    expected = outcome(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole" / "state" / "night_03").iterdir())
    assert names == ["MANIFEST.json", "cycle.json", "experiences.jsonl", "replay.json", "skills.safetensors"]
    for name in names:
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        flip(tmp_path / name / "state" / "night_03" / name)
        make(tmp_path / name).run()
        said = capsys.readouterr().out
        assert "night_03 is damaged (" in said and "the state before it is used" in said and "2 of 3 nights are done" in said
        assert outcome(tmp_path / name) == expected
    for night in ("night_02", "night_03"):
        flip(tmp_path / "whole" / "state" / night / "cycle.json")
    with pytest.raises(SleepkitError, match="has no state that is whole; start anew with --overwrite true"):
        make(tmp_path / "whole").run()
    make(tmp_path / "whole", overwrite=True).run()
    assert outcome(tmp_path / "whole") == expected


def test_a_state_of_another_version_is_one_line(tmp_path):
    make(tmp_path).run()
    for state in (tmp_path / "state").iterdir():
        (state / "cycle.json").write_text('{"run": {}}')
        seal(state)
    with pytest.raises(SleepkitError, match="is of another version"):
        make(tmp_path).run()


def life(folder, stream, learner=None, **options):
    """A day of a life that grows."""
    options = {"growing": True, "changeable": ("alpha",), **options}
    learner = learner or FakeLearner()
    return SleepCycle(learner, stream, output_dir=folder, **{"seed": 3, "config": {"alpha": 0.5, "width": 8}, **options})


def test_the_next_day_is_slept_on_alone_and_keeps_all_that_was(tmp_path, capsys):
    first = life(tmp_path / "life", STREAM[:2]).run()
    learner = FakeLearner()
    second = life(tmp_path / "life", STREAM, learner, config={"alpha": 1.0, "width": 8}).run()
    assert "awake: 1 more experiences, 4 questions" in capsys.readouterr().out
    assert learner.today is STREAM[2] and [night["night"] for night in second.nights] == [1, 2, 3]
    assert second.nights[:2] == first.nights and second.accuracy_matrix[1] == [*first.accuracy_matrix[1], None]
    assert [day["first_night"] for day in second.days] == [1, 3] and second.days[1]["config"]["alpha"] == 1.0
    at_once = life(tmp_path / "at_once", STREAM).run()
    assert second.accuracy_matrix[2] == at_once.accuracy_matrix[2]
    assert second.metrics["bwt"] == at_once.metrics["bwt"] and second.metrics["recovery"] == at_once.metrics["recovery"]
    again = life(tmp_path / "life", STREAM, FakeLearner(Bomb(1)), config={"alpha": 1.0, "width": 8}).run()
    assert timeless(again.to_dict()) == timeless(second.to_dict())


@pytest.mark.parametrize(
    ("size", "said"), [(8, "a step takes 16 items from here on, where it took 8: there are 2 processes"), (4, "")]
)
def test_a_run_on_more_processes_says_what_a_step_takes(size, said, tmp_path, capsys):
    life(tmp_path, STREAM[:2], config={"per_device_train_batch_size": 8}).run()
    cycle = life(tmp_path, STREAM, config={"per_device_train_batch_size": size}, changeable=("per_device_train_batch_size",))
    cycle.ranks = SimpleNamespace(num_processes=2, is_main_process=True, wait_for_everyone=lambda: None)
    record = cycle.run()
    assert [line.startswith(said) for line in capsys.readouterr().out.splitlines() if "a step takes" in line] == [True] * bool(
        said
    )
    assert [night["processes"] for night in record.nights] == [1, 1, 2]


def test_a_next_day_killed_at_any_event_equals_one_that_was_not(tmp_path, counted_writes):
    counted_writes(Bomb())
    life(tmp_path / "first", STREAM[:2]).run()
    whole = Bomb()
    counted_writes(whole)
    shutil.copytree(tmp_path / "first", tmp_path / "whole")
    life(tmp_path / "whole", STREAM, FakeLearner(whole)).run()
    for event in range(1, whole.count + 1):
        folder, bomb = tmp_path / f"killed_{event}", Bomb(event)
        shutil.copytree(tmp_path / "first", folder)
        counted_writes(bomb)
        with pytest.raises(Killed):
            life(folder, STREAM, FakeLearner(bomb)).run()
        counted_writes(Bomb())
        life(folder, STREAM).run()
        assert outcome(folder) == outcome(tmp_path / "whole"), f"killed at event {event}"


@pytest.mark.parametrize(
    ("stream", "options", "words"),
    [
        (STREAM, {"config": {"alpha": 0.5, "width": 9}}, "config.width is 8 there and 9 here"),
        (STREAM, {"seed": 4}, "seed is 3 there and 4 here"),
        (STREAM, {"inputs": {"model": "b"}}, "inputs.model is None there and 'b' here"),
        (STREAM[:2], {"config": {"alpha": 1.0, "width": 8}}, "config.alpha is 0.5 there"),  # nothing new: an experiment again
        (STREAM[1:], {}, "experiences.1 is 'Ada' there and 'Bert' here"),
        (STREAM[:1], {}, "experiences.2 is 'Bert' there and missing here"),
        (STREAM, {"growing": False}, "experiences.3 is missing there and 'Cleo' here"),
    ],
)
def test_what_a_next_day_may_not_change(tmp_path, stream, options, words):
    life(tmp_path, STREAM[:2]).run()
    before = outcome(tmp_path)
    with pytest.raises(SleepkitError, match=words):
        life(tmp_path, stream, **options).run()
    assert outcome(tmp_path) == before


def test_settings_stay_until_the_nights_of_a_day_are_slept(tmp_path):
    with pytest.raises(Killed):
        life(tmp_path, STREAM[:2], FakeLearner(Bomb(18))).run()
    with pytest.raises(SleepkitError, match="config.alpha is 0.5 there and 1.0 here"):
        life(tmp_path, STREAM, config={"alpha": 1.0, "width": 8}).run()
    assert len(life(tmp_path, STREAM).run().nights) == 3


def test_experiences_that_were_not_slept_on_may_still_change(tmp_path):
    """A document that was corrected before its night is simply the corrected one."""
    with pytest.raises(Killed):
        life(tmp_path / "killed", STREAM[:2], FakeLearner(Bomb(20))).run()
    assert len(read_json(newest_state(tmp_path / "killed" / "state") / "cycle.json")["nights"]) == 1
    life(tmp_path / "killed", [STREAM[0], STREAM[2]]).run()
    life(tmp_path / "whole", [STREAM[0], STREAM[2]]).run()
    killed, whole = (timeless(read_results(tmp_path / name)) for name in ("killed", "whole"))
    assert killed["accuracy_matrix"][1] == whole["accuracy_matrix"][1] and killed["metrics"]["bwt"] == whole["metrics"]["bwt"]


def test_what_is_replaced_is_not_asked_any_more_and_judges_nothing(tmp_path):
    life(tmp_path, STREAM[:2]).run()
    learner = FakeLearner()
    record = life(tmp_path, STREAM, learner, replaced={0: 2}).run()
    assert record.accuracy_matrix[2][0] is None and None not in record.accuracy_matrix[2][1:]
    a = record.accuracy_matrix
    assert record.metrics["bwt"] == pytest.approx(a[2][1] - a[1][1])
    assert record.metrics["faa"] == pytest.approx((a[2][1] + a[2][2]) / 2)
    answers = read_json(tmp_path / "answers.json")
    assert "final" not in answers[0] and "after" in answers[0] and "final" in answers[-1]


def test_own_questions_are_metrics_rows_and_examples(tmp_path):
    class Asking(FakeLearner):
        def sleep(self, night, output_dir):
            right = float(night != 2)
            asked = {
                "question": f"q{night}?",
                "gold": "a",
                "before": "b",
                "after": "a",
                "right_before": 0.0,
                "right_after": right,
            }
            share = {"before": {"held_out": 0.0, "held_out_n": 1}, "after": {"held_out": right, "held_out_n": 1}}
            return super().sleep(night, output_dir) | share | {"self_test": [asked]}

    record = make(tmp_path, Asking()).run()
    assert [night["committed"] for night in record.nights] == [True, False, True]
    assert record.nights[0]["held_out_before"] == 0.0 and record.nights[0]["held_out_after"] == 1.0
    metrics = record.metrics
    assert (metrics["self_test_before"], metrics["self_test_after"], metrics["self_test_n"]) == (0.0, pytest.approx(2 / 3), 3)
    assert [row["night"] for row in record.examples if row.get("own")] == [1, 2, 3]


def test_overwrite_deletes_what_the_run_wrote_and_nothing_else(tmp_path):
    make(tmp_path).run()
    mine = [tmp_path / name for name in ("holiday.png", "notes/today.md", "night_01/thesis.tex", "state/photo.jpg")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    make(tmp_path, overwrite=True, seed=4).run()
    assert all(path.read_text() == "mine" for path in mine)
    assert read_results(tmp_path)["seed"] == 4


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", ["model/thesis.tex", "pictures/holiday.png", "report.md", "night_07/x", "results.json"])
def test_a_folder_with_files_of_other_origin_is_refused(tmp_path, name, overwrite):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(SleepkitError, match="holds (no run of sleepkit, but|the results of another run)"):
        make(tmp_path / "mine", overwrite=overwrite).run()
    assert path.read_text() == "mine" and {one.name for one in path.parent.iterdir()} <= {path.name, ".lock"}


def test_pictures_and_notes_of_other_origin_may_lie_beside_a_run(tmp_path):
    (tmp_path / "holiday.png").write_text("mine")
    make(tmp_path, overwrite=True).run()
    make(tmp_path, overwrite=True).run()
    assert (tmp_path / "holiday.png").read_text() == "mine"


def test_a_full_disk_is_seen_before_the_first_night(tmp_path):
    bomb = Bomb()
    with pytest.raises(SleepkitError, match="free, the run needs"):
        make(tmp_path / "new", FakeLearner(bomb), needed_bytes=2**62).run()
    assert bomb.count == 0 and not (tmp_path / "new").exists()


def test_an_empty_stream_is_refused(tmp_path):
    with pytest.raises(SleepkitError, match="no experience"):
        SleepCycle(FakeLearner(), [], output_dir=tmp_path)
