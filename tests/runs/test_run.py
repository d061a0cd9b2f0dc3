"""A whole run on a tiny model: from the command line to results, report, published folder and answers."""

import json

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli
from sleepkit.reporting.results import RunRecord, read_results
from sleepkit.runs.arguments.language import parse_baseline
from sleepkit.runs.baseline import BaselineTrainer
from sleepkit.runs.sleep import run_baseline

ROWS = [
    {
        "title": name,
        "context": f"{name} keeps a red lamp in the north tower. The tower was built by {builder} in {year}.",
        "questions": [{"question": f"Who built the tower of {name}?", "answer": builder}],
    }
    for name, builder, year in (("Ada", "Orla Finch", 1871), ("Bert", "Milo Hart", 1902), ("Cleo", "Ines Vole", 1930))
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    general = [{"prompt": f"name {k} things."} for k in range(4)]
    (folder / "general.jsonl").write_text("\n".join(map(json.dumps, general)))
    anchors = [{"prompt": "what is hot?", "answer": "fire"}, {"prompt": "say a word.", "answer": None}]
    (folder / "anchors.jsonl").write_text("\n".join(map(json.dumps, anchors)))
    return folder


def command(files, output, *more):
    text = f"""sleep --model {files}/base --dataset {files}/rows.jsonl --general_prompts {files}/general.jsonl
        --anchors {files}/anchors.jsonl --output_dir {output} --nights 2 --expert_slots 2 --expert_width 4 --use_cpu
        --max_steps 2 --per_device_train_batch_size 2 --context_max_tokens 300 --max_new_tokens 4 --general_items 2
        --general_tokens 4 --styles cloze recite --logging_steps 1 --no_gate"""
    return [*text.split(), *more]


def test_two_nights_from_the_command_line(files, tmp_path, capsys):
    assert cli.main(command(files, tmp_path / "run")) == 0
    shown = capsys.readouterr().out
    for part in ("awake: 2 experiences, 2 questions", "night 2/2: kept", "anchor KL, nats per token", "written to"):
        assert part in shown
    results = read_results(tmp_path / "run")
    assert results["method"] == "knowledge_seeding" and len(results["accuracy_matrix"]) == 2
    assert results["config"]["expert_width"] == 4 and results["config"]["styles"] == ["cloze", "recite"]
    for name in ("closed_book_before", "in_context", "closed_book_after", "anchor_kl", "anchor_accuracy_after", "faa"):
        assert isinstance(results["metrics"][name], float), name
    assert results["metrics"]["anchor_kl"] != 0 and results["history"]
    assert {path.name for path in (tmp_path / "run" / "model").iterdir()} == {
        "README.md",
        "expert_bank.json",
        "expert_bank.safetensors",
    }
    assert "## Nights" in (tmp_path / "run" / "report.md").read_text()
    assert cli.main(["ask", str(tmp_path / "run"), "who?", "--max_new_tokens", "2"]) == 0

    assert cli.main(command(files, tmp_path / "run")) == 0  # again: read back
    assert "2 of 2 nights are done already" in capsys.readouterr().out
    assert cli.main(command(files, tmp_path / "run", "--alpha", "0.25")) == 2
    assert "config.alpha is 0.5 there and 0.25 here" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_seeds_have_folders_and_a_comparison(files, tmp_path, capsys):
    assert cli.main(command(files, tmp_path, "--nights", "1", "--order", "random", "--seeds", "3", "4")) == 0
    assert read_results(tmp_path / "seed_3")["seed"] == 3 and read_results(tmp_path / "seed_4")["seed"] == 4
    assert "| knowledge_seeding | 2 |" in (tmp_path / "comparison.md").read_text()
    assert "seed 3" in capsys.readouterr().out
    nights = [read_results(tmp_path / f"seed_{seed}")["nights"][0]["experience"] for seed in (3, 4)]
    assert nights[0] != nights[1]  # the seed also draws the passages


def test_a_baseline_gets_the_same_data_and_model(files, tmp_path, monkeypatch, capsys):
    seen = []

    def train(trainer):
        seen.append(trainer)
        return RunRecord(trainer.method, 1, metrics={"recovery": 0.25})

    monkeypatch.setattr(BaselineTrainer, "train", train)
    given = command(files, tmp_path, "--method", "lora", "--nights", "3")[1:]  # more nights than experts
    assert run_baseline(*parse_baseline(given))[0].metrics == {"recovery": 0.25}
    (trainer,) = seen
    assert trainer.baseline == "lora" and len(trainer.passages) == 3 and len(trainer.general_prompts) == 4
    assert trainer.anchors.prompts[0]["answer"] == "fire" and trainer.given.baseline == "lora"
    assert "0.250" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--nights", "9"), "limit is 9"),
        (("--context_max_tokens", "600"), "the model's window holds 512"),
        (("--model", "/nowhere/base"), "cannot load /nowhere/base"),
        (("--anchors", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_refusals_come_before_any_night(files, tmp_path, capsys, more, words):
    assert cli.main(command(files, tmp_path / "run", *more)) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_shipped_prompts_are_disjoint_and_complete():
    from sleepkit.language.retention import read_prompts

    general, anchors = read_prompts(None, "general_prompts"), read_prompts(None, "anchors")
    assert len(general) >= 100 and sum(bool(row["answer"]) for row in anchors) >= 20
    assert not {row["prompt"] for row in general} & {row["prompt"] for row in anchors}


@pytest.mark.parametrize(("use_cpu", "threads", "expected"), [("False", 1, [3]), ("False", 2, []), ("True", 1, [])])
def test_a_launch_that_was_told_nothing_uses_all_cores(monkeypatch, tmp_path, use_cpu, threads, expected):
    """`accelerate launch` without a configuration sets OMP_NUM_THREADS=1, which is meant for machines with a GPU."""
    import torch
    from tiny_night import tiny_config

    from sleepkit.trainers.language import use_all_cores

    given = []
    monkeypatch.setenv("ACCELERATE_USE_CPU", use_cpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    use_all_cores(tiny_config(tmp_path))
    assert given == expected


@pytest.mark.usefixtures("undrawn")
def test_classification_tasks_are_learned_from_their_rows(files, tmp_path, capsys):
    rows = [
        {"text": f"{word} {k}", "intent": f"ask_{word}", "domain": domain}
        for domain, words in (("bank", ("pay", "save")), ("home", ("cook", "clean")))
        for word in words
        for k in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps({"text": f"moon {k}"}) for k in range(3)))
    more = f"""--dataset {tmp_path}/rows.jsonl --label_column intent --task_column domain --test_rows_per_label 2 --notes_kept 1
        --out_of_scope {tmp_path}/other.jsonl""".split()
    assert cli.main(command(files, tmp_path / "run", *more)) == 0
    results = read_results(tmp_path / "run")
    assert [night["experience"] for night in results["nights"]] == ["bank", "home"]
    assert 0 <= results["metrics"]["out_of_scope_auroc"] <= 1
    assert "AUROC" in (tmp_path / "run" / "report.md").read_text()
    replayed = [json.loads(line) for line in (tmp_path / "run/state/night_02/replay.jsonl").read_text().splitlines()]
    assert sorted(item["span"] for item in replayed) == ["ask clean", "ask cook", "ask pay", "ask save"]
    assert cli.main(command(files, tmp_path / "wrong", "--task_column", "domain")) == 2
    assert "task_column is for rows with labels; give label_column or answer_column too" in capsys.readouterr().err


def test_written_answers_are_learned_from_their_rows(files, tmp_path, capsys):
    rows = [{"text": f"{task} {k}", "answer": f"so {task} is {k}", "task": task} for task in ("sum", "half") for k in range(14)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = f"--dataset {tmp_path}/rows.jsonl --answer_column answer --task_column task --test_rows_per_label 2 --notes_kept 3"
    for score in ("chrf", "number"):
        assert cli.main(command(files, tmp_path / score, *more.split(), "--answer_score", score)) == 0
    results = read_results(tmp_path / "chrf")
    assert [night["experience"] for night in results["nights"]] == ["sum", "half"]
    assert 0 <= results["metrics"]["closed_book_after"] <= 1
    replayed = [json.loads(line) for line in (tmp_path / "chrf/state/night_02/replay.jsonl").read_text().splitlines()]
    assert sorted(item["source"] for item in replayed) == ["half"] * 3 + ["sum"] * 3
    assert cli.main(command(files, tmp_path / "wrong", *more.split(), "--label_column", "task")) == 2
    assert "label_column and answer_column both say what is learned" in capsys.readouterr().err
