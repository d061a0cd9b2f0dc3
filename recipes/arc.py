"""Let a model dream how to learn ARC tasks: `accelerate launch recipes/arc.py --config recipes/configs/arc/NAME.yaml`.

The command line overrides the recipe, field by field.
"""

import sys

from sleepkit.arc_run import parse_arc, run_arc
from sleepkit.cli import guard


def main() -> None:
    args, config = parse_arc(sys.argv[1:])
    run_arc(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
