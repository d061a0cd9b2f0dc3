"""Two machines that differ end in one line each, the same, within a minute; two that agree leave nothing behind."""

import json
import time

import pytest
from hosts import on_machines
from launch import command, together
from tiny import tiny_model, tiny_tokenizer

from sleepkit.utils.launch import agreement

pytestmark = pytest.mark.distributed


def agreeing(folder, **arguments):
    """What a process does that agrees on a folder and then says so."""

    def work():
        from sleepkit.runs.guard import guard

        return guard(lambda: (agreement.agree(folder, arguments), print("agreed")))

    return work


def refused(works, *words, **options):
    """All processes end with the same line, which has these words; returns it."""
    started = time.monotonic()
    done = on_machines(works, **options)
    lines = [one.stderr.strip().splitlines() for one in done]
    assert [one.returncode for one in done] == [2] * len(works), lines
    assert all(found == lines[0] and len(found) == 1 for found in lines), lines
    assert all(one.stdout == "" for one in done)
    assert time.monotonic() - started < 60
    assert all(word in lines[0][0] for word in words), lines[0]
    return lines[0][0]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(agreement, "FOR_TOKEN", 1.0)
    monkeypatch.setattr(agreement, "FOR_STATE", 1.0)


def test_they_agree(tmp_path):
    done = on_machines([agreeing(tmp_path / "a" / "run", seed=1, rate=0.5)] * 3)
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "agreed\n", "")] * 3
    assert list((tmp_path / "a" / "run").iterdir()) == []


def test_other_arguments(tmp_path):
    works = [agreeing(tmp_path / "run", seed=1, rate=rate, more=None) for rate in (0.5, 0.25, 0.25)]
    line = refused(works, "rate is 0.5 on", "(process 0), 0.25 on", "start all with the same arguments")
    assert "seed" not in line and "(process 1) and on" in line and "(process 2)" in line
    assert list(tmp_path.iterdir()) == []
    refused([agreeing(tmp_path, rate=1), agreeing(tmp_path)], "rate is 1 on", "not given on")


def test_a_secret_is_not_told(tmp_path):
    done = on_machines([agreeing(tmp_path, hub_token="hf_one"), agreeing(tmp_path, hub_token="hf_two")])
    assert [one.returncode for one in done] == [0, 0]


def test_other_code(tmp_path):
    def older():
        agreement._code = lambda: {"sleepkit": "0.0.1"}
        return agreeing(tmp_path)()

    refused([agreeing(tmp_path), older], "sleepkit is '0.1.0' on", "'0.0.1' on", "install the same on all machines")


def test_another_configuration_of_accelerate(tmp_path):
    line = refused([agreeing(tmp_path)] * 2, "ACCELERATE_MIXED_PRECISION is 'no' on", ACCELERATE_MIXED_PRECISION=["no", "bf16"])
    assert "the same accelerate configuration" in line


def test_folders_that_are_not_shared(tmp_path):
    (tmp_path / "b" / "state" / "night_02").mkdir(parents=True)
    (tmp_path / "b" / "state" / "night_02" / "state.json").write_text("{}")
    for first, second in ("ab", "ba"):
        line = refused(
            [agreeing(tmp_path / first), agreeing(tmp_path / second)],
            "output_dir is not one folder that all processes share",
            f"{tmp_path / 'a'} holds no run",
            f"{tmp_path / 'b'} holds 1 files, and state/night_02",
            "such as NFS",
        )
        assert "overwrite" not in line and not (tmp_path / "a").exists()


def test_a_state_that_one_machine_has_alone(tmp_path):
    """All of the folder is shared but ``state``, a link to a disk of each machine."""
    here, shared = tmp_path / "here", tmp_path / "run"
    (here / "night_01").mkdir(parents=True)
    (here / "night_01" / "state.json").write_text("{}")
    shared.mkdir()

    def elsewhere():
        agreement._files = lambda folder: []
        agreement.states = lambda folder: []
        return agreeing(shared)()

    (shared / "state").symlink_to(here)
    words = (
        "the processes see different files of the run",
        "holds 1 files, and state/night_01",
        "holds no run",
        "one file system",
    )
    refused([agreeing(shared), elsewhere], *words)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    refused([agreeing(tmp_path / "file" / "run")] * 2, "cannot be written to", "choose another folder")


def test_one_process_alone_needs_no_agreement(tmp_path):
    agreement.agree(tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


# -- whole commands ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text(json.dumps({"title": "Ada", "context": "Ada keeps a red lamp in the north tower."}))
    return folder


def sleeping(inputs, out, *more):
    small = (
        "--expert_slots 1 --expert_width 4 --use_cpu --max_steps 1 --context_max_tokens 300 --max_new_tokens 4 --general_items 2"
    )
    words = [
        "--model",
        inputs / "base",
        "--dataset",
        inputs / "rows.jsonl",
        "--output_dir",
        out,
        *small.split(),
        "--general_tokens",
        4,
    ]
    return command("recipes/sleep.py", *words, "--disable_tqdm", "true", "--styles", "cloze", "--no_gate", *more)


def dreaming(inputs, out, *more):
    words = ["--model", inputs / "base", "--dataset", inputs / "rows.jsonl", "--output_dir", out, "--use_cpu", "--nights", "1"]
    return command("recipes/dream.py", *words, "--dream_rounds", "1", *more)


def painting(inputs, out, *more):
    return command("recipes/mygo.py", "--output_dir", out, "--use_cpu", *more)


@pytest.mark.parametrize("recipe", [sleeping, dreaming, painting])
def test_recipes_agree_before_anything_else(recipe, inputs, tmp_path):
    works = [recipe(inputs, tmp_path / name) for name in "ab"]
    refused(works, "output_dir is not one folder that all processes share")
    works = [recipe(inputs, tmp_path / "a", "--learning_rate", rate) for rate in ("1e-3", "2e-3")]
    refused(works, "learning_rate is 0.001 on", "0.002 on")
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_which_one_machine_has_the_state(inputs, tmp_path):
    together(sleeping(inputs, tmp_path / "a"), 2)
    works = [sleeping(inputs, tmp_path / name) for name in "ab"]
    refused(works, f"{tmp_path / 'a'} holds", "state/night_01", f"{tmp_path / 'b'} holds no run")


def test_a_file_that_one_machine_does_not_have(inputs, tmp_path):
    """Both were started alike; what only one of them meets later ends both."""
    there = sleeping(inputs, tmp_path / "run")

    def without():
        import sleepkit.trainers.language as language
        from sleepkit.errors import SleepkitError

        def missing(*_):
            raise SleepkitError("rows.jsonl is not there")

        language.ready_passages = missing
        return there()

    done = on_machines([there, without])
    assert [one.returncode for one in done] == [2, 2]
    assert all(one.stderr.strip().splitlines()[-1] == "sleepkit: error: rows.jsonl is not there" for one in done)
