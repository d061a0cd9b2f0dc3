"""MyGO: let a classifier meet image classes one after the other, keep a generator of each, and learn from dreams.

    accelerate launch recipes/mygo.py --config recipes/configs/mygo/split_mnist.yaml

The command line overrides the recipe, field by field: `--dataset digits/ --seeds 0 1 2`.  What the published code does is
split_mnist_as_published.yaml, for comparison.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.images import parse_mygo
from sleepkit.runs.images import run_vision


def main() -> None:
    args, config = parse_mygo(sys.argv[1:])
    run_vision(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
