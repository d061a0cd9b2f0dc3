"""Train a small latent diffusion model on a CPU, in the folder layout of Stable Diffusion: the generator of Dream2Learn's dreams.

    accelerate launch recipes/train_tiny_diffusion.py --output_dir runs/procedural_generator --use_cpu

The default is the procedural world, whose stream has none of the classes that the generator sees.  Real images: `--dataset
uoft-cs/cifar10 --classes 0 1 2 3 4`, and a stream of the others.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.generator import parse_generator, train_generator


def main() -> None:
    args, config = parse_generator(sys.argv[1:])
    train_generator(args, config)


if __name__ == "__main__":
    sys.exit(guard(main))
