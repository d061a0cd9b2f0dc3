"""The commit gate: whether a night is kept or undone, decided on measured numbers, and the proof that it was undone.

A night is kept if and only if all of these hold, as far as they were measured::

    anchor_kl                        <= max_anchor_kl        mean per-token KL(unslept || now), general prompts
    anchor_accuracy: before - after  <= max_anchor_drop      share of general probes answered, `anchor_n` of them
    held_out:        after - before  >  min_gain             own questions about tonight, not trained on
    retention:       before - after  <= max_retention_drop   own questions about earlier nights, `retention_n` of them

Of few questions, what is lost is no evidence: up to `CHANCE` of the own ones may be.  General probes of a small model are
guesses, which change with any change of the model, for better and for worse: up to `CHANCE_OF_PROBES` of them may be
lost (sign test: if each answer that changed had changed for the worse, four would do so by chance once in 16 times, five once
in 32); KL sees smaller changes.

The retention set is compared with the original model, so that losses cannot add up; gain and recall are compared with the
state before tonight's training.  NaN and infinity fail whatever the limits are; without a gate they end the run
(`require_finite_measures`).  Where a check fails, the learner restores its snapshot, bit for bit: `digest` of the weights before
the night and after the rollback must be equal.

Ours: all of it; "Language Models Need Sleep" (arXiv 2606.03979) commits every night and reports no retention.  Left
out: the measuring, which is the learner's.  Evaluation questions are never among the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError

if TYPE_CHECKING:
    pass

__all__ = ["RetentionGate", "Verdict", "require_finite_measures"]


CHANCE, CHANCE_OF_PROBES = 2, 4  # questions


@dataclass(frozen=True)
class Verdict:
    """Whether to keep a night, and why, in one line of numbers."""

    commit: bool
    reason: str


@dataclass(frozen=True)
class RetentionGate:
    """Decides whether a night is kept, by limits on what it forgets and on what it gains.

    Args:
        max_anchor_kl (`float`, defaults to 0.05): highest mean KL to the unslept model on the retention set, nats/token, >= 0.
        max_anchor_drop (`float`, defaults to 0.05): highest drop of the share of the retention set that is answered, >= 0.
        min_gain (`float`, defaults to 0): what the gain on own questions must exceed, from -1 (any night passes) to 1.
        max_retention_drop (`float`, defaults to 0.1): highest drop on questions of earlier nights in one night, >= 0.

    Raises:
        SleepkitError: a limit out of its range.

    Example:

        >>> RetentionGate(min_gain=0.1).decide({"held_out": 0.25}, {"held_out": 0.75, "anchor_kl": 0.01}).commit
        True
    """

    max_anchor_kl: float = 0.05
    max_anchor_drop: float = 0.05
    min_gain: float = 0.0
    max_retention_drop: float = 0.1

    def __post_init__(self) -> None:
        for name in ("max_anchor_kl", "max_anchor_drop", "max_retention_drop"):
            if not getattr(self, name) >= 0:
                raise SleepkitError(f"{name} is {getattr(self, name)}; give a number of at least 0")
        if math.isnan(self.min_gain):
            raise SleepkitError("min_gain is not a number; give one from -1 to 1")

    def decide(self, before: Mapping[str, float], after: Mapping[str, float]) -> Verdict:
        """Judge a night by its measures, any of those that the module names.

        Args:
            before: measures before the night (``anchor_kl`` is not needed: it is 0 for the unslept model).
            after: the same after it.  What is missing in either is not judged.
        """
        checks = []  # (passed, sentence)
        if "anchor_kl" in after:
            kl = after["anchor_kl"]
            checks.append(_check("anchor KL", kl <= self.max_anchor_kl, f"{kl:.4f}", "<=", self.max_anchor_kl))
        for name, label, limit, count, chance in (
            ("anchor_accuracy", "anchor accuracy", self.max_anchor_drop, "anchor_n", CHANCE_OF_PROBES),
            ("retention", "earlier nights", self.max_retention_drop, "retention_n", CHANCE),
        ):
            if name in before and name in after:
                limit = max(limit, chance / after[count] if after.get(count) else 0.0)
                drop = before[name] - after[name]
                shown = f"{before[name]:.3f} -> {after[name]:.3f}"
                checks.append(_check(label, drop <= limit + _ROUNDING, shown, "drop <=", limit))
        if "held_out" in before and "held_out" in after:
            gain = after["held_out"] - before["held_out"]
            shown = f"{before['held_out']:.3f} -> {after['held_out']:.3f}"
            checks.append(_check("own questions", gain > self.min_gain, shown, "gain >", self.min_gain))
        failed = [sentence for passed, sentence in checks if not passed]
        failed = failed or [f"{name.replace('_', ' ')} is {after[name]}" for name in _not_finite(after)]
        reason = "; ".join(failed or [sentence for _, sentence in checks]) or "nothing was measured"
        return Verdict(not failed, reason)


def require_finite_measures(after: Mapping[str, float], night: str) -> None:
    """Raise `SleepkitError` unless all measures after a night are numbers: a night that nobody judges is not kept either then.

    Args:
        night: its name, such as "night 2/3".
    """
    wrong = _not_finite(after)
    if wrong:
        raise SleepkitError(
            f"{night}: {wrong[0]} is {after[wrong[0]]} after it, so it is not kept; lower learning_rate, or use float32 where it "
            "trains in half precision"
        )


def _not_finite(measures: Mapping[str, float]) -> list[str]:
    """Names of measures that are NaN or infinite; not of accuracy on no questions, which is no number."""
    asked = {name for name in measures if name != "anchor_accuracy" or measures.get("anchor_n")}
    return [name for name in sorted(asked) if not math.isfinite(measures[name])]


_ROUNDING = 1e-9  # 0.92 - 0.91 is not quite 0.01


def _check(label: str, passed: bool, shown: str, relation: str, limit: float) -> tuple[bool, str]:
    return passed, f"{label} {shown} ({'' if passed else 'not '}{relation} {limit:g})"
