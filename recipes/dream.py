"""Let a model dream, and see whether it learns to: `accelerate launch recipes/dream.py --config recipes/configs/dream/NAME.yaml`.

The command line overrides the recipe, field by field.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.language import parse_dream
from sleepkit.runs.dream import run_dream


def main() -> None:
    args, config = parse_dream(sys.argv[1:])
    run_dream(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
