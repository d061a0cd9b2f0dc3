"""What a report says of a run, in words and rows, whatever shows them: Markdown (report.py) or one page (page.py).

    summary    sentences, the most important first: was anything learned, was it kept, what did it move
    nights     a row for each night: kept or undone and why, own questions before and after
    examples   answers, spread evenly over all questions; where it is known which are right, right and wrong ones apart

Own questions are those that a night makes from its documents and keeps back from training: with documents and no
questions of the user's, they alone tell whether anything was learned.

Left out: numbers and tables as text (report.py), pictures (plots.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleepkit.reporting.results import in_model
from sleepkit.reporting.tables import METRICS, format_duration, format_memory, format_value, meaningful
from sleepkit.utils.seeds import evenly

__all__ = [
    "ExampleGroup",
    "answer_cells",
    "change",
    "example_groups",
    "gate_words",
    "night_numbers",
    "nights_table",
    "summary",
    "tiles",
]

IMAGE_SCORES = ("class_il", "task_il", "domain_il")
SHOWN = 6  # right and wrong examples, each
SPREAD = 12  # examples over all
CHANCE = 2  # questions that may flip for a comma, as in gate.py

Row = Mapping[str, Any]


def summary(results: Row) -> list[str]:
    """The numbers that matter as sentences, as far as they were measured; figures between ``**`` are the main ones."""
    metrics = results["metrics"]
    nights = results.get("nights") or []
    sentences = [*_undone(nights), *_forgotten(nights), *_own_documents(metrics)]
    images = [f"{METRICS[name]} **{metrics[name]:.1%}**" for name in IMAGE_SCORES if metrics.get(name) is not None]
    if images:
        sentences.append(f"On held-out images: {', '.join(images)}.")
    if meaningful(metrics).get("recovery") is not None:
        sentences.append(f"That recovers **{metrics['recovery']:.0%}** of what the documents in context give.")
    if metrics.get("anchor_kl") is not None:
        sentences.append(f"On general prompts the model moved by {format_value(metrics['anchor_kl'])} nats per token.")
    took, peak = format_duration(results["seconds"]), format_memory(results["peak_memory_bytes"])
    return [*sentences, f"It took {took}, with at most {peak}."]


def _undone(nights: Sequence[Row]) -> list[str]:
    undone = [night for night in nights if not night.get("committed", True)]
    if not undone:
        return []
    if len(undone) == len(nights):
        return ["**No night was kept**, so the model is as it was before; what follows was measured before that was decided."]
    return [f"**{len(undone)} of {len(nights)} nights undone**: what was learned in them is not in the model."]


def _own_documents(metrics: Row) -> list[str]:
    """Scores before and after, on the user's questions and on the run's own."""
    sentences = []
    before, after = metrics.get("closed_book_before"), metrics.get("closed_book_after")
    if before is not None and after is not None:
        sentences.append(f"Without the documents, the score went from {before:.1%} before sleep to **{after:.1%}** after it.")
    before, after, n = (metrics.get(f"self_test_{name}") for name in ("before", "after", "n"))
    if before is not None and after is not None:
        asked = f"{n:,} questions" if n else "questions"
        verdict = "" if sentences else f"{_verdict(before, after, n)} "
        sentences.append(
            f"{verdict}On {asked} that were made from the documents and kept back from training, "
            f"the score went from {before:.1%} before a night's training to **{after:.1%}** after it."
        )
    return sentences


def _forgotten(nights: Sequence[Row]) -> list[str]:
    names = [f"night {night.get('night')}, {_experience(night)}" for night in nights if night.get("forgotten")]
    return [f"**Forgotten since**: {'; '.join(names)}."] if names else []


def _verdict(before: float, after: float, n: int | None) -> str:
    if after <= before:
        return "**Nothing was learned** that these questions could show."
    if n and (after - before) * n <= CHANCE + 1e-9:
        return f"**Little was learned, if anything**: {CHANCE} questions more may be chance."
    return "**The model learned** from the documents."


def tiles(results: Row) -> list[tuple[str, str, str]]:
    """(value, what it is, remark) of the few numbers that are read first."""
    metrics, nights = results["metrics"], results.get("nights") or []
    n = metrics.get("self_test_n")
    found: list[tuple[str | None, str, str]] = [
        (_before_after(metrics, "closed_book"), "closed book", "without the documents"),
        (
            _before_after(metrics, "self_test"),
            "own questions",
            f"{n:,} kept back from training" if n else "kept back from training",
        ),
        *((f"{metrics[name]:.1%}", METRICS[name], "") for name in IMAGE_SCORES if metrics.get(name) is not None),
    ]
    if meaningful(metrics).get("recovery") is not None:
        found.append((f"{metrics['recovery']:.0%}", "recovery", "of what the documents in context give"))
    if metrics.get("anchor_kl") is not None:
        found.append((format_value(metrics["anchor_kl"]), "general text", "nats per token that it moved"))
    if nights:
        kept = sum(map(in_model, nights))
        found.append((f"{kept} of {len(nights)}", "nights kept" if len(nights) > 1 else "night kept", ""))
    found.append((format_duration(results["seconds"]), "time", f"at most {format_memory(results['peak_memory_bytes'])}"))
    return [(value, what, remark) for value, what, remark in found if value is not None]


def _before_after(row: Row, name: str) -> str | None:
    return change(row.get(f"{name}_before"), row.get(f"{name}_after"))


def change(before: float | None, after: float | None, n: int | None = None) -> str | None:
    """Two shares as ``6% → 81% of 16``; None if nothing was measured after."""
    if after is None:
        return None
    shown = f"{after:.0%}" if before is None else f"{before:.0%} → {after:.0%}"
    return f"{shown} of {n}" if n else shown


# -- nights -------------------------------------------------------------------------------------------------------------
def _experience(night: Row) -> str | None:
    documents = night.get("documents")
    return ", ".join(map(str, documents)) if documents else night.get("experience")


def _minutes(night: Row) -> str | None:
    return None if night.get("seconds") is None else format_duration(night["seconds"])


def _field(name: str) -> Callable[[Row], Any]:
    return lambda night: night.get(name)


def _both(name: str) -> Callable[[Row], str | None]:
    return lambda night: change(night.get(f"{name}_before"), night.get(f"{name}_after"), night.get(f"{name}_n"))


COLUMNS: dict[str, tuple[Callable[[Row], Any], tuple[str, ...]]] = {
    "night": (_field("night"), ("night",)),
    "date": (_field("date"), ("date",)),
    "experience": (_experience, ("experience", "documents")),
    "verdict": (lambda night: _fate(night), ("committed", "forgotten", "forgotten_date", "rollback_to")),
    "why": (lambda night: gate_words(night.get("reason")), ("reason",)),
    "of what was forgotten": (
        lambda night: _left(night),
        tuple(f"{name}_{when}" for name in ("forgotten", "forgotten_loss") for when in ("before", "after", "unslept", "n")),
    ),
    "own questions": (_both("held_out"), ("held_out", "held_out_before", "held_out_after", "held_out_n")),
    "earlier nights": (_both("retention"), ("retention", "retention_before", "retention_after", "retention_n")),
    "closed book": (lambda night: change(None, night.get("closed_book")), ("closed_book",)),
    **{name.replace("_il", "-IL"): (_field(name), (name,)) for name in IMAGE_SCORES},
    "anchor KL": (_field("anchor_kl"), ("anchor_kl",)),
    "time": (_minutes, ("seconds",)),
}  # heading -> the cell of a night, and the fields that it shows


def _left(night: Row) -> str | None:
    """Closed book on what was forgotten, and the loss on its text, before, after and without any sleep."""
    parts = []
    if (answered := change(night.get("forgotten_before"), night.get("forgotten_after"), night.get("forgotten_n"))) is not None:
        parts.append(f"answered {answered} (unslept {night['forgotten_unslept']:.0%})")
    if night.get("forgotten_loss_after") is not None:
        before, after, unslept = (night[f"forgotten_loss_{when}"] for when in ("before", "after", "unslept"))
        parts.append(f"loss {before:.2f} → {after:.2f} (unslept {unslept:.2f})")
    return ", ".join(parts) or None


def _fate(night: Row) -> str | None:
    committed = night.get("committed")
    if night.get("forgotten"):
        back = night.get("rollback_to")
        return f"forgotten {night['forgotten_date']}" + ("" if back is None else f" (back to night {back})")
    return None if committed is None else "kept" if committed else "undone"


def nights_table(nights: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Headings, and a row for each night: what a person wants to know of it, as far as some night has it."""
    cells = {head: [cell(night) for night in nights] for head, (cell, _) in COLUMNS.items()}
    shown = {head: column for head, column in cells.items() if any(value is not None for value in column)}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def night_numbers(nights: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Headings, and a row for each night, of all that `nights_table` leaves out; no rows if there is nothing else."""
    told = {name for _, names in COLUMNS.values() for name in names}
    names = list(dict.fromkeys(key for night in nights for key in night if key not in told))
    return ["night", *names], [[night.get("night"), *(night.get(name) for name in names)] for night in nights if names]


_CHECK = re.compile(
    r"(anchor KL|anchor accuracy|earlier nights|own questions) (\S+)(?: -> (\S+))? \((not )?(<=|drop <=|gain >) (\S+)\)"
)
_ASKED = {"anchor accuracy": "general probes", "earlier nights": "questions of earlier nights", "own questions": "own questions"}


def gate_words(reason: str | None) -> str | None:
    """A verdict of the gate (gate.py) in words; what is no such verdict stays as it is."""
    return None if reason is None else _CHECK.sub(_check_words, reason)


def _check_words(found: re.Match[str]) -> str:
    name, value, after, failed, _, limit = found.groups()
    if after is None:
        moved = f"general text moved by {value} nats per token"
        return f"{moved}, above the limit of {limit}" if failed else f"{moved} (limit {limit})"
    shown = f"{_ASKED[name]} {_share(value)} → {_share(after)}"
    points = f"{100 * float(limit):g} points"
    if name == "own questions":
        least = f"more than {points}" if float(limit) else "something"
        return f"{shown}, and had to gain {least}" if failed else shown
    return f"{shown}, more than the {points} that may be lost" if failed else f"{shown} (may lose {points})"


def _share(number: str) -> str:
    value = float(number)
    return f"{value:.0%}" if value == value else "not a number"


# -- examples -----------------------------------------------------------------------------------------------------------
@dataclass
class ExampleGroup:
    """Some questions with their answers, and how they were chosen."""

    title: str
    rows: list[Row]


def example_groups(results: Row, answers: Sequence[Row] = ()) -> list[ExampleGroup]:
    """Questions to show: spread evenly over all, and right and wrong ones apart where rows say which are right.

    Nothing is picked by hand: of each group every k-th is taken, and its title says how many of how many.

    Args:
        results: content of ``results.json``; its examples of the user's questions count if there are no ``answers``.
        answers: content of ``answers.json``, a row for each question.
    """
    examples = results.get("examples") or []
    rows = [*(answers or (row for row in examples if not row.get("own"))), *(row for row in examples if row.get("own"))]
    groups = []
    for own, name in ((False, "Questions of the data set"), (True, "Own questions, kept back from training")):
        groups += _groups(name, [row for row in rows if bool(row.get("own")) == own])
    return groups


def _groups(name: str, rows: Sequence[Row]) -> list[ExampleGroup]:
    judged = [row for row in rows if isinstance(row.get("right_after"), bool)]
    right = [row for row in judged if row["right_after"]]
    wrong = [row for row in judged if not row["right_after"]]
    groups = [
        _group(f"{name}: right after sleep", right, SHOWN, len(judged)),
        _group(f"{name}: wrong after sleep", wrong, SHOWN, len(judged)),
    ]
    if sum(len(group.rows) for group in groups) < len(rows):
        groups.append(_group(f"{name}: spread over all", rows, SPREAD, len(rows)))
    return [group for group in groups if group.rows]


def _group(name: str, rows: Sequence[Row], most: int, all_rows: int) -> ExampleGroup:
    spread = evenly(rows, most)
    share = f"{len(rows)} of {all_rows}" if len(rows) < all_rows else f"{len(rows)}"
    chosen = "" if len(spread) == len(rows) else f"; {len(spread)} of them, evenly spread"
    return ExampleGroup(f"{name} ({share}{chosen})", spread)


ANSWERS = {
    "gold": "expected",
    "before": "before sleep",
    "after": "after sleep",
    "final": "after the last night",
    "in_context": "documents in context",
}


def answer_cells(row: Row) -> list[tuple[str, str, str]]:
    """(what, text, "right", "wrong" or "") of an example: the expected answer, and the model's own.

    What it said after the last night is left out where it is what it said after the question's own.
    """
    names = [name for name in ANSWERS if row.get(name) is not None and not (name == "final" and row["final"] == row.get("after"))]
    marks = {True: "right", False: "wrong", None: ""}
    return [(ANSWERS[name], str(row[name]), marks.get(row.get(f"right_{name}"), "")) for name in names]
