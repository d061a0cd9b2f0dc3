"""Let a model read, sleep and answer: `accelerate launch recipes/sleep.py --config recipes/configs/sleep/demo.yaml`.

The command line overrides the recipe, field by field: `--dataset notes/ --model Qwen/Qwen3-1.7B --seed 1`.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.language import parse
from sleepkit.runs.sleep import run_sleep


def main() -> None:
    args, config = parse(sys.argv[1:])
    run_sleep(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
