"""What to change in a run that does not fit, with the memory that each change would leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sleepkit.language.plan.blank import BYTES_OF_BITS, bytes_in_few_bits
from sleepkit.language.plan.splits import SHARDED_WHILE_WRITING

if TYPE_CHECKING:
    from sleepkit.language.plan.blank import BlankModel
    from sleepkit.language.plan.plan import RunPlan

__all__ = ["remedies"]

GIGA = 1e9


def remedies(plan: RunPlan, blank: BlankModel, config: Any) -> list[str]:
    """Changes that lower what is needed most, those that are enough first; none for a plan that fits."""
    if plan.fits:
        return []
    found: list[tuple[float, str]] = []
    slack = 1 - plan.machine.slack
    beside = plan.needed_bytes - plan.resident["weights"] / slack
    if plan.machine.device == "cuda" and not (config.load_in_8bit or config.load_in_4bit):
        for name, size in BYTES_OF_BITS.items():
            found.append((beside + bytes_in_few_bits(blank.model, size) / slack, f"--{name} true"))
    if plan.machine.ranks > 1:
        sharded = plan.resident["weights"] / plan.machine.ranks + 2 * blank.sizes.largest_layer
        how = "shard the model over the GPUs" + (
            "" if SHARDED_WHILE_WRITING else " (while it trains alone: it is whole as it writes)"
        )
        found.append((beside + sharded / slack, how))
    if plan.largest.phase in ("training", "level"):
        rows = config.per_device_train_batch_size
        activations = max(size for _, size in plan.largest.parts)
        if rows > 1:
            found.append((plan.needed_bytes - activations / 2, f"--per_device_train_batch_size {rows // 2}"))
    if plan.resident["experts"] > GIGA:
        found.append((plan.needed_bytes - plan.resident["experts"] / 2, f"--expert_slots {max(1, config.expert_slots // 2)}"))
    if plan.largest.phase not in ("training", "level"):
        found.append((plan.needed_bytes - plan.largest.peak_bytes / 2, "a lower --context_max_tokens, and so shorter prompts"))
    found.sort()
    return [
        f"{how}: {needed / GIGA:,.1f} GB{'' if needed <= plan.machine.memory else ', still too much'}" for needed, how in found
    ]
