"""Two rounds of a tiny dreamer on given dreams: ``dream_tiny.py <folder> [dreamed | tried | learned]``.

Killed where asked; run again without the last argument it goes on.  One process or several: the rewards are the same.
Each trial leaves a line in ``trials.txt``, so that none is done twice.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "fault"))
sys.path.insert(0, str(Path(__file__).parent / "language" / "dreaming"))

from sleep_tiny import kill_after  # noqa: E402
from test_trials import DREAMS, QUESTIONS, grown  # noqa: E402
from tiny import tiny_tokenizer  # noqa: E402

from sleepkit.language.dreaming import trainer as dreaming_trainer  # noqa: E402
from sleepkit.language.dreaming.config import DreamingConfig  # noqa: E402
from sleepkit.language.dreaming.dreams import Context, Dream, Dreamed, load_dreams  # noqa: E402
from sleepkit.language.dreaming.trainer import DreamingTrainer  # noqa: E402
from sleepkit.language.dreaming.trials import Trials  # noqa: E402
from sleepkit.language.questions.context import Chunk  # noqa: E402
from sleepkit.language.seeding.config import KnowledgeSeedingConfig  # noqa: E402
from sleepkit.utils.phases import PhaseFile  # noqa: E402

SMALL = {"dream_rounds": 2, "dream_keep_top": 3, "dream_keep_random": 1, "trial_steps": 2, "trial_rank": 2, "dreamer_rank": 2}
SMALL["trial_control"] = False  # each line of trials.txt is a dream


def given(*_):
    return [Dreamed([Dream("rewrite", rows[0][1], rows, "orrin") for rows in [*DREAMS, QUESTIONS]])]


def main() -> None:
    folder, *where = sys.argv[1:]
    folder = Path(folder)
    dreaming_trainer.dream = given
    dreaming_trainer.TRIALS_AT_ONCE = 1
    plain = Trials.run

    def counted(self, dreams, seeds=(0,)):
        found = plain(self, dreams, seeds)
        with open(folder / "trials.txt", "a") as file:
            file.writelines("a trial\n" for _ in dreams)
        return found

    Trials.run = counted
    if where == ["dreamed"]:  # before the first trial
        kill_after(PhaseFile, "write", lambda self, *_: self.path.name == "context_000.jsonl")
    elif where == ["tried"]:  # after two of four
        kill_after(
            PhaseFile,
            "write",
            lambda self, *_: (
                self.path.name == "context_000.jsonl" and sum(one.reward is not None for one in load_dreams(self.path)) == 2
            ),
        )
    elif where == ["learned"]:  # trained, not yet saved
        kill_after(dreaming_trainer.DreamPolicyTrainer, "train")
    model, _, slot = grown()
    seeding = KnowledgeSeedingConfig(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True)
    context = Context(Chunk("the bell of orrin rings at noon.", "orrin", 0, 0), QUESTIONS)
    DreamingTrainer(model, tiny_tokenizer(), DreamingConfig(**SMALL), seeding, slot, folder / "dreams").run([context])


if __name__ == "__main__":
    main()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        os._exit(0)  # all is written; on a busy machine gloo's threads may abort while the interpreter ends
