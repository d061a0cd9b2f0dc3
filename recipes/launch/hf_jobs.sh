#!/bin/bash
# A recipe on one machine of Hugging Face Jobs, with all its GPUs:
#
#   BUCKET=me/nights recipes/launch/hf_jobs.sh sleep --config recipes/configs/sleep/NAME.yaml
#
# What is committed here is sent along. The run is copied to hf://buckets/$BUCKET/$NAME every five minutes and at its end, and from
# there at its start, so that the same line goes on with a run whose job was ended.
#
#   FLAVOR  of the machine (h200; `hf jobs hardware` lists all)     TIMEOUT  of the job (8h)     NAME  of the run (the recipe's)

set -euo pipefail

: "${BUCKET:?give a bucket for the run: BUCKET=owner/name}" "${FLAVOR:=h200}" "${TIMEOUT:=8h}" "${NAME:=${1:?give a recipe}}"

code=$(mktemp -d)
trap 'rm -rf "$code"' EXIT
git archive HEAD | tar -x -C "$code"

read -r -d '' there <<'JOB' || true
set -eu
cp -r /code /tmp/sleepkit
cd /tmp/sleepkit
pip install --quiet -c requirements/constraints.txt torch
pip install --quiet -c requirements/constraints.txt -e .
mkdir -p /tmp/run
hf buckets sync "$PLACE" /tmp/run || echo "nothing in $PLACE yet"
(while sleep 300; do hf buckets sync /tmp/run "$PLACE"; done) &
copies=$!
code=0
recipes/launch/node.sh "$@" --output_dir /tmp/run || code=$?
kill "$copies"
hf buckets sync --delete /tmp/run "$PLACE"
exit "$code"
JOB

hf jobs run --flavor "$FLAVOR" --timeout "$TIMEOUT" --secrets HF_TOKEN --env "PLACE=hf://buckets/$BUCKET/$NAME" \
    --volume "$code:/code" python:3.11 bash -c "$there" job "$@"
