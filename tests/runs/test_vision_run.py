"""A whole run on images, from the command line: what it leaves, that it resumes exactly, and one line for what is wrong."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from launch import ROOT, command, together
from safetensors.torch import load_file
from tiny_images import write_npz
from transformers import AutoModelForImageClassification

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import read_results
from sleepkit.runs.arguments.images import parse_mygo, parse_vision
from sleepkit.runs.compare import run_comparison, with_intransigence
from sleepkit.runs.images import run_vision
from sleepkit.trainers.images import METHODS
from sleepkit.utils.files import read_json
from sleepkit.utils.states import newest_state
from sleepkit.vision.incremental.learner import ImageLearner
from sleepkit.vision.mygo.generators import DreamGenerator

RECIPES = [path for method in ("vision", "mygo") for path in sorted((ROOT / "recipes" / "configs" / method).glob("*.yaml"))]
SMALL = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 4 --per_device_train_batch_size 8
    --learning_rate 0.01 --replay_batch_size 8 --buffer_size 12 --fisher_images 4 --vae_hidden 8 --vae_latent 2 --vae_samples 2
    --logging_steps 5 --use_cpu""".split()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def whole_runs(digits, tmp_path_factory):
    """Folders of runs that nothing disturbs, by method."""
    folders = {}

    def of(method):
        if method not in folders:
            folders[method] = tmp_path_factory.mktemp(f"whole_{method}")
            run(digits, folders[method], "--method", method)
        return folders[method]

    return of


def run(digits, folder, *more):
    return run_vision(*parse_vision(["--dataset", str(digits), "--output_dir", str(folder), *SMALL, *more]))


def test_what_a_run_leaves(digits, tmp_path, capsys):
    (record,) = run(digits, tmp_path, "--probe_images", "20")
    found = read_results(tmp_path)
    assert found["metrics"] == record.metrics and found["method"] == "er"
    assert np.array(found["accuracy_matrix"]).shape == (2, 2) and found["accuracy_matrix"][0][1] is None
    assert set(found["matrices"]) == {"task_il", "probe"} and None not in found["matrices"]["probe"][0]
    m = found["metrics"]
    assert m["class_il"] == m["faa"] == pytest.approx(np.mean(found["accuracy_matrix"][1]))
    assert m["task_il"] == pytest.approx(np.mean(found["matrices"]["task_il"][1])) and m["task_il"] >= m["class_il"]
    assert m["bwt"] == pytest.approx(found["accuracy_matrix"][1][0] - found["accuracy_matrix"][0][0]) == -m["forgetting"]
    assert {"task_il_bwt", "aia", "fwt_probe", "train_flops", "cpu_seconds"} <= m.keys() and "fwt" not in m
    assert m["bytes"] == 12 * (64 + 8) and m["nights_committed"] == 2
    for name in ("report.md", "accuracy_matrix.png", "task_il_matrix.png", "probe_matrix.png", "retention.png", "training.png"):
        assert (tmp_path / name).is_file(), name
    assert "class-incremental) **" in (tmp_path / "report.md").read_text()
    said = capsys.readouterr().out
    assert "awake: 2 experiences, 32 test images" in said and "night 2/2: class il" in said and "written to" in said
    card = (tmp_path / "model" / "README.md").read_text()
    assert "image-classification" in card and str(digits) not in card
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    assert model.config.id2label == {0: "0", 1: "1", 2: "2", 3: "3"}


def test_what_a_run_of_mygo_leaves(digits, tmp_path):
    few = "--generator_hidden 8 --generator_latent 2 --generator_epochs 10 --sleep_steps 20 --dreams 80".split()
    command = ["--dataset", str(digits), "--output_dir", str(tmp_path), *SMALL, *few]
    (record,) = run_vision(*parse_mygo(command))
    promised = {"task_il", "class_il", "bwt", "forgetting", "dream_fidelity", "dream_diversity", "bytes", "sleep_change"}
    assert promised <= record.metrics.keys() and record.method == "mygo" and record.metrics["extractor_change"] > 0
    assert "(dreams/night_02.png)" in (tmp_path / "report.md").read_text()
    assert {path.parent.name for path in (tmp_path / "night_01").glob("*/model.safetensors")} == {"fast", "generator"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "`generators/night_01` to `night_02`" in card
    kept = DreamGenerator.from_pretrained(tmp_path / "model" / "generators" / "night_02").eval()
    assert len(kept.dream(torch.tensor([0, 1]), torch.Generator())) == 2
    for night in ("night_99", "night_100"):  # nights are counted, not spelt
        shutil.copytree(tmp_path / "night_02" / "generator", tmp_path / night / "generator")
    run_vision(*parse_mygo(command))
    assert "`generators/night_01` to `night_100`" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(SleepkitError, match="run recipes/mygo.py instead"):
        run(digits, tmp_path / "other", "--method", "mygo")


@pytest.mark.usefixtures("undrawn")
def test_domain_and_task_scenarios(digits, tmp_path):
    (record,) = run(digits, tmp_path / "domain", "--scenario", "domain", "--domains", "permutation", "--augmentation", "none")
    assert record.matrices == {} and {"domain_il", "fwt"} <= record.metrics.keys() and "class_il" not in record.metrics
    assert None not in record.accuracy_matrix[0]
    (record,) = run(digits, tmp_path / "task", "--scenario", "task", "--class_order", "3", "1", "0", "2")
    assert set(record.matrices) == {"class_il"} and record.metrics["faa"] == record.metrics["task_il"]
    assert record.nights[0]["experience"] == "3, 1"


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", ["der", "ewc", "generative"])
@pytest.mark.parametrize("moment", ["before_training", "train", "after_training", "save"])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(digits, whole_runs, tmp_path, monkeypatch, method, moment):
    whole = whole_runs(method)
    module, name = METHODS[method].rsplit(".", 1)
    learner = getattr(sys.modules[f"sleepkit.vision.{module}"], name)
    original, calls = getattr(learner, moment), []

    def dies_the_second_time(self, *args):
        result = original(self, *args)
        calls.append(moment)
        if len(calls) == (3 if moment == "save" else 2):  # the state is not saved before the first night
            raise Killed
        return result

    monkeypatch.setattr(learner, moment, dies_the_second_time if moment != "save" else _dying_save(ImageLearner.save, calls))
    with pytest.raises(Killed):
        run(digits, tmp_path / "killed", "--method", method)
    monkeypatch.undo()
    assert len(read_json(newest_state(tmp_path / "killed" / "state") / "cycle.json")["nights"]) == 1
    run(digits, tmp_path / "killed", "--method", method)
    folders = (whole, tmp_path / "killed")
    weights = [(folder / "state" / "night_02" / "learner.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    matrices = [read_results(folder)["accuracy_matrix"] for folder in folders]
    assert matrices[0] == matrices[1]


def _dying_save(save, calls):
    def dies_the_second_time(self, folder):
        save(self, folder)
        calls.append("save")
        if len(calls) == 2:
            raise Killed

    return dies_the_second_time


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_is_read_back_and_another_is_refused(digits, tmp_path):
    first = run(digits, tmp_path)[0]
    assert run(digits, tmp_path)[0].accuracy_matrix == first.accuracy_matrix
    with pytest.raises(SleepkitError, match="config.buffer_size is 12 there and 10 here"):
        run(digits, tmp_path, "--buffer_size", "10")
    other = write_npz(tmp_path / "other", size=9)
    with pytest.raises(SleepkitError, match="belongs to another run"):
        run(other, tmp_path)


def test_intransigence_is_measured_against_joint_training_of_the_same_seed():
    def record(method, seed, *learned):
        return {
            "method": method,
            "seed": seed,
            "accuracy_matrix": [[learned[0], None], [0.1, learned[1]]],
            "metrics": {"faa": 0.5},
        }

    records = [record("er", 0, 0.6, 0.5), record("er", 1, 0.6, 0.5), record("joint", 1, 0.9, 0.7), record("er", 2, 0.8, 0.7)]
    found = with_intransigence([*records, record("joint", 2, 0.8, 0.9)])
    assert [row["metrics"].get("intransigence") for row in found] == [None, pytest.approx(0.25), None, pytest.approx(0.1), None]
    assert all(row["metrics"]["faa"] == 0.5 for row in found)


@pytest.mark.usefixtures("undrawn")
def test_comparison(digits, tmp_path, capsys):
    command = [
        "--dataset",
        str(digits),
        "--output_dir",
        str(tmp_path),
        *SMALL,
        "--methods",
        "finetune",
        "joint",
        "--seeds",
        "0",
        "1",
    ]
    table = run_comparison(command)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0][:4] == ["method", "seeds", "class-IL", "task-IL"]
    assert rows[0][4:] == ["BWT", "forgetting", "intransigence", "bytes", "CPU seconds", "seconds"]
    assert [row[:2] for row in rows[2:]] == [["finetune", "2"], ["joint", "2"]]
    joint, own = (read_results(tmp_path / method / "seed_1")["accuracy_matrix"] for method in ("joint", "finetune"))
    assert rows[3][6] == "–" and np.isfinite(float(rows[2][6].split()[0]))
    assert (tmp_path / "comparison.md").read_text().strip() == table and joint != own
    assert run_comparison(command) == table
    assert run(digits, tmp_path / "joint" / "seed_1", "--method", "joint", "--seed", "1")[0].accuracy_matrix == joint
    with pytest.raises(SleepkitError, match="methods has 'er2'; use any of finetune"):
        run_comparison([*command[:-6], "--methods", "joint", "er2"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "mer"), "method is 'mer'; use one of finetune, joint"),
        (("--scenario", "online"), "scenario is 'online'; use one of class, task, domain"),
        (("--experiences", "3"), "does not divide 4 classes"),
        (("--class_order", "upwards"), "class_order is 'upwards'; use 'natural', 'random' or all labels"),
        (("--class_order", "0", "1", "2", "4"), "or each of 0..3 once"),
        (("--buffer_size", "97"), "buffer_size is 97, the stream has 96 training images"),
        (("--buffer_policy", "oldest"), "buffer_policy is 'oldest'; use one of reservoir"),
        (("--channels", "2"), "channels is 2; give 1"),
        (("--save_strategy", "steps"), "a run goes on from its last night"),
        (("--backbone", "./nowhere"), "backbone './nowhere' cannot be loaded"),
        (("--test_dataset", "./nowhere.npz"), "does not exist"),
        (("--bufer_size", "3"), "unknown argument '--bufer_size'; did you mean --buffer_size"),
        (("--ewc_decay", "2"), "ewc_decay is 2.0; give a number from 0 to 1"),
    ],
)
def test_bad_input_is_one_line_before_training(digits, tmp_path, more, words):
    with pytest.raises(SleepkitError) as error:
        run(digits, tmp_path / "run", *more)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run" / "state").exists()


def test_zero_3_is_refused(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(SleepkitError, match="whole weights, which ZeRO-3 splits; use ZeRO-2 or less"):
        run(digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipes(path):
    args, config = {"vision": parse_vision, "mygo": parse_mygo}[path.parent.name](["--config", str(path)])
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in recipe.items():
        found = getattr(args if hasattr(args, key) else config, key)
        assert found == (float(value) if key == "learning_rate" else value), key
    assert Path(config.output_dir) == Path("runs") / f"{path.parent.name}_{path.stem}"
    assert args.dataset.count("/") == 1 and not Path(args.dataset).is_absolute()


SI = ["vision_baseline.py", "--method", "si"]
MYGO = ["mygo.py", *"--replay_space features --generator gaussian --top_size 8 --sleep_steps 20 --dreams 80".split()]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.distributed
@pytest.mark.parametrize("recipe", [SI, pytest.param(MYGO, marks=pytest.mark.slow)], ids=lambda recipe: recipe[0])
def test_two_processes_learn_what_one_learns(digits, tmp_path, recipe):
    """SI's path too: its gradients are taken from each rank.  And dreams: they are the same on all ranks."""
    states, parse = {}, parse_mygo if recipe is MYGO else parse_vision
    for way in ("one", "ddp", "zero2"):
        given = ["--dataset", digits, "--output_dir", tmp_path / way, *SMALL, *recipe[1:]]
        given += ["--per_device_train_batch_size", 8 if way == "one" else 4]
        if way == "one":
            run_vision(*parse(list(map(str, given))))
        else:
            together(command(f"recipes/{recipe[0]}", *given), stage=2 if way == "zero2" else None)
        states[way] = load_file(tmp_path / way / "state" / "night_02" / "learner.safetensors")
    for way in ("ddp", "zero2"):
        for name, values in states["one"].items():
            torch.testing.assert_close(states[way][name], values, atol=1e-4, rtol=1e-3, msg=f"{way}: {name}")
