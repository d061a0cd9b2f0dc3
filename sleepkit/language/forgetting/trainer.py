"""Experts unlearn the items of some nights: they answer them as the model did that had not slept on them yet.

Per reply token y_t of an item (prompt x, reply y), with the same weights::

    items of the night    L = F(p || q)    p the experts of earlier nights alone
    items that stay       L = F(p || q)    p the model as it is before the first step
    general               L = F(p || q)    p the unslept model, as in every night

F is the reverse KL over the whole vocabulary: it weighs what the student still says and the teacher would not, however rare,
while the forward KL hardly sees a word of probability 0.02 where the teacher has 0.0001.  No gate penalty, as the experts that
train are to stay open to what they keep.

Ours; distilling a model that has not seen the data follows Chundawat et al. 2023 ("Can Bad Teaching Induce Forgetting?", arXiv
2205.08096), whose teacher is a random model.  Left out: when it is enough (traces.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.seeding.packing import PreparedItem
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer

__all__ = ["OBJECTIVE", "PACE", "UnlearningTrainer"]

PACE = 0.5  # learning rate, of that of a night: experts that know much lose less of it

OBJECTIVE: dict[str, Any] = {
    **{"divergence": "reverse_kl", "top_k": 0, "reply_weight": 0.0, "mask_first_tokens": 0, "gate_penalty": 0.0},
    **{"lmbda": 0.0, "lmbda_start": 0.0, "general_share": 0.75},
}
"""Settings of a night's training that are others here: what stays has the larger share, as it is more than what goes."""


class UnlearningTrainer(KnowledgeSeedingTrainer):
    """Trains experts until they answer the items of some nights as the experts of earlier ones; all else stays.

    Args:
        *given: as [`KnowledgeSeedingTrainer`] takes them; new items have the ``night`` that is to be forgotten.
        slots (sequence of `int`): the experts that train.
        before (mapping): of each night, the experts that teach its items.
        **options: as [`KnowledgeSeedingTrainer`] takes them; trainings that share ``kept`` have the teachers of the first.
    """

    def __init__(self, *given: Any, slots: Sequence[int], before: Mapping[int, Sequence[int]], **options: Any) -> None:
        self.before = before
        options["slot"] = slots[-1]
        super().__init__(*given, **options)
        self.trained = tuple(slots)

    def teacher_view(self) -> Any:
        """Show the model as it is, which teaches what stays."""
        return self.bank.view(self.bank.active)

    @property
    def drawn(self) -> Any:
        """Return all items: their teachers are those of the first training, whatever a later one draws."""
        return range(len(self.items))

    def prepare(self, items: Sequence[SyntheticExample]) -> list[PreparedItem]:
        """Items with their teachers' targets."""
        kept = self.preparation.kept
        again = all(item in kept for item in items)
        prepared = super().prepare(items)
        if not again:
            for night, slots in self.before.items():
                self._taught_by(slots, [i for i in self.new if items[i].night == night], prepared)
            kept.update(zip(items, prepared, strict=True))
        return prepared

    def _taught_by(self, slots: Sequence[int], chosen: Sequence[int], prepared: Sequence[PreparedItem]) -> None:
        prompts = [self.teacher_prompt(self.items[i]) for i in chosen]
        self.preparation.run_teacher([prepared[i] for i in chosen], prompts, lambda: self.bank.view(slots))

    def run(self, what: str = "training") -> dict[str, Any]:
        """Train to the end, as [`KnowledgeSeedingTrainer`] does; returns the number of ``steps`` too."""
        return super().run(what) | {"steps": self.state.global_step}
