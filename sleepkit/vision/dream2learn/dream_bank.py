"""The life of dreams in an image learner: they get units, give them to real classes, or are let go.

    keep      a dream takes a free unit, or a new one; its prompt goes into the learner's `extras`
    place     a new class takes over the unit, and so the weights, of the dream that most of its images fall on
    retire    a dream's unit becomes free

DER++ has stored logits of all units: those of a unit that means something else from now on are forgotten (NaN).  Units are
only ever added for what is there: nothing is known of later classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleepkit.errors import SleepkitError
from sleepkit.vision.dream2learn.assignment import assign, hit_shares
from sleepkit.vision.dream2learn.config import Dream2LearnConfig
from sleepkit.vision.dream2learn.oracle import Oracle
from sleepkit.vision.dream2learn.soft_prompt import Dream
from sleepkit.vision.incremental.learner import ImageLearner
from sleepkit.vision.incremental.output_units import DREAM, REAL

__all__ = ["DreamBank"]


class DreamBank(ImageLearner):
    """Image learner whose head has dreams beside real classes, and which keeps their prompts between nights."""

    config: Dream2LearnConfig

    def dreams(self) -> list[Dream]:
        """Dreams that are kept, in ascending order of their numbers."""
        numbers = sorted(int(name.removesuffix(".about")) for name in self.extras if name.endswith(".about"))
        return [Dream.from_tensors(number, self.extras_of(number)) for number in numbers]

    def keep(self, dreams: Sequence[Dream]) -> None:
        """Write dreams into the extras, and give those that are new a unit.

        Raises:
            SleepkitError: more units than `max_units`.
        """
        known = self.model.slots.labels_of(DREAM)
        new = [dream.number for dream in dreams if dream.number not in known]
        units = self.model.grow(new, self.night, [f"dream {number}" for number in new], state=DREAM)
        self.model.to(self.config.device)  # type: ignore[arg-type]
        self._require_room()
        self._forget_logits(units)
        for dream in dreams:
            self.extras |= {name: values.to(self.model.device) for name, values in dream.to_tensors().items()}

    def retire(self, dreams: Sequence[Dream]) -> None:
        """Let dreams go; their units become free."""
        for dream in dreams:
            self.model.slots.release([self._forget(dream.number)])
        self.model.name_units({})

    def oracle(self) -> Oracle | None:
        """None before it is trained, and where there shall be none."""
        state = {name.removeprefix("oracle."): values.cpu() for name, values in self.extras.items() if name.startswith("oracle.")}
        if not state:
            return None
        oracle = Oracle()
        oracle.load_state_dict(state)
        return oracle.eval().requires_grad_(False)

    def keep_oracle(self, oracle: Oracle) -> None:
        """Keep the oracle for later nights."""
        self.extras |= {f"oracle.{name}": values.to(self.model.device) for name, values in oracle.state_dict().items()}

    def _grow(self) -> None:
        """Place the new classes: on dreams' units, and where there is none left, on free or new ones."""
        slots, today = self.model.slots, self.today
        units = slots.where(DREAM)
        new = [label for label in today.labels if label not in slots.labels_of(REAL)]
        if units and new:
            logits = self.in_batches(self.logits, today.train)[:, units]
            places = assign(hit_shares(logits, today.train.labels, new), self.config.assignment)
            names = dict(zip(today.labels, today.label_names, strict=True))
            for place, column in places.items():
                self._forget(slots.labels[units[column]])
                slots.promote(units[column], new[place], today.number)
                self.model.name_units({units[column]: names[new[place]]})
        super()._grow()
        self._require_room()
        self._forget_logits([slots.unit(label) for label in new])

    def _forget(self, number: int) -> int:
        """Take a dream out of the extras; returns its unit."""
        unit = self.model.slots.unit(number, DREAM)
        self.extras = {name: values for name, values in self.extras.items() if not name.startswith(f"{number}.")}
        self._forget_logits([unit])
        return unit

    def _forget_logits(self, units: Sequence[int]) -> None:
        if self.buffer is not None and "logits" in self.buffer.extras:
            logits = self.buffer.extras["logits"]
            logits[:, [unit for unit in units if unit < logits.shape[1]]] = float("nan")

    def _require_room(self) -> None:
        most = self.config.max_units
        if most is not None and len(self.model.slots) > most:
            raise SleepkitError(
                f"max_units is {most}, which is fewer than the {len(self.model.slots)} units of classes and dreams; "
                f"raise it, or ask for fewer than {self.config.dreams} dreams"
            )
