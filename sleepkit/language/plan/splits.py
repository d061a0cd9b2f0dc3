"""What of a night each process does for itself, and what all do together: facts about the code as it is.

When a phase is split over the ranks, or done for what is drawn alone, its line here changes, and nothing else of the plan does.
"""

from __future__ import annotations

__all__ = ["SHARDED_WHILE_WRITING", "SPLIT", "TARGETS_OF_DRAWN_ITEMS_ONLY", "share"]

SPLIT = {
    "questions": True,  # `generate` deals the prompts of each call out to the ranks
    "retention": False,  # replies are split, hidden states are read by each rank
    "writing": True,
    "scoring": False,  # how likely the answers to written questions are
    "self-test": True,
    "targets": False,  # the teacher's pass, and what the frozen layers make, of all items
    "rollouts": True,  # written together, and read again by the rank that trains on them
    "training": True,  # each rank has its own items in a step
    "dreaming": True,
    "dream scores": False,  # gradients of all dreams
    "trials": True,
    "learning to dream": True,
    "level": True,
}
TARGETS_OF_DRAWN_ITEMS_ONLY = False  # whether targets are made only of what the plan of batches draws
SHARDED_WHILE_WRITING = False  # whether a model that fits on no single GPU can be kept sharded all night, generation included


def share(phase: str, ranks: int) -> int:
    """Return by how much the work of a phase is divided on ``ranks`` processes."""
    return ranks if SPLIT[phase] else 1
