"""Let a canonicalizer meet shapes of Infinite dSprites one after the other, and know them by one exemplar each.

    accelerate launch recipes/disentangled.py --config recipes/configs/disentangled/s1.yaml

The command line overrides the recipe, field by field: `--seeds 0 1 2 --match nearest`.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.disentangled import parse_disentangled
from sleepkit.runs.disentangled import run_disentangled


def main() -> None:
    args, config = parse_disentangled(sys.argv[1:])
    run_disentangled(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
