"""What a night is going to do, in words, before it does it: what is read, what is made of it, and how much of that is seen.

    plan_text(...)    before the first step, from counts
    pace_text(...)    after a few steps, from what these took

Left out: counting (the learner) and measuring (observer.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sleepkit.reporting.tables import format_duration, format_memory

__all__ = ["pace_text", "plan_text"]


def plan_text(
    *,
    documents: int,
    words: int,
    items: Mapping[str, int],
    steps: int,
    seen: int,
    kept_back: int = 0,
    beside: int = 0,
    coverage: float = 1.0,
) -> str:
    """Two sentences: what is learned from, and how often the steps of a night come by.

    Args:
        documents, words: that are read tonight.
        items: number of new items by style.
        steps: optimizer steps of the night.
        seen: new items that these take, counted as often as they are taken.
        kept_back: items that are asked, not learned.
        beside: items of earlier nights, and general ones.
        coverage: share of the documents' sentences that some item answers, from 0 to 1; told below 1.
    """
    count = sum(items.values())
    styles = ", ".join(f"{style} {number:,}" for style, number in sorted(items.items(), key=lambda pair: -pair[1]))
    parts = [f"{_counted(documents, 'document')}, {_counted(words, 'word')}: {_counted(count, 'item')}"]
    parts[0] += f" ({styles})" if styles else ""
    parts += [f"covers {_percent(coverage)} % of {'its' if documents == 1 else 'their'} sentences"] if coverage < 1 else []
    parts += [f"{kept_back:,} kept back to test"] if kept_back else []
    parts += [f"{beside:,} general or earlier ones beside"] if beside else []
    return f"{'; '.join(parts)}. {_passes(count, steps, seen)}"


def _percent(share: float) -> int:
    """A share below 1 in whole percent, of which 100 would say too much."""
    return min(99, round(100 * share))


def _passes(items: int, steps: int, seen: int) -> str:
    if not items:
        return "Nothing new is learned."
    if seen >= items:
        times = seen / items
        often = "once" if round(times, 1) == 1 else f"{times:.1f} times"
        return f"{_counted(steps, 'step')}, in which each item is seen {often}."
    share = f"{100 * seen / items:.1f}" if 1000 * seen >= items else f"{100 * seen / items:.2g}"
    needed = f" ({math.ceil(steps * items / seen):,} steps)" if seen else ""
    see = "sees" if steps == 1 else "see"
    return f"{_counted(steps, 'step')} {see} {share} % of {items:,} items: use --max_steps -1 for all of them{needed}."


def pace_text(steps: int, seconds_per_step: float, memory_bytes: float, done: int = 0) -> str:
    """How long the rest of ``steps`` takes at the pace that was measured, ``done`` of them being done."""
    left = format_duration((steps - done) * seconds_per_step)
    pace = format_duration(seconds_per_step)
    return f"about {left} for {_counted(steps - done, 'step')}, {pace} each; at most {format_memory(memory_bytes)} so far"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
