"""The plan of a run: what its nights do, whether it fits, and what it costs, before anything is paid.

    plan = planned(blank, machine, experiences, ...)
    plan.fits, plan.why, plan.change        plan.peak_bytes        plan.phases        plan.to_dict()

Everything is counted: by running the night's own code without a model (night.py), and passes without values (passes.py).  What is
taken for granted stands in `assumptions`, and goes into every print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sleepkit.language.plan.costs import PhaseCost
from sleepkit.language.plan.dreams import dream_calls, dreamed_rows, planned_dreams
from sleepkit.language.plan.export import Export, planned_export
from sleepkit.language.plan.night import Assumed, NightItems, PlannedNight, writer_of, written_nights
from sleepkit.language.plan.passes import Passes
from sleepkit.language.plan.splits import SHARDED_WHILE_WRITING, SPLIT
from sleepkit.language.plan.stand_in import standing_in
from sleepkit.language.plan.training import StepCosts, Training, planned_training

if TYPE_CHECKING:
    from sleepkit.language.config import LearnerConfig
    from sleepkit.language.data.experience import Experience
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.plan.blank import BlankModel
    from sleepkit.language.plan.machines import Machine
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

__all__ = ["Material", "RunPlan", "planned"]


@dataclass(frozen=True)
class Material:
    """What a run is about.

    Attributes:
        experiences: of all nights.
        general_prompts: that general items are drawn from.
        anchors: rows of the retention set.
        slept: nights that are over.
    """

    experiences: Sequence[Experience]
    general_prompts: Sequence[str]
    anchors: Sequence[dict[str, Any]]
    slept: int = 0


@dataclass
class RunPlan:
    """What a run is going to do and to cost.

    Attributes:
        model: its size, in numbers by name.
        machine: where it runs.
        libraries: bytes that Python and its libraries, or the driver of a GPU, hold.
        resident: bytes by part that are held all night.
        phases: costs, in the order of the run.
        nights: rows of numbers, one a night.
        export: the plain form.
        assumptions: what is taken for granted.
        change: what to do where it does not fit.
    """

    model: dict[str, Any]
    machine: Machine
    libraries: int
    resident: dict[str, int]
    phases: list[PhaseCost]
    nights: list[dict[str, Any]]
    export: Export
    assumptions: list[str]
    change: list[str] = field(default_factory=list)

    @property
    def largest(self) -> PhaseCost:
        """The phase that needs most memory."""
        return max(self.phases, key=lambda cost: cost.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """Highest memory of one process: of a GPU what torch allocates, of a CPU what is resident."""
        held = self.libraries if self.machine.device == "cpu" else 0
        return held + sum(self.resident.values()) + self.largest.peak_bytes

    @property
    def needed_bytes(self) -> float:
        """What a device must have: with the driver, and with what the allocator cannot use."""
        beside = 0 if self.machine.device == "cpu" else self.libraries
        ranks = self.machine.ranks if self.machine.device == "cpu" else 1
        return (self.peak_bytes * ranks + beside) / (1 - self.machine.slack)

    @property
    def fits(self) -> bool:
        """Whether it runs on the machine."""
        return self.needed_bytes <= self.machine.memory

    @property
    def why(self) -> str:
        """Whether it fits, in a line."""
        needed, there = self.needed_bytes / 1e9, self.machine.memory / 1e9
        what = f"{needed:,.1f} GB of the {there:,.1f} GB of {'each GPU' if self.machine.device == 'cuda' else 'this machine'}"
        if self.fits:
            return f"needs {what}, most of it while {self.largest.phase} goes on"
        held = sum(self.resident.values()) / 1e9
        reason = f"weights and experts alone are {held:,.1f} GB" if held > there else f"{self.largest.phase} needs most"
        return f"needs {what}: {reason}"

    @property
    def seconds(self) -> float:
        """Of the whole run, loading the model left out."""
        return sum(cost.seconds for cost in self.phases)

    @property
    def flops(self) -> float:
        """Of the whole run, each counted once whatever the number of ranks."""
        return sum(cost.flops for cost in self.phases)

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens that are read, written and trained on."""
        return {kind: sum(getattr(cost, kind) for cost in self.phases) for kind in ("read", "written", "trained")}

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON."""
        machine = {name: value for name, value in asdict(self.machine).items() if name != "assumptions"}
        return {
            "fits": self.fits,
            "why": self.why,
            "change": self.change,
            "model": self.model,
            "machine": machine,
            "memory": {
                "peak_bytes": self.peak_bytes,
                "needed_bytes": round(self.needed_bytes),
                "libraries": self.libraries,
                **self.resident,
                **dict(self.largest.parts),
            },
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": self.seconds,
            "phases": [cost.to_dict() for cost in self.phases],
            "nights": self.nights,
            "export": asdict(self.export),
            "assumptions": self.assumptions,
        }


def planned(
    blank: BlankModel,
    machine: Machine,
    material: Material,
    seeding: KnowledgeSeedingConfig,
    config: LearnerConfig,
    dreaming: DreamingConfig,
    libraries: int,
    assumed: Assumed | None = None,
) -> RunPlan:
    """Plan a run.

    Args:
        blank: its model, without weights.
        machine: where it runs.
        material: what it reads.
        seeding, config, dreaming: settings of its nights.
        libraries: bytes that Python and its libraries hold; of a GPU those of its driver.
        assumed: what only a model can tell.
    """
    assumed = assumed or Assumed()
    builder = _Builder(blank, machine, seeding, dreaming, assumed)
    given = (blank, material.experiences, seeding, config, dreaming, material.general_prompts, material.anchors, assumed)
    for night in written_nights(*given, material.slept):
        builder.add(night)
    return builder.plan(libraries, len(material.experiences))


class _Builder:
    """Adds up nights."""

    def __init__(
        self, blank: BlankModel, machine: Machine, seeding: KnowledgeSeedingConfig, dreaming: DreamingConfig, assumed: Assumed
    ) -> None:
        self.blank, self.machine, self.seeding, self.dreaming, self.assumed = blank, machine, seeding, dreaming, assumed
        self.passes = Passes(blank)
        self.costs: dict[str, PhaseCost] = {}
        self.trainings: list[Training] = []
        self.nights: list[dict[str, Any]] = []

    def add(self, night: PlannedNight) -> None:
        """Add a night, or what is measured before the first one."""
        passes = self.passes
        for phase, calls in night.calls.items():
            self._put(PhaseCost.of_calls(phase, calls, passes, self.machine))
        row: dict[str, Any] = {"night": night.number, "documents": night.documents, "words": night.words}
        row |= {"items_by_style": night.styles, "held_out": night.held_out, "train_tokens": 0}
        trainings = list(night.trainings)
        if night.contexts:
            trainings += self._dreams(night)
        for training in trainings:
            made = planned_training(passes, training, self.seeding, self.machine.ranks)
            row["train_tokens"] += made.tokens
            row.setdefault("steps", made.steps)
            row.setdefault("new_items", made.items)
            self._put(PhaseCost.of_targets(made, passes, self.machine))
            for phase, calls in made.calls.items():
                self._put(PhaseCost.of_calls(phase, calls, passes, self.machine))
            self.trainings.append(made)
        if night.number:
            self.nights.append(row)

    def _dreams(self, night: PlannedNight) -> list[NightItems]:
        """Dreams about a night, and the training that rehearses those that are accepted."""
        passes = self.passes
        with standing_in(self.blank) as calls:
            dream_calls(passes, night.contexts, self.dreaming)
        self._put(PhaseCost.of_calls("dreaming", calls, passes, self.machine))
        found = planned_dreams(passes, night.contexts, self.dreaming, self.assumed, night.number)
        for cost in PhaseCost.of_dreams(found, passes, self.machine):
            self._put(cost)
        items = [*night.trainings[0].items, *dreamed_rows(night.contexts, self.dreaming, self.assumed)]
        return [NightItems("rehearsal", night.number, items, self.dreaming.dream_rehearsal_steps, kept_general=True)]

    def _put(self, cost: PhaseCost) -> None:
        self.costs[cost.phase] = self.costs[cost.phase] + cost if cost.phase in self.costs else cost

    def plan(self, libraries: int, nights: int) -> RunPlan:
        """The plan of all that was added."""
        if self.trainings:
            steps = StepCosts.of(self.passes, self.trainings, self.seeding)
            for training in self.trainings:
                self._put(PhaseCost.of_training(training, steps, self.passes, self.machine))
        sizes = self.blank.sizes
        config: Mapping[str, Any] = self.blank.model.config.get_text_config().to_dict()
        names = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
        model = {"parameters": sizes.parameters, "dtype": str(self.blank.model.dtype).removeprefix("torch.")}
        writer = writer_of(self.blank, self.seeding)
        return RunPlan(
            model={**model, **{name: config.get(name) for name in names}, "expert_parameters": sizes.trained},
            machine=self.machine,
            libraries=libraries,
            resident={"weights": sizes.weights, "experts": sizes.experts},
            phases=[self.costs[name] for name in SPLIT if name in self.costs],
            nights=self.nights,
            export=planned_export(self.blank, min(nights, self.blank.bank.config.slots), self.machine),
            assumptions=[*self.machine.assumptions, *self.assumed.lines(writer), *self._more()],
        )

    def _more(self) -> list[str]:
        found = []
        if self.dreaming.dream_rounds:
            found.append("a dream is as long as the worked one of its style, and half of those that are tried are accepted")
        if self.machine.ranks > 1:
            alone = ", ".join(name for name, split in SPLIT.items() if not split and name in self.costs)
            found.append(f"every rank does all of: {alone or 'nothing'}; the rest is split over {self.machine.ranks}")
        if not SHARDED_WHILE_WRITING and self.machine.ranks > 1:
            found.append("each GPU holds the whole model, as it writes and answers")
        return found
