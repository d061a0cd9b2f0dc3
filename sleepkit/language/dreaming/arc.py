"""Dreams of an ARC task: which augmentations and training settings will teach its rule?

    dream    {"augmentations": ["rotations", "colours"], "learning_rate": 0.001, "steps": 10}
    rows     demonstrations left out in turn, augmented so                                          arc.py
    reward   what the test output gains in log-probability; `solved`: greedy decoding gives the very grid

SEAL's protocol (arXiv 2506.10943, section 4.2; Akyurek et al. 2024, arXiv 2411.07279).  Ours: settings as above, a graded reward
(SEAL: solved or not), and a worked dream, as a small model writes no JSON without one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from sleepkit.language.data.arc import AUGMENTATIONS, ArcTask, demonstrations_text, example, training_rows
from sleepkit.language.dreaming.dreams import Context, Dream
from sleepkit.language.questions.context import Chunk

STYLE = "settings"
RATES, STEPS = (1e-5, 5e-3), (1, 40)
_ASK = (
    "A model is to learn the rule of these examples.\n\n{text}\n\n"
    f"Choose augmentations, any of {', '.join(AUGMENTATIONS)}, a learning rate from {RATES[0]:g} to {RATES[1]:g} and "
    f"{STEPS[0]} to {STEPS[1]} steps. Answer in JSON."
)
_WORKED = "Input:\n01\n00\nOutput:\n10\n11\n\nInput:\n11\n01\nOutput:\n00\n10"
_ANSWER = '{"augmentations": ["rotations", "flips"], "learning_rate": 0.001, "steps": 10}'


@dataclass
class ArcContext(Context):
    """A task whose test pairs judge dreams of it; a dream of it has at most so many training ``rows``."""

    task: ArcTask
    rows: int

    @classmethod
    def of(cls, task: ArcTask, rows: int = 16) -> ArcContext:
        """Make the context of a task: its demonstrations as text, and its test pairs as questions."""
        chunk = Chunk(demonstrations_text(task.train), task.name, 0, 0)
        return cls(chunk, [example(task.train, pair) for pair in task.test], task, rows)

    def prompt(self, style: str) -> list[dict[str, str]]:
        """The question for settings, after a worked one."""
        return [
            {"role": "user", "content": _ASK.format(text=_WORKED)},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": _ASK.format(text=self.chunk.text)},
        ]

    def read(self, style: str, text: str, ended: bool) -> Dream | str:
        """Make a dream of the JSON that was written: rows of the augmented task, and settings of the trial.

        Arguments are as for `Context.read`.

        Returns:
            The dream; or why it is dropped, ``"unreadable"`` or ``"out of range"``.
        """
        found = re.search(r"\{.*?\}", text, re.DOTALL)
        try:
            chosen = json.loads(found[0]) if found else {}
            names = list(dict.fromkeys(map(str, chosen["augmentations"])))
            settings = {"learning_rate": float(chosen["learning_rate"]), "steps": float(int(chosen["steps"]))}
        except (ValueError, KeyError, TypeError):
            return "unreadable"
        within = RATES[0] <= settings["learning_rate"] <= RATES[1] and STEPS[0] <= settings["steps"] <= STEPS[1]
        if not within or not set(names) <= set(AUGMENTATIONS):
            return "out of range"
        return Dream(style, text, training_rows(self.task, names, self.rows), self.name, settings=settings)
