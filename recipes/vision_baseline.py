"""Let a classifier meet image classes or domains one after the other.

    accelerate launch recipes/vision_baseline.py --config recipes/configs/vision/split_mnist.yaml

The command line overrides the recipe, field by field: `--dataset digits/ --method der --seed 1`.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.images import parse_vision
from sleepkit.runs.images import run_vision


def main() -> None:
    args, config = parse_vision(sys.argv[1:])
    run_vision(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
