"""Run several methods for several seeds on one stream, and print one table of them.

    accelerate launch recipes/vision_compare.py --config recipes/configs/vision/split_mnist.yaml \\
        --methods finetune er joint --seeds 0 1 2 --dataset digits/

Each run is `recipes/vision_baseline.py` with its `--method` and `--seed`, in <output_dir>/<method>/seed_<n>; started
again, finished runs are read back and the others go on.  The table is also written to <output_dir>/comparison.md.
"""

import sys

from sleepkit.cli import guard
from sleepkit.runs.compare import run_comparison


def main() -> None:
    run_comparison(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(guard(main))
