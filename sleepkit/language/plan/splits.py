"""What of a night each process does for itself, and what all do together: facts about the code as it is.

When a phase is split over the ranks, or done for what is drawn alone, its line here changes, and nothing else of the plan does.
"""

from __future__ import annotations

__all__ = ["SHARDED_WHILE_WRITING", "SPLIT", "share"]

SPLIT = {
    "questions": True,  # `generate` deals the prompts of each call out to the ranks
    "retention": True,
    "writing": True,
    "scoring": True,  # how likely the answers to written questions are
    "self-test": True,
    "targets": True,  # the teacher's pass, and what the frozen layers make
    "rollouts": True,  # written together, and read again by the rank that trains on them
    "training": True,  # each rank has its own items in a step
    "dreaming": True,
    "dream scores": True,  # gradients of all dreams
    "trials": True,
    "learning to dream": True,
    "level": True,
}
SHARDED_WHILE_WRITING = False  # whether a model that fits on no single GPU can be kept sharded all night, generation included


def share(phase: str, ranks: int) -> int:
    """Return by how much the work of a phase is divided on ``ranks`` processes."""
    return ranks if SPLIT[phase] else 1
