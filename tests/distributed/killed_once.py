"""Runs a recipe and kills one of its processes in the middle of a night, once: ``killed_once.py FLAG RANK recipe.py ...``.

When the file FLAG is there, nothing is killed any more.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from launch import command, compile_nothing  # noqa: E402

from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer  # noqa: E402

STEP = 3  # after the first checkpoint


def main() -> int:
    flag, rank = Path(sys.argv[1]), sys.argv[2]
    original = KnowledgeSeedingTrainer.compute_loss

    def last(self, *args, **kwargs):
        if os.environ["RANK"] == rank and self.state.global_step == STEP and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    KnowledgeSeedingTrainer.compute_loss = last
    if "ACCELERATE_USE_DEEPSPEED" in os.environ:
        compile_nothing()
    return command(*sys.argv[3:])()


if __name__ == "__main__":
    sys.exit(main())
