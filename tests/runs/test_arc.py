"""ARC tasks, dreams of how to learn them, and the experiment on a tiny model."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_run import files  # noqa: F401  # a fixture

from sleepkit.errors import SleepkitError
from sleepkit.language.data.arc import AUGMENTATIONS, example, grid_text, left_out, load_arc, training_rows
from sleepkit.language.dreaming import trainer as dreaming_trainer
from sleepkit.language.dreaming.arc import ArcContext
from sleepkit.language.dreaming.dreams import Dream, Dreamed
from sleepkit.runs.arc import parse_arc, run_arc

ROOT = Path(__file__).parents[2]


def pair(a, b):
    return {"input": [[a, 0], [b, 0]], "output": [[0, a], [0, b]]}


TASKS = {f"task{k}": {"train": [pair(k, 1), pair(2, k), pair(k, k)], "test": [pair(3, k)]} for k in range(4, 8)}
TASKS["large"] = {"train": [pair(1, 2)], "test": [{"input": [[0] * 5] * 5, "output": [[1] * 5] * 5}]}


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    return tmp_path / "tasks.json"


def test_tasks_from_a_file_and_from_a_folder(dataset, tmp_path):
    tasks = load_arc(dataset)
    assert [task.name for task in tasks] == list(TASKS) and tasks[-1].cells == 25
    assert [task.name for task in load_arc(dataset, largest=4)] == list(TASKS)[:-1]
    assert [task.name for task in load_arc(dataset, ["task5", "task4"])] == ["task5", "task4"]
    (tmp_path / "folder").mkdir()
    for name, task in TASKS.items():
        (tmp_path / "folder" / f"{name}.json").write_text(json.dumps(task))
    assert {task.name for task in load_arc(tmp_path / "folder")} == set(TASKS)
    for text, message in (("{", "holds no ARC tasks"), ('{"a": {"train": []}}', "holds no ARC tasks"), ("{}", "no task whose")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SleepkitError, match=message):
            load_arc(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text(json.dumps({"a": {"train": [pair(10, 0)], "test": []}}))
    with pytest.raises(SleepkitError, match="holds no ARC tasks"):
        load_arc(tmp_path / "bad.json")
    with pytest.raises(SleepkitError, match=r"tasks has 'task', which .* has not; it has 5 tasks, for example 'task7'"):
        load_arc(dataset, ["task"])
    with pytest.raises(SleepkitError, match="tasks has 'task5' twice; name each task once"):  # learned from and held out
        load_arc(dataset, ["task5", "task4", "task5"])


GRID = [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([[1.9, 0]], "it has the value 1.9"),
        ([[1.0, 0]], "it has the value 1.0"),
        ([[True, 0]], "it has the value true"),
        ([["1", 0]], 'it has the value "1"'),
        ([[None, 0]], "it has the value null"),
        ([[10, 0]], "it has the value 10"),
        ([[-1, 0]], "it has the value -1"),
        ([[10**30, 0]], "it has the value 1000"),
        ([[float("nan"), 0]], "it has the value NaN"),
        ([[[1]], [[2]]], "it has the value [1]"),
        ([[1, 2], [3]], "its rows have 1 and 2 cells"),
        ([], "it has no rows"),
        ([[], []], "it has 2 x 0 cells"),
        ([[0] * 31], "it has 1 x 31 cells"),
        ([[0]] * 31, "it has 31 x 1 cells"),
        ([0, 1], "it is no list of rows"),
        ({"0": [0]}, "it is no list of rows"),
        ("01", "it is no list of rows"),
        (None, "it is no list of rows"),
    ],
)
@pytest.mark.parametrize("part", ["input", "output"])
def test_what_is_no_grid_is_named(tmp_path, grid, words, part):
    pairs = [{"input": GRID, "output": GRID}, {"input": GRID, "output": GRID} | {part: grid}]
    (tmp_path / "bad.json").write_text(json.dumps({"a": {"train": pairs, "test": pairs[:1]}}))
    with pytest.raises(SleepkitError) as error:
        load_arc(tmp_path / "bad.json")
    said = str(error.value)
    assert said.startswith(f"{tmp_path}/bad.json holds no ARC tasks (task 'a', train 1, {part}: {words}")
    assert "; a grid has 1 to 30 rows of equal length" in said and "\n" not in said


PAIR = {"input": GRID, "output": GRID}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"train": [PAIR], "test": [{"input": GRID}]}, "task 'a', test 0 has no output"),  # as in the challenges of Kaggle
        ({"train": [PAIR], "test": []}, "task 'a' has no list of pairs 'test'"),
        ({"train": [], "test": [PAIR]}, "task 'a' has no list of pairs 'train'"),
        ({"train": [PAIR]}, "task 'a' has no list of pairs 'test'"),
        ({"train": PAIR, "test": [PAIR]}, "task 'a' has no list of pairs 'train'"),
        ({"train": [GRID], "test": [PAIR]}, "task 'a', train 0 has no input"),
        ([PAIR], "task 'a' has no list of pairs 'train'"),
        (None, "task 'a' has no list of pairs 'train'"),
    ],
)
def test_what_is_no_task_is_named(tmp_path, task, words):
    (tmp_path / "bad.json").write_text(json.dumps({"a": task}))
    with pytest.raises(SleepkitError, match=words):
        load_arc(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.json", b"", "Expecting value"),
        ("bad.json", b"[]", "it is of type list"),
        ("bad.json", b"7", "it is of type int"),
        ("bad.json", b"\xff\xfe{", "can't decode byte"),
        ("bad.json", b"[" * 100_000, "nested too deeply"),
        ("bad.json", b'{"a": ' * 100_000, "nested too deeply"),
        ("bad.json", b'{"a": 1, "a": 2}', "'a' stands there twice"),
        ("bad.json", b'{"a": {"train": [], "test": [], "train": []}}', "'train' stands there twice"),
        ("bad.json", b"1" * 5000, "integer string conversion"),
        ("bad.json.gz", b"{}", "Not a gzipped file"),
        ("bad.json.gz", gzip.compress(json.dumps(TASKS).encode(), mtime=0)[:-20], "ended before the end-of-stream"),
        ("bad.json.gz", gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 20, "invalid"),
    ],
)
def test_files_that_hold_no_tasks(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SleepkitError, match=rf"{name} (holds no ARC tasks|cannot).*{words}.*; ") as error:
        load_arc(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_that_unpacks_to_more_than_all_tasks(tmp_path):
    with gzip.open(tmp_path / "bomb.json.gz", "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(b" " * 2**20)
    with pytest.raises(SleepkitError, match="bomb.json.gz has more than 67,108,864 characters; split it|unpacks to more"):
        load_arc(tmp_path / "bomb.json.gz")


def test_what_else_a_folder_has_is_skipped_and_said_to_be(tmp_path, capsys):
    for name in ("README.md", ".task.json", "notes.json.bak"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(SleepkitError, match="has no .json file; give a folder of <name>.json"):
        load_arc(tmp_path)
    (tmp_path / "task4.json").write_text(json.dumps(TASKS["task4"]))
    assert [task.name for task in load_arc(tmp_path)] == ["task4"]
    assert capsys.readouterr().out == "skipped, as no .json file: .task.json, README.md, notes.json.bak\n"
    (tmp_path / "package.json").write_text('{"name": "arc"}')
    with pytest.raises(SleepkitError, match="task 'package' has no list of pairs 'train'"):
        load_arc(tmp_path)


@pytest.mark.parametrize("path", ["", "nowhere", "a" * 300, "~nobody-at-all/arc", "a\0b"])
def test_paths_to_nothing(path):
    with pytest.raises(SleepkitError, match="^dataset .*; "):
        load_arc(path)


def test_augmentations_keep_the_rule(dataset):
    task = load_arc(dataset)[0]
    prompt, reply = left_out(task)[0]
    assert prompt.count("Input:") == 3 and prompt.endswith("Input:\n40\n10\nOutput:") and reply == "04\n01"
    assert example(task.train, task.test[0])[1] == grid_text(np.array([[0, 3], [0, 4]]))
    counts = {name: len(make(task, random.Random(0))) for name, make in AUGMENTATIONS.items()}
    assert counts == {"rotations": 3, "flips": 2, "transposition": 1, "colours": 1, "order": 1}
    for name, make in AUGMENTATIONS.items():  # here the rule is to swap columns; after a turn or transposition, rows
        for other in make(task, random.Random(0)):
            assert any(
                all(np.array_equal(swap(a), b) for a, b in [*other.train, *other.test]) for swap in (np.fliplr, np.flipud)
            ), name
    rows = training_rows(task, list(AUGMENTATIONS), most=8, seed=1)
    assert rows[:3] == left_out(task) and len(rows) == len(set(rows)) == 8
    assert rows == training_rows(task, list(AUGMENTATIONS), most=8, seed=1) and len(training_rows(task, [])) == 3


def test_a_dream_is_settings_in_json(dataset):
    context = ArcContext.of(load_arc(dataset)[0], rows=5)
    assert context.prompt("settings")[2]["content"].count("Output:") == 3 and len(context.questions) == 1
    said = 'I would use {"augmentations": ["flips", "flips"], "learning_rate": 0.002, "steps": 7} here.'
    one = context.read("settings", said, ended=True)
    assert isinstance(one, Dream) and one.settings == {"learning_rate": 0.002, "steps": 7.0} and len(one.rows) == 5
    for text, reason in (
        ("no idea", "unreadable"),
        ('{"augmentations": 3, "learning_rate": 0.002, "steps": 7}', "unreadable"),
        ('{"augmentations": ["flips"], "learning_rate": 0.002}', "unreadable"),
        ('{"augmentations": ["zoom"], "learning_rate": 0.002, "steps": 7}', "out of range"),
        ('{"augmentations": [], "learning_rate": 2, "steps": 7}', "out of range"),
        ('{"augmentations": [], "learning_rate": 0.002, "steps": 999}', "out of range"),
    ):
        assert context.read("settings", text, ended=True) == reason


def test_the_experiment(files, dataset, tmp_path, monkeypatch):  # noqa: F811
    from test_run import command

    def dream(model, tokenizer, contexts, styles, *_):
        texts = (
            '{"augmentations": ["flips"], "learning_rate": 0.005, "steps": 2}',
            '{"augmentations": [], "learning_rate": 1e-5, "steps": 1}',
        )
        return [Dreamed([context.read(styles[0], text, True) for text in texts]) for context in contexts]

    monkeypatch.setattr(dreaming_trainer, "dream", dream)
    given = command(files, tmp_path / "run")[1:]
    model = given[given.index("--model") + 1]
    arguments = f"""--model {model} --dataset {dataset} --arc_tasks 2 --dream_held_out 1 --largest_grid 4 --dream_rounds 1
        --dream_keep_top 2 --trial_rank 2 --dreamer_rank 2 --trial_rows 4 --use_cpu true --output_dir {tmp_path}/run""".split()
    record = run_arc(*parse_arc(arguments))
    names = ["share_positive_round_1", "share_positive_held_out_round_1", "share_positive_held_out_round_2", "solved_in_context"]
    names += ["solved_round_1", "solved_held_out_round_2"]
    assert all(0 <= record.metrics[name] <= 1 for name in names)
    assert (tmp_path / "run" / "rewards.png").is_file()
    dreams = (tmp_path / "run" / "dreams" / "round_1" / "context_000.jsonl").read_text().splitlines()
    assert {json.loads(line)["settings"]["steps"] for line in dreams} == {1.0, 2.0}
    for change, message in ((["--arc_tasks", "9"], "10 are wanted"), (["--dream_rounds", "0"], "dream_rounds is 0")):
        with pytest.raises(SleepkitError, match=message):
            run_arc(*parse_arc([*arguments, "--output_dir", str(tmp_path / "other"), *change]))
    with pytest.raises(SleepkitError, match="dataset is missing"):
        parse_arc([])


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "configs" / "arc").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_parses_to_what_it_says(path):
    args, config = parse_arc(["--config", str(path)])
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        assert next(getattr(part, key) for part in (args, args.dreaming, config) if hasattr(part, key)) == value, key
    assert config.output_dir == f"runs/arc_{path.stem}"
