#!/bin/bash
# A recipe on machines that ssh reaches, each with the repository and its .venv at the same path, and with output_dir in common:
#
#   HOSTS="node-a node-b" recipes/launch/ssh.sh sleep --config recipes/configs/sleep/NAME.yaml --output_dir /shared/NAME
#
# The first of HOSTS is the one that the others look for. Ctrl-C ends all; when one fails, the others end too. Settings of node.sh
# (GPUS, PORT, RESTARTS, CONFIG, JOB) and variables of Hugging Face, NCCL, gloo and OpenMP are handed on.

set -euo pipefail

read -ra hosts <<<"${HOSTS:?give the machines: HOSTS=\"node-a node-b\" recipes/launch/ssh.sh ...}"
handed=()
for name in GPUS PORT RESTARTS CONFIG JOB TORCH_EXTENSIONS_DIR $(compgen -v | grep -E '^(HF|NCCL|GLOO|OMP)_' || true); do
    [[ -z "${!name:-}" ]] || handed+=("$name=${!name}")
done

sessions=()
trap 'kill "${sessions[@]}" 2>/dev/null || true' EXIT INT TERM
for machine in "${!hosts[@]}"; do
    line=$(printf '%q ' env "MACHINES=${#hosts[@]}" "MACHINE=$machine" "HEAD=${hosts[0]}" "${handed[@]}" recipes/launch/node.sh "$@")
    # With a terminal (-tt) what runs there ends when the connection does.
    ssh -tt "${hosts[$machine]}" "cd $(printf '%q' "$PWD") && $line" </dev/null &
    sessions+=("$!")
done

for _ in "${hosts[@]}"; do
    wait -n || exit "$?"
done
