"""Writes the tables of README.md and docs/, and the page of each experiment, again from the saved results.

    <!-- table:NAME -->   whatever stands between these two lines is replaced
    <!-- /table -->       by the table of benchmarks/results/NAME.json

`NAME-matrix` is the accuracy matrix of each seed of knowledge seeding in NAME.json, `NAME-differences` what each variant has
more than the first one, `summary` all files that hold knowledge seeding's own results, `main` those of `MAIN` in fewer columns,
`streams` all methods of the files whose name begins with mygo_split.  Recovery is left out where the text in the prompt brings
too little to divide by.

A file holds one of: runs that `run_table.py` collected (`runs`), the speed of one step (`systems`), the cost of dreaming
(`dreaming`), that of the Trainer on images (`mygo`), that of dreams (`dream2learn`), what each part of a night of dreams brings
(`dream_controls`), what each process of a night does (`shares`), the speed of drawing sprites (`images_per_second`), what
exemplars and sigma bring (`sensitivity`), runs that `image_table.py` collected (`image_runs`; those of recipes/disentangled.py,
with distortions or without, of dream2learn.py, and of dream.py and arc.py have tables of their own), plans and what was seen of
them (`slept`), nights at real size on a GPU (`cases`), or one run's own `results.json` (`metrics`).  Left out: prose;
what the numbers mean is the pages' to say.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.experiments import differences_table, experiment_page, matrices, runs_table
from sleepkit.reporting.tables import (
    comparison_table,
    format_duration,
    format_memory,
    grouped,
    headline,
    markdown_table,
    mean_duration,
    meaningful,
    spread,
)
from sleepkit.utils.files import read_json

ROOT = Path(__file__).parent.parent
PAIRED = "dream2learn"  # how the method of a comparison with and without dreams begins
OF_DREAMS = (
    *("dreams", "dream_kind", "repaint", "oracle", "assignment", "refresh", "strength", "stop_threshold", "dream_weight"),
    *("shared_noise", "wake_dream_weight", "dream_updates", "dream_images", "sleep_steps", "memory_steps"),
    "prompt_learning_rate",
)
MARKER = re.compile(r"(?P<head><!-- table:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<tail><!-- /table -->)", re.DOTALL)


def render(document: Mapping[str, Any]) -> str:
    """The Markdown table of a results file.

    Raises:
        SleepkitError: a file of none of these kinds.
    """
    for kind, table in KINDS.items():
        if kind in document:
            return table(document)
    *kinds, last = KINDS
    raise SleepkitError(f"a results file with {', '.join(document) or 'nothing'} has no table; give {', '.join(kinds)} or {last}")


def _image_runs(document: Mapping[str, Any]) -> str:
    """The table of the runs' method, or that of all methods on images."""
    runs = document["image_runs"]
    if any(run["config"].get(name) for run in runs for name in DISTORTIONS):
        return _distorted(runs)
    for method, table in (("disentangled", _poses), (PAIRED, _gains), ("dreaming", _dreamers), ("arc_dreaming", _dreamers)):
        if all(run["method"].startswith(method) for run in runs):
            return table(runs)
    return comparison_table(runs)


def _measures(document: Mapping[str, Any]) -> str:
    """One run's headline."""
    rows = [*headline(document), ("time", format_duration(document["seconds"]))]
    return markdown_table(["measure", "value"], rows)


def _systems(document: Mapping[str, Any]) -> str:
    """Speed and memory of each system, and the cost of night n."""
    kinds = ("step", "as_used", "on_policy")
    heads = ["system", *(f"tokens/s, {kind.replace('_', ' ')}" for kind in kinds), "peak", "above idle"]
    heads += ["we are faster (step)", "(as used)", "(on-policy)", "our share of its peak", "why"]
    rows = []
    for name, row in document["systems"].items():
        speeds = [f"{row[f'tokens_per_second_{kind}']:,.0f}" for kind in kinds]
        peak = [format_memory(row["peak_bytes"]), format_memory(row["peak_bytes"] - row["idle_bytes"])]
        ratios = [f"{row[f'speedup_{kind}']:.2f}x" if f"speedup_{kind}" in row else "–" for kind in kinds]
        share = f"{row['memory_share']:.2f}x" if "memory_share" in row else "–"
        rows.append([name, *speeds, *peak, *ratios, share, row["reason"]])
    nights = [[int(n), f"{row['seconds_step']:.3f}", format_memory(row["peak_bytes"])] for n, row in document["nights"].items()]
    costs = markdown_table(["experts in use", "seconds a step", "peak"], nights)
    return f"{markdown_table(heads, rows)}\n\n{costs}"


def _dreaming(document: Mapping[str, Any]) -> str:
    """What a trial costs, and the memory of dreaming."""
    found, ratios = document["dreaming"], document["ratios"]
    rows = [
        ["a trial, questions included", f"{found['trials']['seconds']:.2f} s", "1.00x"],
        ["its own SFT steps alone", f"{found['sft']['seconds']:.2f} s", f"{ratios['trial_to_sft']:.2f}x"],
        ["the same with a PEFT LoRA", f"{found['peft']['seconds']:.2f} s", f"{ratios['trial_to_peft']:.2f}x"],
        ["peak of dreaming", format_memory(found["dreaming"]["peak_bytes"]), "1.00x"],
        ["peak of training", format_memory(found["training"]["peak_bytes"]), f"{ratios['memory_to_training']:.2f}x"],
    ]
    return markdown_table(["measure", "value", "a trial or dreaming, of it"], rows)


def _overhead(document: Mapping[str, Any]) -> str:
    """What the Trainer costs against a plain loop."""
    rows = [
        [name, found["steps"], f"{found['seconds']:.2f} s", f"{found['plain_seconds']:.2f} s", f"{found['ratio']:.2f}x"]
        for name, found in document["mygo"].items()
    ]
    return markdown_table(["phase", "steps", "sleepkit", "plain loop", "ratio"], rows)


def _prompts(document: Mapping[str, Any]) -> str:
    """What a batch of prompts gains, and what a night of dreams costs beside its learning."""
    found = document["dream2learn"]
    rows = []
    for dtype, one in found["prompts"].items():
        speeds = [f"{one[name]:.1f}" for name in ("batched_per_second", "alone_per_second")]
        measure = f"updates of prompts a CPU second, {one['prompts_per_batch']} in a batch, {dtype}"
        rows.append([measure, *speeds, f"{one['speedup']:.1f}x"])
    night = found["night"]
    rows.append(["CPU seconds of a night", *(f"{night[name]:.1f}" for name in ("dreaming", "base")), f"{night['ratio']:.1f}x"])
    return markdown_table(["measure", "batched, or with dreams", "alone, or without", "ratio"], rows)


def _controls(document: Mapping[str, Any]) -> str:
    """A night of sleep on the memory alone, and what each control adds to it, the mean over its seeds."""
    heads = ["accuracy", "probe", "assigned", "own", "old then"]
    found = document["dream_controls"]
    alone = found["memory alone"]
    rows = [["memory alone", len(alone), *(fmean(one[head] for one in alone.values()) for head in heads), None]]
    for name, seeds in found.items():
        if name != "memory alone":
            gains = [f"{fmean(one[head] - alone[seed][head] for seed, one in seeds.items()):+.3f}" for head in heads]
            collapsed = [one["collapse_rate"] for one in seeds.values() if "collapse_rate" in one]
            rows.append([name, len(seeds), *gains, fmean(collapsed) if collapsed else None])
    return markdown_table(["one night", "seeds", *heads, "collapsed"], rows)


def _sprites(document: Mapping[str, Any]) -> str:
    """Images per second of each renderer, and how many times that of the package in one process."""
    cores = document["settings"]["processes"]
    rows = []
    for size, systems in document["images_per_second"].items():
        base = systems.get("idsprites", {}).get("one_process")
        for name, speed in systems.items():
            ratios = [f"{speed[kind] / base:.1f}x" if base else "–" for kind in ("one_process", "all_processes")]
            rows.append(
                [f"{size} px", name, f"{speed['one_process']:,.0f}", ratios[0], f"{speed['all_processes']:,.0f}", ratios[1]]
            )
    heads = ["images", "renderer", "images/s, one core", "idsprites = 1", f"images/s, {cores} cores", "idsprites on one core = 1"]
    tables = [markdown_table(heads, rows)]
    if query := document.get("query_milliseconds"):
        rows = [[f"{int(count):,}", *(f"{found[name]:.2f}" for name in ("nearest", "aligned"))] for count, found in query.items()]
        tables.append(markdown_table(["exemplars", "ms per query, nearest", "aligned"], rows))
    return "\n\n".join(tables)


def _sensitivity(document: Mapping[str, Any]) -> str:
    """What more exemplars of a class bring, and what sigmas accept."""
    found = document["sensitivity"]
    names = ("accuracy", "off_grid_accuracy", "auroc_ratio", "auroc_residual", "auroc_knn")
    rows = [
        [row["exemplars"], *(f"{row[name]:.3f}" for name in names), f"{row['bytes_per_class']:,.0f}"]
        for row in found["exemplars"]
    ]
    heads = ["exemplars of a class", "accuracy", "off the grid", "AUROC, ratio", "residual", "k-NN", "bytes of a class"]
    names = ("sigma", "known_accepted", "novel_accepted")
    accepted = [[f"{row['accepted']:.2f}", *(f"{row[name]:.3f}" for name in names)] for row in found["sigma"]]
    sigmas = ["accepts of validation images", "sigma", "of known images", "of novel images"]
    return f"{markdown_table(heads, rows)}\n\n{markdown_table(sigmas, accepted)}"


def _poses(runs: Sequence[Mapping[str, Any]]) -> str:
    """Each source of poses with both comparisons; seconds are those of learning.  Of further methods the learned pose only."""
    from sleepkit.vision.disentangled.protocol import POSES, SHOWN, metric_prefix

    rows = []
    for place, (method, seeds) in enumerate(grouped(runs, "method").items()):
        for source in POSES if place == 0 else ("learned",):
            for how in ("aligned", "nearest"):
                prefixes = [metric_prefix(source, how, run["config"]["match"]) for run in seeds]
                found = [
                    [run["metrics"][prefix + metric] for run, prefix in zip(seeds, prefixes, strict=True)] for metric in SHOWN
                ]
                seconds = spread([run["metrics"]["cpu_seconds"] for run in seeds]) if source == "learned" else "–"
                heading = POSES[source] + method.removeprefix("disentangled")
                rows.append([heading, how, len(seeds), *map(spread, found), seconds])
    return markdown_table(["pose", "comparison", "seeds", *SHOWN.values(), "CPU seconds of the nights"], rows)


def _dreamers(runs: Sequence[Mapping[str, Any]]) -> str:
    """Share of dreams that help and their mean reward in each round, over seeds; of ARC also the share that solves its task."""
    rounds = 1 + runs[0]["config"]["dream_rounds"]
    rows = []
    for measure in ("share_positive", "mean_reward", "solved"):
        for kind, contexts in (("", "learned from"), ("_held_out", "held out")):
            found = [
                spread([run["metrics"].get(f"{measure}{kind}_round_{number}") for run in runs]) for number in range(1, rounds + 1)
            ]
            if any(f"{measure}{kind}_round_1" in run["metrics"] for run in runs):
                rows.append([contexts, measure.replace("_", " "), len(runs), *found])
    return markdown_table(["contexts", "measure", "seeds", *(f"round {number}" for number in range(1, rounds + 1))], rows)


def _distorted(runs: Sequence[Mapping[str, Any]]) -> str:
    """Learned and true pose, by the runs' own comparison, on images distorted in ways that no pose undoes."""
    shown = {"accuracy": "accuracy", "off_grid_accuracy": "off the grid", "one_shot": "one-shot", "auroc": "AUROC"}
    heads = ["distortion", *shown.values(), "pose RMS", "accuracy, true pose", "one-shot, true pose"]
    rows = []
    for run in sorted(runs, key=lambda one: [one["config"][name] for name in DISTORTIONS]):
        strengths = {name: run["config"][name] for name in DISTORTIONS}
        heading = ", ".join(f"{name} {value:g}" for name, value in strengths.items() if value) or "none"
        names = (*shown, "pose_rms", "oracle_accuracy", "oracle_one_shot")
        rows.append([heading, *(run["metrics"][name] for name in names)])
    return markdown_table(heads, rows)


def _gains(runs: Sequence[Mapping[str, Any]]) -> str:
    """What dreams bring, with 95 % intervals over seeds; a row is named by what differs from the first one."""
    heads = ["variant", "seeds", "accuracy without", "gain", "forgetting", "probe", "assigned", "among its own"]
    heads += ["collapsed", "cost"]
    rows: list[list[Any]] = []
    for run in runs:
        m, first = run["metrics"], runs[0]["config"]
        changed = [f"{name} {value}" for name, value in run["config"].items() if name in OF_DREAMS and value != first.get(name)]
        gains = [_gain(m, name) for name in ("faa", "forgetting", "fwt_probe", "fwt_assigned", "fwt_assigned_task_il")]
        base = [", ".join(changed) or "as the recipe", len(run["config"]["seeds"]), m["faa_base"]]
        rows.append([*base, *gains, m.get("collapse_rate"), f"{m['cost_ratio']:.1f}x"])
    return markdown_table(heads, rows)


def _gain(metrics: Mapping[str, float], name: str) -> str:
    mean, low = metrics.get(f"{name}_gain"), metrics.get(f"{name}_gain_low")
    if mean is None:
        return "–"
    return f"{mean:+.3f}" + ("" if low is None else f" ± {mean - low:.3f}")


DISTORTIONS = ("elastic", "perspective")


def _writers(document: Mapping[str, Any]) -> str:
    """A night of each model, language and writer of questions."""
    names = ("closed_book_before", "in_context", "closed_book_after", "recovery", "anchor_kl", "self_test_after", "coverage")
    heads = ["model", "language", "questions by", "items", "closed book before", "in context", "after", "recovery", "anchor KL"]
    rows = [
        [run["model"], run["language"], run["writer"], run.get("items"), *(run.get(name) for name in names), run.get("seconds")]
        for run in document["writers"]
    ]
    return markdown_table([*heads, "own questions", "coverage", "seconds"], rows)


def _shares(document: Mapping[str, Any]) -> str:
    """Work of each phase, alone and shared out."""
    several = [count for count in document["processes"] if count > 1]
    heads = ["phase", "tokens x layers", *(f"{count} processes" for count in several)]
    heads += ["CPU seconds", *(f"{count} processes" for count in several)]
    rows = []
    for found in document["shares"]:
        ratios = {
            name: f"{found[name]:.2f}" if name in found else "–" for unit in ("tokens", "seconds") for name in _of(unit, several)
        }
        cells = [f"{found['tokens']:,}", *(ratios[name] for name in _of("tokens", several)), f"{found['seconds']:.1f}"]
        rows.append([found["phase"], *cells, *(ratios[name] for name in _of("seconds", several))])
    return markdown_table(heads, rows)


def _of(unit: str, counts: Sequence[int]) -> list[str]:
    return [f"{unit}_{count}" for count in counts]


def _costs(document: Mapping[str, Any]) -> str:
    """A night by the words of its document."""
    names = ("words", "items", "steps", "train_tokens", "seconds_writing", "train_seconds", "seconds", "peak_memory")
    heads = ["words", "items", "steps", "tokens trained on", "seconds writing", "training", "in all", "peak"]
    rows = [[format_memory(run[name]) if name == "peak_memory" else run.get(name) for name in names] for run in document["costs"]]
    return markdown_table(heads, rows)


def _chat_sessions(document: Mapping[str, Any]) -> str:
    """Right answers about each day after each night, and before any; the picture of the same behind it."""
    found = document["chat_sessions"]
    days = sorted({row["session"] for row in found.get("before", ())})
    rows = [[name, *_by_day(found[key], days), None, None, None, None] for name, key in UNSLEPT.items() if key in found]
    for night in found["nights"]:
        old = [row["says_the_old"] for row in night["answers"] if "says_the_old" in row]
        told = f"{sum(old)} of {len(old)}" if old else None
        rest = [told, "yes" if night["committed"] else "undone", night.get("anchor_kl"), night["seconds"]]
        rows.append([f"night {night['session']}", *_by_day(night["answers"], days), *rest])
    heads = ["after", *(f"day {day}" for day in days), "right", "old answer said", "kept", "anchor KL", "seconds"]
    picture = "\n\n![Share of right answers about each day, after each night](chat_sessions.png)" if found["nights"] else ""
    return markdown_table(heads, rows) + picture


def _by_day(answers: Sequence[Mapping[str, Any]], days: Sequence[int]) -> list[str | None]:
    """Right answers about each day, and about all."""
    right = [[row["right"] for row in answers if row["session"] == day] for day in days]
    return [str(sum(one)) if one else None for one in right] + [f"{sum(map(sum, right))} of {len(answers)}"]


UNSLEPT = {"nothing": "before", "nothing, the day's lines in the prompt": "in_context"}


def _plans(document: Mapping[str, Any]) -> str:
    """What was planned and seen of nights, and the plans of nights on GPUs."""
    rows = []
    for run in document["slept"]:
        for name, (what, form) in PLANNED.items():
            planned, seen = run["planned"].get(name), run["seen"].get(name)
            if planned and seen:
                share = f"{planned / seen - 1:+.0%}"
                rows.append([run["name"], what, form(planned), form(seen), share])
    tables = [markdown_table(["night", "measure", "planned", "seen", "plan is off by"], rows)] if rows else []
    rows = []
    for plan in document["planned"]:
        memory = f"{plan['memory']['needed_bytes'] / 1e9:,.1f} GB"
        slow = _slowest({cost["phase"]: cost["seconds"] for cost in plan["phases"]})
        fits = "yes" if plan["fits"] else f"no: {'; '.join(plan['change'])}"
        rows.append(
            [plan["name"], plan["gpus"], fits, memory, f"{plan['flops'] / 1e15:,.1f} P", format_duration(plan["seconds"]), slow]
        )
    if rows:
        heads = ["planned only", "GPUs", "fits", "memory of each", "FLOP", "time", "most of it"]
        tables.append(markdown_table(heads, rows))
    return "\n\n".join(tables)


def _slowest(seconds: Mapping[str, float]) -> str:
    """The three phases that take most of the time."""
    most = sorted(seconds, key=lambda name: -seconds[name])[:3]
    return ", ".join(f"{name} {format_duration(seconds[name])}" for name in most)


PLANNED: dict[str, tuple[str, Callable[[float], str]]] = {
    "peak_bytes": ("peak memory", format_memory),
    "tokens": ("tokens", lambda count: f"{count:,}"),
    "flops": ("FLOPs", lambda count: f"{count / 1e12:.2f} T"),
    "seconds": ("time", format_duration),
    "file_bytes": ("files", format_memory),
}


def _forgotten(document: Mapping[str, Any]) -> str:
    """What is left of each night that was taken out, and what is lost of the others."""
    heads = ["night", "its questions: before", "after", "unslept", "all others: before", "after"]
    heads += ["loss on its text: before", "after", "unslept", "AUC: before", "after", "traces: before", "after"]
    names = [f"forgotten_{when}" for when in ("before", "after", "unslept")] + ["others_before", "others_after"]
    names += [f"forgotten_loss_{when}" for when in ("before", "after", "unslept")]
    names += [f"{name}_{when}" for name in ("membership", "traces") for when in ("before", "after")]
    names += ["forgetting_steps", "forgetting_seconds", "seconds"]
    rows = [[f"{run['night']} of {document['nights']}", *map(run.get, names)] for run in document["forgotten"]]
    return markdown_table([*heads, "steps", "seconds of training", "in all"], rows)


def _gpu_night(document: Mapping[str, Any]) -> str:
    """Nights at real size, each by a path of its own."""
    heads = ["case", "shape", "time", "planned", "FLOPs a second", "peak memory", "planned"]
    heads += ["first loss is off by", "most of the time"]
    rows = []
    for run in document["cases"]:
        if "failed" in run:
            rows.append([run["case"], run["shape"], run["failed"], *[None] * 6])
            continue
        slow = _slowest({name: phase["seconds"] for name, phase in run["by_phase"].items()})
        apart = document["apart"].get(run["case"])
        times = format_duration(run["seconds"]), format_duration(run["planned_seconds"])
        memory = format_memory(run["peak_bytes"]), format_memory(run["planned_peak_bytes"])
        share = None if apart is None else f"{apart:.1%}"
        rows.append([run["case"], run["shape"], *times, f"{run['flops_per_second'] / 1e12:,.1f} T", *memory, share, slow])
    return markdown_table(heads, rows)


KINDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "runs": lambda document: runs_table([meaningful(run) for run in document["runs"]]),
    "systems": _systems,
    "dreaming": _dreaming,
    "mygo": _overhead,
    "dream2learn": _prompts,
    "dream_controls": _controls,
    "images_per_second": _sprites,
    "sensitivity": _sensitivity,
    "image_runs": _image_runs,
    "chat_sessions": _chat_sessions,
    "writers": _writers,
    "costs": _costs,
    "forgotten": _forgotten,
    "shares": _shares,
    "slept": _plans,
    "cases": _gpu_night,
    "metrics": _measures,
}
"""What a results file holds -> its table; the first that is there counts."""
SUMMARY = {
    "closed_book_before": "closed book before",
    "closed_book_after": "after",
    "in_context": "in context",
    "recovery": "recovery",
    "anchor_kl": "anchor KL",
    "bwt": "BWT",
    "retention_first": "passage 1 kept",
}
MAIN = {
    "demo": "two passages about invented things, one night (the demo)",
    "notebook_8_nights": "eight such passages, a night each",
    "squad_8_nights": "eight real passages (SQuAD), a night each",
    "squad_20": "twenty real passages, one night",
    "long_context": "where 61 persons are, in nine parts of a text longer than the window",
    "clinc150": "120 intents (CLINC150), 15 a night",
    "skills": "five tasks (AG News, SST-2, BoolQ, RTE, DBpedia), a night each",
}
"""Results file -> what was learned; the rows of the table `main`."""
MAIN_COLUMNS = {
    "closed_book_before": "before sleep",
    "closed_book_after": "after its night",
    "closed_book_final": "after the last night",
    "in_context": "text in the prompt",
    "anchor_kl": "anchor KL",
}


def main_table(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """One row for each of `MAIN` that is there."""
    rows = []
    for name, learned in MAIN.items():
        if runs := ours(documents.get(name, {})):
            runs = [{"closed_book_final": _final(run), **run} for run in runs]
            cells = [spread([run.get(column) for run in runs], separator=",") for column in MAIN_COLUMNS]
            rows.append([learned, len(runs), *cells, mean_duration(runs)])
    return markdown_table(["what was learned", "seeds", *MAIN_COLUMNS.values(), "time"], rows)


def _final(run: Mapping[str, Any]) -> float | None:
    """Share of all questions that is right after the last night, of a run that has saved it as a recovery only."""
    before, ceiling, share = (run.get(name) for name in ("closed_book_before", "in_context", "recovery_final"))
    return None if before is None or ceiling is None or share is None else before + share * (ceiling - before)


def summary(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """One row for each experiment that knowledge seeding was in, from results files by name."""
    rows = []
    for name, document in sorted(documents.items()):
        if runs := [meaningful(run) for run in ours(document)]:
            cells = [spread([run.get(column) for run in runs], separator=",") for column in SUMMARY]
            rows.append([name, len(runs), *cells, mean_duration(runs)])
    return markdown_table(["results", "seeds", *SUMMARY.values(), "time"], rows)


def streams(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Class-incremental accuracy of each method on each stream of images or texts, and the bytes that it keeps."""
    runs = {name: grouped(document["image_runs"], "method") for name, document in sorted(documents.items())}
    methods = list(dict.fromkeys(method for groups in runs.values() for method in groups))
    rows = [[method, *(_kept(groups.get(method, [])) for groups in runs.values())] for method in methods]
    heads = (f"[{name.removeprefix('mygo_split_')}](../benchmarks/results/{name}.md)" for name in runs)
    return markdown_table(["method", *heads], rows)


def _kept(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "–"
    return f"{spread([run['metrics']['class_il'] for run in runs])}, {runs[0]['metrics']['bytes'] / 1000:,.0f} kB"


def ours(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs of knowledge seeding itself: of a table, or the one that the file is."""
    if not isinstance(document, Mapping):  # the table of faults
        return []
    if document.get("method") == "knowledge_seeding":
        return [{**document["metrics"], "seconds_total": document["seconds"]}]
    return [run for run in document.get("runs", ()) if run["variant"] == "knowledge_seeding"]


ALL_FILES = {
    "main": ("*.json", main_table),
    "summary": ("*.json", summary),
    "streams": ("mygo_split_*.json", streams),
}
"""Tables of several files: which ones, and what makes the table."""
PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "matrix": lambda document: matrices(ours(document)),
    "differences": lambda document: differences_table(document["runs"]),
}
"""What may follow a file's name in a marker -> what of the file it shows."""


def fill(text: str, results: Path) -> tuple[str, list[str]]:
    """Replace each table whose file is there; returns the new text and the names whose file is not."""
    missing = []

    def table(match: re.Match[str]) -> str:
        if match["name"] in ALL_FILES:
            pattern, render_all = ALL_FILES[match["name"]]
            documents = {path.stem: read_json(path) for path in results.glob(pattern)}
            return f"{match['head']}{render_all(documents)}\n{match['tail']}"
        part = next((part for part in PARTS if match["name"].endswith(f"-{part}")), "")
        name = match["name"].removesuffix(f"-{part}")
        path = results / f"{name}.json"
        if not path.is_file():
            missing.append(name)
            return match[0]
        return f"{match['head']}{PARTS.get(part, render)(read_json(path))}\n{match['tail']}"

    return MARKER.sub(table, text), missing


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=Path, nargs="+", default=[ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)
    missing: list[str] = []
    for page in options.pages:
        text, not_there = fill(page.read_text(encoding="utf-8"), options.results)
        page.write_text(text, encoding="utf-8")
        missing += not_there
    for path in sorted(options.results.glob("*.json")):
        if "runs" in read_json(path):
            experiment_page(path)
    for name in missing:
        print(f"{options.results / name}.json is not there; its table is as it was")


if __name__ == "__main__":
    main()
