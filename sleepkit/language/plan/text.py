"""A plan in words, as `sleepkit plan` prints it."""

from __future__ import annotations

from sleepkit.language.plan.plan import RunPlan
from sleepkit.reporting.tables import format_duration, format_memory, format_table

__all__ = ["plan_lines"]

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"))


def plan_lines(plan: RunPlan) -> str:
    """Fits or not and why, memory by part, tokens, FLOPs and time by phase, the publishing, and what is assumed."""
    model, tokens = plan.model, plan.tokens
    nights = plan.nights
    steps = sum(night.get("steps", 0) for night in nights)
    new = sum(night.get("new_items", 0) for night in nights)
    lines = [
        f"{'fits' if plan.fits else 'DOES NOT FIT'}: {plan.why}",
        *(f"  to change: {change}" for change in plan.change),
        "",
        f"{model['model_type']}, {model['parameters']:,} parameters in {model['dtype']}, on {plan.machine.name}",
        f"{_count(len(nights), 'night')}: {_count(new, 'new item')}, {_count(steps, 'step')}; "
        f"{tokens['trained']:,} tokens trained on, {tokens['written']:,} written, {tokens['read']:,} read",
        f"{format_duration(plan.seconds)}, {format_flops(plan.flops)}",
        "",
        format_table(["memory of one process", "bytes"], [[name, format_memory(size)] for name, size in _parts(plan)]),
        "",
        format_table(["phase", "read", "written", "trained", "FLOPs", "on all ranks", "time", "memory"], _phases(plan)),
        "",
        f"publish ({plan.export.form}): {format_memory(plan.export.file_bytes)} on disk, at most "
        f"{format_memory(plan.export.peak_bytes + plan.libraries * (plan.machine.device == 'cpu'))} of RAM, "
        f"{format_duration(plan.export.seconds)} to write",
        "",
        "assumed:",
        *(f"- {line}" for line in plan.assumptions),
    ]
    return "\n".join(lines)


def format_flops(flops: float) -> str:
    """FLOPs with three digits: ``1.25 PFLOP``."""
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if flops >= size), (1e6, "M"))
    return f"{flops / size:.3g} {prefix}FLOP"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _parts(plan: RunPlan) -> list[tuple[str, float]]:
    """What one process holds at its highest: what it holds all night, and the parts of the phase that needs most."""
    libraries = "Python and its libraries" if plan.machine.device == "cpu" else "CUDA and its libraries"
    always = [(libraries, plan.libraries), *plan.resident.items()]
    return [
        *always,
        *((f"{plan.largest.phase}: {name}", size) for name, size in plan.largest.parts),
        ("needed", plan.needed_bytes),
    ]


def _phases(plan: RunPlan) -> list[list[str]]:
    return [
        [
            cost.phase,
            *(f"{number:,}" if number else "" for number in (cost.read, cost.written, cost.trained)),
            format_flops(cost.flops),
            f"{cost.repeated:.2f}x",
            format_duration(cost.seconds),
            format_memory(cost.peak_bytes),
        ]
        for cost in plan.phases
    ]
