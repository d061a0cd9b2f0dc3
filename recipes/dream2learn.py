"""Dream2Learn: a classifier dreams classes that do not exist, learns them, and meets the real ones better prepared.

    accelerate launch recipes/dream2learn.py --config recipes/configs/dream2learn/procedural_cpu.yaml --seeds 0 1 2 3 4

Each seed runs twice, without dreams and with them; `results.json` has the paired differences.  The command line overrides the
recipe, field by field.  The generator is trained first where it is missing, as recipes/train_tiny_diffusion.py does.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.images import parse_dream2learn
from sleepkit.runs.dream2learn import run_dream2learn


def main() -> None:
    args, config = parse_dream2learn(sys.argv[1:])
    run_dream2learn(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
