"""FLOPs, tokens, memory and seconds of the phases of a plan, from what each phase does (night.py, training.py, dreams.py).

PhaseCost.of_calls("questions", calls, ...)       generation and reading
PhaseCost.of_targets(...), of_training(...)       a training
sum(costs)                                        of one phase over all nights: memory is that of the largest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sleepkit.language.plan.splits import share
from sleepkit.language.plan.stand_in import Batch, Call

if TYPE_CHECKING:
    from sleepkit.language.plan.dreams import DreamCosts
    from sleepkit.language.plan.machines import Machine
    from sleepkit.language.plan.passes import Passes
    from sleepkit.language.plan.training import StepCosts, Training

__all__ = ["PhaseCost"]

BACKWARD = 2  # passes backwards, in kernels to start, for one forwards
COMPARED_AT_ONCE = 256  # tokens, as `token_divergence` does by default
ADAM_KERNELS = 4  # layers' worth of kernels that an optimizer's step starts


@dataclass(frozen=True)
class PhaseCost:
    """Cost of one phase.

    Attributes:
        phase: its name, a key of `splits.SPLIT`.
        read, written, trained: tokens, each counted once whatever the number of ranks; padding included.
        flops: likewise.
        repeated: by how much more work all ranks do together than one alone would.
        seconds: of the slowest rank.
        peak_bytes: of one device, beyond weights and experts.
        parts: of that, by name.
    """

    phase: str
    read: int = 0
    written: int = 0
    trained: int = 0
    flops: float = 0.0
    repeated: float = 1.0
    seconds: float = 0.0
    peak_bytes: int = 0
    parts: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: PhaseCost) -> PhaseCost:
        larger = max(self, other, key=lambda cost: cost.peak_bytes)
        flops = self.flops + other.flops
        repeats = self.flops * self.repeated + other.flops * other.repeated
        return PhaseCost(
            self.phase,
            self.read + other.read,
            self.written + other.written,
            self.trained + other.trained,
            flops,
            repeats / flops if flops else 1.0,
            self.seconds + other.seconds,
            larger.peak_bytes,
            larger.parts,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return {**asdict(self), "parts": dict(self.parts)}

    # -- generation and reading ---------------------------------------------------------------------------------------
    @classmethod
    def of_calls(cls, phase: str, calls: Sequence[Call], passes: Passes, machine: Machine) -> PhaseCost:
        """Cost of some calls, one after the other."""
        found = cls(phase)
        for call in calls:
            shared = [call.shared] if call.shared else []
            alone = [*shared, *call.batches]
            mine = [*shared, *on_rank(call, share(phase, machine.ranks))]
            flops = sum(passes.flops(batch) for batch in alone)
            all_ranks = sum(passes.flops(batch) for batch in mine) * machine.ranks
            found += replace(
                cls(phase),
                read=sum(batch.read_tokens for batch in alone),
                written=sum(batch.written_tokens for batch in alone),
                flops=flops,
                repeated=max(1.0, all_ranks / flops) if flops else 1.0,
                seconds=sum(_seconds(batch, passes, machine) for batch in mine),
            )
        largest = _largest([batch for call in calls for batch in on_rank(call, share(phase, machine.ranks))], passes)
        return found + _memory_of(phase, largest, passes)

    # -- learning -----------------------------------------------------------------------------------------------------
    @classmethod
    def of_targets(cls, training: Training, passes: Passes, machine: Machine) -> PhaseCost:
        """Cost of the targets of a training, and of the layers below the experts."""
        targets, split = training.targets, share("targets", machine.ranks)
        weights = passes.blank.sizes.weights
        each = targets.flops / max(1, targets.passes)
        seconds = targets.passes / split * machine.reading(each, weights, passes.n_layers)
        parts = (("targets and hidden states that are kept", targets.kept_bytes), ("one pass of the teacher", targets.peak_bytes))
        return cls(
            "targets",
            read=targets.tokens,
            flops=targets.flops,
            repeated=machine.ranks / split,
            seconds=seconds,
            peak_bytes=sum(size for _, size in parts),
            parts=parts,
        )

    @classmethod
    def of_training(cls, training: Training, steps: StepCosts, passes: Passes, machine: Machine) -> PhaseCost:
        """Cost of the steps of a training."""
        sizes, flops = passes.blank.sizes, steps.flops_of(training)
        each = flops / max(1, training.batches * machine.ranks)
        upper = passes.n_layers - (passes.first if passes.backbone.enters_above else 0)
        layers = upper * (1 + BACKWARD) + ADAM_KERNELS
        moved = (1 + BACKWARD) * sizes.weights * upper / passes.n_layers
        parts = (
            ("gradient and moments of the expert", sizes.optimizer),
            ("targets and hidden states that are kept", training.targets.kept_bytes),
            (
                f"activations and logits of {training.tokens // max(1, training.batches * machine.ranks):,} tokens",
                steps.peaks[training.phase],
            ),
        )
        return cls(
            training.phase,
            trained=training.tokens,
            flops=flops,
            seconds=training.batches * machine.reading(each, moved, layers),
            peak_bytes=sum(size for _, size in parts),
            parts=parts,
        )

    @classmethod
    def of_dreams(cls, dreams: DreamCosts, passes: Passes, machine: Machine) -> list[PhaseCost]:
        """Costs of scoring and trying dreams."""
        upper = passes.n_layers - passes.first
        found = []
        for phase, cost, times in (
            ("dream scores", dreams.scores, dreams.tried),
            ("trials", dreams.trials, dreams.batches * dreams.steps),
        ):
            split = share(phase, machine.ranks)
            each = cost.flops / max(1, times)
            layers = upper * (1 + BACKWARD)
            moved = passes.blank.sizes.weights * upper / passes.n_layers
            seconds = times / split * machine.reading(each, moved, layers)
            repeated = machine.ranks / split
            tokens = dreams.tokens if phase == "trials" else 0
            parts = (("activations of dreams", cost.peak_bytes),)
            found.append(
                cls(
                    phase,
                    trained=tokens,
                    flops=cost.flops,
                    repeated=repeated,
                    seconds=seconds,
                    peak_bytes=cost.peak_bytes,
                    parts=parts,
                )
            )
        return found


def on_rank(call: Call, ranks: int) -> list[Batch]:
    """The batches of a call that one of so many ranks has: prompts are dealt out first, and then put together."""
    if ranks == 1 or not call.batches:
        return call.batches
    size = max(batch.rows for batch in call.batches)
    typical = sorted(call.batches, key=lambda batch: batch.read)[len(call.batches) // 2]
    mine = -(-sum(batch.rows for batch in call.batches) // ranks)
    return [replace(typical, rows=min(size, mine - start)) for start in range(0, mine, size)]


def _seconds(batch: Batch, passes: Passes, machine: Machine) -> float:
    """Seconds of a batch that is read and written."""
    weights, layers = passes.blank.sizes.weights, passes.n_layers
    steps = max(0, batch.written - 1)
    reading = replace(batch, written=0)
    seconds = machine.reading(passes.flops(reading), weights, layers) if batch.read else 0.0
    if steps:
        tokens = batch.past + batch.read + batch.written / 2
        flops = (passes.flops(batch) - passes.flops(reading)) / steps
        cached = batch.rows * tokens * passes.cached_bytes
        seconds += steps * machine.writing(flops, weights + cached, layers)
    return seconds


def _largest(batches: Sequence[Batch], passes: Passes) -> list[Batch]:
    """Of some batches those that may need most memory: while they are read, and while they are written."""
    if not batches:
        return []

    def size(batch: Batch) -> float:
        logits = batch.heads + 2 * batch.compared
        return batch.rows * (batch.read + logits * passes.vocabulary / passes.width)

    read = max(batches, key=size)
    written = max(batches, key=lambda batch: batch.rows * (batch.past + batch.read + batch.written) * bool(batch.written))
    return [read, written]


def _memory_of(phase: str, largest: Sequence[Batch], passes: Passes) -> PhaseCost:
    if not largest:
        return PhaseCost(phase)
    read, written = largest
    if read.compared:
        tokens = read.rows * read.compared
        part = (f"distributions of {tokens} tokens that are compared", passes.divergence_peak(tokens, COMPARED_AT_ONCE))
        return PhaseCost(phase, peak_bytes=part[1], parts=(part,))
    reading = passes.reading_peak(read)
    writing = passes.writing_peak(written) if written.written else 0
    if reading > writing:
        part = (f"reading {read.rows} rows of {read.read} tokens, with their cache", reading)
    else:
        part = (f"cache and logits of {written.rows} rows of {written.past + written.read + written.written} tokens", writing)
    return PhaseCost(phase, peak_bytes=part[1], parts=(part,))
