"""Run a baseline on texts, such as a LoRA, replay or EWC, with the data and measures of recipes/sleep.py.

    accelerate launch recipes/text_baseline.py --config recipes/configs/sleep/squad_smollm2_cpu.yaml --method lora

It takes the recipes of recipes/sleep.py; the command line overrides them, field by field: `--method ewc --seed 1`.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.language import parse_baseline
from sleepkit.runs.sleep import run_baseline


def main() -> None:
    args, config = parse_baseline(sys.argv[1:])
    run_baseline(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
