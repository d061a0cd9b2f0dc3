#!/bin/bash
# One machine of a run, with a process for each of its GPUs; all machines run this line, each with its own MACHINE:
#
#   MACHINES=2 MACHINE=0 HEAD=node-a recipes/launch/node.sh sleep --config recipes/configs/sleep/NAME.yaml --output_dir /shared/NAME
#
# The first word is the name of a recipe (recipes/<name>.py) or a script of your own; the others are its options. output_dir must be
# one folder that all machines see. Processes that die are started again, and the run goes on from what it has saved.
#
#   MACHINES  how many (1)                                 MACHINE   which one this is, from 0 (Slurm's number, or 0)
#   HEAD      name or address of the first (localhost)     PORT      a free one there (29500)
#   GPUS      processes on each machine (all its GPUs)     RESTARTS  of processes that died (3)
#   JOB       a name that no other run there has (PORT)    CONFIG    accelerate's (accelerate_configs/multi_node.yaml)
#   ADDRESS   of this machine, where the others do not know it by its name

set -euo pipefail

: "${MACHINES:=1}" "${MACHINE:=${SLURM_NODEID:-0}}" "${HEAD:=localhost}" "${PORT:=29500}" "${RESTARTS:=3}"
: "${CONFIG:=accelerate_configs/multi_node.yaml}" "${GPUS:=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}"
if ((GPUS < 1)); then
    echo "node.sh: no GPU is found here; give GPUS with the number of processes, and --use_cpu if they have none" >&2
    exit 2
fi

recipe="${1:?give the name of a recipe, such as sleep, and its options}"
shift
[[ -f "$recipe" ]] || recipe="recipes/$recipe.py"

# Processes that are started again meet in a new store; torch's launcher would give them the one of those that died.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export PET_RDZV_ID="${JOB:-$PORT}" PET_RDZV_ENDPOINT="$HEAD:$PORT"
[[ -z "${ADDRESS:-}" ]] || export PET_LOCAL_ADDR="$ADDRESS"

# What DeepSpeed compiles stays on this machine: on a shared disk one machine would wait for another's lock.
export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-/tmp/torch_extensions_$(id -un)}"
export HF_HOME="${HF_HOME:-$HOME/.cache/huggingface}"   # best on a disk that all machines see: each model is fetched once
export HF_HUB_DISABLE_TELEMETRY="${HF_HUB_DISABLE_TELEMETRY:-1}"
# Machines with several networks: NCCL_SOCKET_IFNAME=ib0 (GLOO_SOCKET_IFNAME on CPUs); NCCL_DEBUG=INFO tells which one is taken.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
threads=$(($(nproc) / GPUS))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"

launcher=.venv/bin/accelerate
[[ -x "$launcher" ]] || launcher=accelerate
exec "$launcher" launch --config_file "$CONFIG" --num_machines "$MACHINES" --num_processes "$((MACHINES * GPUS))" \
    --machine_rank "$MACHINE" --main_process_ip "$HEAD" --main_process_port "$PORT" \
    --rdzv_backend c10d --rdzv_conf "is_host=$((MACHINE == 0))" --max_restarts "$RESTARTS" "$recipe" "$@"
