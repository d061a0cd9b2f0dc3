"""Two machines with a shared folder learn what one process learns, also when one of them is killed in the middle of a night.

Each is a launcher of its own, started by recipes/launch/node.sh, where possible in a network of its own.
"""

import json
import time
from pathlib import Path

import pytest
import torch
from hosts import Machines, why_no_namespaces
from launch import command, together
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = """--expert_slots 2 --expert_width 4 --use_cpu --max_steps 6 --context_max_tokens 300 --max_new_tokens 4 --general_items 2
    --general_tokens 4 --styles cloze recite --no_gate --passages_per_night 1 --save_strategy steps --save_steps 2
    --disable_tqdm true""".split()

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
refusal = why_no_namespaces()
networks = pytest.mark.skipif(refusal is not None, reason=str(refusal))
places = pytest.mark.parametrize("apart", [False, pytest.param(True, marks=networks)], ids=["ports", "namespaces"])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    rows = [{"title": name, "context": f"{name} keeps a red lamp in the north tower."} for name in ("Ada", "Bert")]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def sleeping(inputs, out, batch=1):
    data = ["--model", inputs / "base", "--dataset", inputs / "rows.jsonl", "--output_dir", out]
    return [*data, *SMALL, "--per_device_train_batch_size", batch]


def learned(out):
    """Experts after both nights."""
    assert [night["night"] for night in json.loads((out / "results.json").read_text())["nights"]] == [1, 2]
    return load_file(out / "state" / "night_02" / "expert_bank.safetensors")


def same(found, expected, tolerance=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def one_process(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    together(command("recipes/sleep.py", *sleeping(inputs, out, batch=2)), 1)
    return learned(out)


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    together(command("recipes/sleep.py", *sleeping(inputs, out)), 2)
    return learned(out)


@places
@pytest.mark.parametrize("config", ["multi_node", "cpu_zero2"])
def test_a_shared_folder_equals_one_process(config, apart, inputs, one_process, tmp_path):
    if "zero" in config:
        pytest.importorskip("deepspeed")
    with Machines(apart) as machines:
        words = [HERE.parent / "launch.py", "recipes/sleep.py", *sleeping(inputs, tmp_path / "run")]
        codes, outputs = machines.run(*words, CONFIG=f"accelerate_configs/{config}.yaml")
    assert codes == [0, 0], outputs
    same(learned(tmp_path / "run"), one_process, 1e-5)


@places
def test_a_killed_process_is_started_again(apart, inputs, undisturbed, tmp_path):
    with Machines(apart) as machines:
        words = [HERE / "killed_once.py", tmp_path / "flag", "1", "recipes/sleep.py", *sleeping(inputs, tmp_path / "run")]
        codes, outputs = machines.run(*words)
    assert codes == [0, 0], outputs
    assert (tmp_path / "flag").exists()
    same(learned(tmp_path / "run"), undisturbed)


@places
def test_a_killed_machine_is_started_again(apart, inputs, undisturbed, tmp_path):
    """As Kubernetes or a service manager starts it; the other one has waited."""
    out = tmp_path / "run"
    with Machines(apart) as machines:
        both = [machines.start(machine, "sleep", *sleeping(inputs, out)) for machine in (0, 1)]
        until = time.monotonic() + 200
        while not list(out.glob("night_*/checkpoints/checkpoint-2")):
            assert time.monotonic() < until and both[0].poll() is None
            time.sleep(0.05)
        machines.kill(both[1])
        again = machines.start(1, "sleep", *sleeping(inputs, out))
        codes, outputs = machines.outcome([both[0], again])
    assert codes == [0, 0], outputs
    same(learned(out), undisturbed)


@places
def test_separate_folders_end_both_in_one_line(apart, inputs, tmp_path):
    started = time.monotonic()
    with Machines(apart) as machines:
        both = [machines.start(k, "sleep", *sleeping(inputs, tmp_path / name)) for k, name in enumerate("ab")]
        codes, outputs = machines.outcome(both)
    assert time.monotonic() - started < 60
    lines = [[line for line in output.splitlines() if line.startswith("sleepkit:")] for output in outputs]
    assert 0 not in codes and lines[0] == lines[1] and len(lines[0]) == 1, outputs
    assert "output_dir is not one folder that all processes share" in lines[0][0]
