"""Let a model dream how to learn ARC tasks: `accelerate launch recipes/arc.py --config recipes/configs/arc/NAME.yaml`.

The command line overrides the recipe, field by field.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arc import parse_arc, run_arc


def main() -> None:
    args, config = parse_arc(sys.argv[1:])
    run_arc(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
