"""Write the images of a stream of recipes/disentangled.py to a new folder, for the methods that learn from image files.

    python recipes/sprites_data.py --config recipes/configs/disentangled/s1.yaml --experiences 20 --output_dir runs/sprites
    accelerate launch recipes/vision_baseline.py --config recipes/configs/vision/sprites.yaml --dataset runs/sprites

It takes the recipes of recipes/disentangled.py; the command line overrides them, field by field.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.arguments.disentangled import parse_sprites_data
from sleepkit.runs.disentangled import write_sprites_data


def main() -> None:
    args, config = parse_sprites_data(sys.argv[1:])
    write_sprites_data(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
