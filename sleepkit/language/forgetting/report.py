"""What a forgetting measured, in words: the lines of `sleepkit forget`.

lines_of(row)    of the fields that trainers/forgetting.py lists
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sleepkit.language.forgetting.traces import TOLERANCE

__all__ = ["POINTS", "lines_of"]

WHEN = {"before": "before", "after": "now", "unslept": "without any sleep"}
POINTS = 0.02  # share of questions that may be answered beyond what the model before a night answers


def lines_of(row: Mapping[str, Any]) -> list[str]:
    """Say what other experts held of the nights, what is answered, and what the loss tells."""
    return [*_of_traces(row), *_of_answers(row), *_of_losses(row)]


def _of_traces(row: Mapping[str, Any]) -> list[str]:
    """What other experts held of it, and hold still."""
    before, after, steps = (row.get(name) for name in ("traces_before", "traces_after", "forgetting_steps"))
    if before is None or after is None:
        return ["it has left no items, so what other experts hold of it is not known"]
    if not steps:
        return [f"other experts hold no traces of it ({before:.2f} nats per token of its replies)"]
    lost = f"items of other nights lost {row['others_lost']:.2f}"
    lines = [f"traces in other experts: {before:.2f} nats per token of its replies, {after:.2f} after {steps} steps; {lost}"]
    if after > TOLERANCE:
        lines.append("traces are left; a model without any is one that starts anew without its documents (--overwrite true)")
    return lines


def _of_answers(row: Mapping[str, Any]) -> list[str]:
    """Closed book before and after, and a line where more is answered than without any sleep."""
    lines = [] if "forgotten_n" in row else ["there are no questions about it, so nothing could be asked"]
    for name, what in (("forgotten", "what was forgotten"), ("others", "all other nights")):
        if f"{name}_n" in row:
            shares = ", ".join(f"{row[f'{name}_{when}']:.1%} {said}" for when, said in WHEN.items())
            lines.append(f"closed book on {what}: {shares} ({row[f'{name}_n']} questions)")
    if row.get("forgotten_after", 0) > row.get("forgotten_unslept", 0) + POINTS:
        lines.append("that is more than the model without any sleep answers: other nights tell some of it, or traces are left")
    return lines


def _of_losses(row: Mapping[str, Any]) -> list[str]:
    """Loss on what was read and was never read, and what it tells of the former."""
    names = {"forgotten_loss": "the text that was forgotten", "others_loss": "the text of all other nights"}
    names["never_read_loss"] = "the retention set's prompts, which were never learned"
    lines = []
    for name, what in names.items():
        if f"{name}_n" in row:
            losses = ", ".join(f"{row[f'{name}_{when}']:.2f} {said}" for when, said in WHEN.items())
            lines.append(f"loss on {what}: {losses} (nats per token, {row[f'{name}_n']} passages)")
    if "membership_after" in row:
        before, after = row["membership_before"], row["membership_after"]
        lines.append(
            f"by that loss, less what it is without any sleep, its passages are told from those prompts with an AUC of "
            f"{before:.2f} before, {after:.2f} now (0.5: not at all)"
        )
    return lines
