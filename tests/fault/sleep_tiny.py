"""Two nights of a tiny learner, killed where asked: ``sleep_tiny.py <folder> [first | examples | step | checkpoint]``.

Run again without the last argument it goes on: a night that was finished is loaded, one that was not continues its phases.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import tiny_model, tiny_tokenizer  # noqa: E402
from tiny_night import tiny_config  # noqa: E402

from sleepkit.language import learner  # noqa: E402
from sleepkit.language.config import LearnerConfig  # noqa: E402
from sleepkit.language.data.experience import Experience  # noqa: E402
from sleepkit.language.seeding import trainer as knowledge_seeding_trainer  # noqa: E402
from sleepkit.utils.phases import PhaseFile  # noqa: E402

DAYS = [
    "Mira Tal kept the light of Orta from 1921 to 1934. The lamp burned whale oil.",
    "Jon Arl built the mill of Sund in 1802. Its wheel turned three stones.",
]


def kill_after(owner, name, condition=lambda *args: True):
    """Replace a function by itself and then death: no handler and no cleanup runs."""
    original = getattr(owner, name)

    def last(*args, **kwargs):
        result = original(*args, **kwargs)
        if condition(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, last)


def main() -> None:
    folder, *where = sys.argv[1:]
    folder, trainer = Path(folder), knowledge_seeding_trainer.KnowledgeSeedingTrainer
    seeding = tiny_config(
        folder, max_steps=6, save_strategy="steps", save_steps=2, lmbda=0.5, lmbda_start=0.5, general_items=2, general_tokens=6
    )
    args = LearnerConfig(expert_slots=2, expert_width=8)
    sleeper = learner.LanguageLearner(
        tiny_model(max_position_embeddings=2048), tiny_tokenizer(), seeding, args, ["say hello.", "name a colour."]
    )
    if where == ["first"]:
        kill_after(PhaseFile, "write", lambda self, *_: self.path.name == "examples.jsonl")
    if (folder / "first").is_dir():
        sleeper.load(folder / "first")
    else:
        sleeper.wake(Experience("orta", [DAYS[0]], []))
        sleeper.sleep(0, folder)
        sleeper.save(folder / "first")
    if where == ["examples"]:
        kill_after(PhaseFile, "write", lambda self, *_: self.path.name == "examples.jsonl")
    elif where == ["step"]:  # between two checkpoints
        kill_after(trainer, "compute_loss", lambda self, *_: self.state.global_step == 3)
    elif where == ["checkpoint"]:  # in the middle of writing the second
        kill_after(trainer, "save_model", lambda self, *_: self.state.global_step == 4)
    sleeper.wake(Experience("sund", [DAYS[1]], []))
    sleeper.sleep(1, folder)
    sleeper.save(folder / "second")


if __name__ == "__main__":
    main()
