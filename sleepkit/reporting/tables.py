"""Numbers and tables of results, in text and Markdown."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "METRICS",
    "as_yaml",
    "code_block",
    "comparison_columns",
    "comparison_table",
    "format_duration",
    "format_memory",
    "format_table",
    "format_value",
    "headline",
    "machine",
    "markdown_table",
    "meaningful",
    "number_columns",
]


METRICS = {
    "closed_book_before": "closed book, before sleep",
    "closed_book_after": "closed book, after sleep",
    "in_context": "with the documents in context (ceiling)",
    "recovery": "recovery: (after - before) / (in context - before)",
    "self_test_before": "own questions about the documents, kept back from training: before a night's training",
    "self_test_after": "own questions about the documents, kept back from training: after it",
    "self_test_n": "number of these questions",
    "anchor_kl": "anchor KL, nats per token (how far general text moved)",
    "anchor_accuracy_before": "general probes, before sleep",
    "anchor_accuracy_after": "general probes, after sleep",
    "class_il": "accuracy among all classes, after the last night (class-incremental)",
    "task_il": "accuracy within the task, after the last night (task-incremental)",
    "domain_il": "accuracy on all domains, after the last night (domain-incremental)",
    "faa": "final average accuracy",
    "aia": "average incremental accuracy",
    "bwt": "backward transfer",
    "forgetting": "forgetting",
    "retention_first": "share of the first experience's first-night score that is left",
    "out_of_scope_auroc": "AUROC of telling texts of no label from others, by the confidence of the answer",
    "fwt_probe": "forward transfer to a linear probe on the features",
    "fwt_assigned": "accuracy on new classes that have their units and are not learned yet",
    "fwt_assigned_task_il": "the same, each among its night's classes only",
    "bytes": "bytes kept besides the model",
    "dream_fidelity": "share of dreams that a judge of all classes recognises",
    "dream_diversity": "variance of dreams over that of images",
    "judge_accuracy": "accuracy of that judge",
    "faa_all_units": "final average accuracy where dreams may be answered too",
    "stop_updates": "updates of a prompt until its dream stopped",
    "stopped_early": "share of prompts that an oracle stopped before the last update",
    "collapse_rate": "share of dreams that became their target, or alike",
    "dreams_recognised": "share of newly painted dreams that the classifier gives to their unit",
    "dreams_of_future": "share of dreams that a judge takes for a class still to come",
    "dreams_of_seen": "share of dreams that a judge takes for a class met before",
    "sleep_change": "greatest change of a parameter in sleep",
    "extractor_change": "greatest change of a parameter of the features in sleep",
    "accuracy": "accuracy on the accumulated test set",
    "off_grid_accuracy": "accuracy in poses between those of training",
    "one_shot": "accuracy on classes never met, from one exemplar each, among all classes",
    "auroc": "AUROC of telling classes never met from known ones",
    "pose_rms": "root mean square error of the entries of the pose matrix",
    "nights_committed": "nights kept",
    "coverage": "share of the documents' sentences that some item answers",
}  # metric -> what it means; other metrics are shown under their own name


def format_value(value: Any) -> str:
    """A table cell: 3 decimals for fractions, an exponent for tiny ones, – for what was not measured."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    return str(value)


def format_duration(seconds: float) -> str:
    """Seconds as `7 min 12 s`, `1 h 5 min` or `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_memory(count: float) -> str:
    """Return a number of bytes in GiB, as text."""
    return f"{count / 2**30:.2f} GiB"


def number_columns(rows: Sequence[Sequence[Any]], count: int) -> list[bool]:
    """Return which of ``count`` columns hold nothing but numbers, or what was not measured: they are set to the right."""
    return [all(map(_is_number, column)) for column in zip(*rows, strict=True)] or [False] * count


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float)) and not isinstance(value, bool)


def format_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Aligned text for a terminal: columns of numbers to the right, all others to the left.

    Args:
        headers: one per column.
        rows: cells of any type, as many as there are headers; see `format_value`.
    """
    raw = [list(row) for row in rows]
    lines = [list(headers), *([format_value(cell) for cell in row] for row in raw)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = number_columns(raw, len(headers))
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if to_right else f"{cell:<{width}}"
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown, numbers to the right as in `format_table`; text in cells is escaped."""
    raw = [list(row) for row in rows]
    right = number_columns(raw, len(headers))
    lines = [list(headers), ["---:" if to_right else "---" for to_right in right]]
    lines += [[escape(format_value(cell)) for cell in row] for row in raw]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape(text: str) -> str:
    """`text` on one line, such that Markdown and HTML show it as it is."""
    return re.sub(r"[\\`*<|\[\]~$&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def comparison_table(results: Iterable[Mapping[str, Any]]) -> str:
    """`comparison_columns` as a Markdown table."""
    return markdown_table(*comparison_columns(results))


def comparison_columns(results: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Headings, and one row per method, in the order given: mean ± sample standard deviation over its seeds.

    Args:
        results: contents of `results.json`; runs of the same `method` are seeds of one row. Runs that did not measure a
            metric are left out of its mean; – where none did. Runs on images have columns of their own, and so have own
            questions where some run asked any; those of the data set are left out where no run had any.
    """
    methods = grouped(results, "method")
    measured = {name for runs in methods.values() for run in runs for name in run["metrics"]}
    images = measured & {"class_il", "task_il", "domain_il"}
    columns = {name: head for name, head in IMAGE_COLUMNS.items() if name in measured} if images else _text_columns(measured)
    rows = [
        [
            method,
            len(runs),
            *(spread([run["metrics"].get(name) for run in runs], 0 if name in WHOLE else 3) for name in columns),
            spread([run["seconds"] for run in runs], digits=0),
        ]
        for method, runs in methods.items()
    ]
    return ["method", "seeds", *columns.values(), "seconds"], rows


def _text_columns(measured: set[str]) -> dict[str, str]:
    own = {name: head for name, head in OWN_COLUMNS.items() if name in measured}
    if own and "closed_book_after" not in measured:
        return own | {"anchor_kl": TEXT_COLUMNS["anchor_kl"]}
    return TEXT_COLUMNS | own


def grouped(results: Iterable[Mapping[str, Any]], by: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Results with the same value of ``by``, which are the seeds of one row, in the order in which they first appear."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(result[by], []).append(result)
    return groups


def spread(values: Sequence[float | None], digits: int = 3, separator: str = "") -> str:
    """Mean ± standard deviation of what was measured, with ``separator`` between thousands."""
    present = [value for value in values if value is not None]
    if not present:
        return format_value(None)
    mean = f"{statistics.fmean(present):{separator}.{digits}f}"
    return mean if len(present) == 1 else f"{mean} ± {statistics.stdev(present):{separator}.{digits}f}"


def headline(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(meaning, value) of the run's metrics, the known ones first in the order of `METRICS`."""
    metrics = results["metrics"]
    names = [name for name in METRICS if name in metrics] + [name for name in metrics if name not in METRICS]
    return [(METRICS.get(name) or _ROUND.sub(_round_words, name), metrics[name]) for name in names]


def _round_words(found: re.Match[str]) -> str:
    name, held_out, number = found.groups()
    return f"{_OF_ROUND[name]}, round {number}{', held out' if held_out else ''}"


def mean_duration(runs: Iterable[Mapping[str, Any]]) -> str:
    """Mean of `seconds_total` of the runs that have it; – where none has."""
    seconds = [run["seconds_total"] for run in runs if run.get("seconds_total") is not None]
    return format_duration(statistics.fmean(seconds)) if seconds else format_value(None)


def code_block(value: Any) -> str:
    """`value` as YAML in a Markdown block; nothing if it is empty."""
    text = as_yaml(value)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))  # longer than any fence inside
    return f"{fence}yaml\n{text}\n{fence}" if text else ""


def as_yaml(value: Any) -> str:
    """`value` as YAML, in its own order; nothing if it is empty."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).rstrip() if value else ""


def machine(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Processor, memory, accelerators and versions of a run, by name."""
    hardware = results["hardware"]
    return [
        ("CPU", f"{hardware['cpu']}, {hardware['cores']} cores"),
        ("RAM", format_memory(hardware["ram_bytes"])),
        ("GPU", ", ".join(hardware["gpus"]) or "none"),
        *results["versions"].items(),
    ]


TEXT_COLUMNS = {"recovery": "recovery", "closed_book_after": "closed book after", "anchor_kl": "anchor KL", "bwt": "BWT"}


OWN_COLUMNS = {"self_test_before": "own questions before", "self_test_after": "own questions after"}


IMAGE_COLUMNS = {"class_il": "class-IL", "task_il": "task-IL", "domain_il": "domain-IL", "bwt": "BWT", "forgetting": "forgetting"}
IMAGE_COLUMNS |= {"intransigence": "intransigence", "dream_fidelity": "dream fidelity", "bytes": "bytes"}
IMAGE_COLUMNS |= {"cpu_seconds": "CPU seconds"}


WHOLE = ("bytes", "cpu_seconds")  # shown without decimals


_ROUND = re.compile(r"^(share_positive|mean_reward|solved)(_held_out)?_round_(\d+)$")


_OF_ROUND = {
    "share_positive": "share of dreams with a positive reward",
    "mean_reward": "mean reward of a dream, nats a token",
    "solved": "share of dreams that solve their task",
}


LEAST_CEILING = 0.25
"""How much more must be right with the text in the prompt than before sleep, for a recovery to mean something."""


def meaningful(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run, without its recovery where the text in the prompt brings less than `LEAST_CEILING`."""
    ceiling = run.get("in_context")
    if ceiling is None or ceiling - (run.get("closed_book_before") or 0) >= LEAST_CEILING:
        return run
    return {**run, "recovery": None}
