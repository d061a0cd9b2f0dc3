"""Runs a list of methods or ablations for some seeds, one after another, and collects them into one table.

    python benchmarks/run_table.py squad --config recipes/configs/sleep/squad_smollm2_cpu.yaml \\
        --variants knowledge_seeding lora finetune_qa --own finetune_qa.max_steps=24 --seeds 0 1 -- --dataset passages.jsonl.gz
    python benchmarks/run_table.py ablations --config ... --variants ablations --seeds 0 1 -- --nights 4 --lmbda 0.5

A variant is `knowledge_seeding`, a baseline, an ablation of the paper's Table 1 or 3, or `baselines`, `ablations` or
`dream_ablations` for all of them; `joint` learns all nights' experiences in one, as the baseline `lora` does; `four_level`
passes on from fast to medium experts every third night, and to a slow one every ninth; `gated` has low-rank experts of as many
parameters, with a gate of their own.  What follows `--` goes to every run,
what `--own` says to one variant.  A finished run is not repeated, one that was killed goes on.  Runs are kept in
runs/tables/NAME/<variant>/seed_<n>, the table in benchmarks/results/NAME.json: what it has already, of the same recipe and
arguments, stays there and is not run again.

Ours: an ablation switches one part off of whatever the given recipe does, so a recipe without rollouts has nothing to
lose from `no_imitation`, `no_semantic_reward` and `off_policy_only`, and one without dreams nothing from those of Table 3;
that is refused.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from make_tables import ROOT, render

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import FILE_NAME, hardware, read_results, versions
from sleepkit.runs.arguments.language import BASELINES, parse, parse_baseline
from sleepkit.utils.files import read_json, write_json

if TYPE_CHECKING:
    from sleepkit.language.config import DataConfig
    from sleepkit.trainers.config import SleepConfig

ABLATIONS: dict[str, list[str]] = {
    "no_imitation": ["--alpha", "1"],
    "no_semantic_reward": ["--gamma", "0"],
    "no_expansion": ["--no_expansion"],
    "off_policy_only": ["--lmbda", "0", "--lmbda_start", "0"],
}
DREAM_ABLATIONS: dict[str, list[str]] = {
    "no_gradient_selection": ["--dream_gradient_selection", "false"],
    "no_random_expert": ["--dream_random_expert", "false"],
    "no_dreaming": ["--dream_rounds", "0"],
}
FOUR_LEVEL = ["--chain", "1", "3", "9"]
GATED = ["--expert_kind", "gated", "--expert_width", "192"]
METRICS = (
    *("recovery", "recovery_final", "closed_book_before", "closed_book_after", "closed_book_final", "in_context", "anchor_kl"),
    *("anchor_kl_final", "anchor_accuracy_before", "anchor_accuracy_after", "bwt", "forgetting", "retention_first"),
    *("faa", "aia", "nights_committed", "answer_length_words", "out_of_scope_auroc"),
)


def expand(names: Sequence[str]) -> dict[str, list[str]]:
    """Arguments of each variant, in order; `baselines` and the like stand for their members and ours.

    Raises:
        SleepkitError: unknown variant.
    """
    groups = {"baselines": BASELINES, "ablations": ABLATIONS, "dream_ablations": DREAM_ABLATIONS}
    flat = [variant for name in names for variant in (["knowledge_seeding", *groups[name]] if name in groups else [name])]
    known = {
        "knowledge_seeding": [],
        "four_level": FOUR_LEVEL,
        "gated": GATED,
        "joint": ["--method", "lora"],
        **ABLATIONS,
        **DREAM_ABLATIONS,
    }
    known |= {name: ["--method", name] for name in BASELINES}
    for name in flat:
        if name not in known:
            raise SleepkitError(f"variant is {name!r}; use one of {', '.join([*groups, *known])}")
    return {name: known[name] for name in flat}


def with_own(variants: Mapping[str, list[str]], own: Sequence[str]) -> dict[str, list[str]]:
    """Give some variants arguments of their own, ``["lora.max_steps=50"]``: what takes longer a step gets fewer in the same time.

    Raises:
        SleepkitError: not of that form, or a variant that is not asked for.
    """
    changed = dict(variants)
    for word in own:
        name, _, setting = word.partition(".")
        field, equals, value = setting.partition("=")
        if name not in changed or not (field and equals):
            raise SleepkitError(f"--own has {word!r}; write VARIANT.FIELD=VALUE, with one of {', '.join(changed)}")
        changed[name] = [*changed[name], f"--{field}", value]
    return changed


def with_joint(variants: Mapping[str, list[str]], args: DataConfig) -> dict[str, list[str]]:
    """Tell `joint` to take all that the nights take in one.  Raises `SleepkitError` if their number is not known."""
    if "joint" not in variants:
        return dict(variants)
    if args.nights is None:
        raise SleepkitError("joint learns the experiences of all nights in one; give their number with --nights after `--`")
    together = ["--nights", "1", "--passages_per_night", str(args.nights * args.passages_per_night)]
    return {**variants, "joint": [*variants["joint"], *together]}


def command(config: str, variant: Sequence[str], seed: int, folder: Path, extra: Sequence[str]) -> list[str]:
    """Arguments of the recipe of a variant; its own come last, as they override."""
    return ["--config", config, *extra, *variant, "--seed", str(seed), "--output_dir", str(folder)]


def row(variant: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """What the table and its readers need of one run; seconds and tokens are those of a night."""
    metrics, nights = results["metrics"], results["nights"]
    steps, tokens = results["config"].get("max_steps", -1), metrics.get("train_tokens")
    found = {"variant": variant, "seed": results["seed"]}
    found["max_steps"] = steps if steps > 0 and tokens else None  # by epochs, or nothing is trained
    found |= {name: metrics.get(name) for name in METRICS}
    found |= {"seconds": metrics.get("seconds_per_night"), "train_tokens": tokens / len(nights) if tokens else None}
    found |= {"seconds_total": results["seconds"], "peak_memory_bytes": results["peak_memory_bytes"]}
    return found | {"accuracy_matrix": results["accuracy_matrix"]}


def parsed(config: str, variant: Sequence[str], extra: Sequence[str]) -> SleepConfig:
    """The settings of a run."""
    read = parse_baseline if is_baseline(variant) else parse
    return read(command(config, variant, 0, Path("unused"), extra))[1]


def is_baseline(variant: Sequence[str]) -> bool:
    """Whether a variant is run by recipes/text_baseline.py, not by recipes/sleep.py."""
    return "--method" in variant


def planned(options: argparse.Namespace, extra: Sequence[str]) -> dict[str, list[str]]:
    """Arguments of each variant.  Every run is parsed before the first one starts, and ablations of what the recipe does not
    do are refused."""
    settings = parsed(options.config, [], extra)
    variants = with_own(with_joint(expand(options.variants), settings), options.own)
    for name, variant in variants.items():
        parsed(options.config, variant, extra)
        if name in ABLATIONS and name != "no_expansion" and not settings.on_policy:
            raise SleepkitError(f"{name} changes nothing without rollouts; add `--lmbda 0.5` after `--`")
        if name in DREAM_ABLATIONS and not settings.dream_rounds:
            raise SleepkitError(f"{name} changes nothing without dreams; add `--dream_rounds 1` after `--`")
    return variants


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the table")
    parser.add_argument("--config", required=True, help="recipe of every run")
    parser.add_argument("--variants", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--own", nargs="+", default=[], metavar="VARIANT.FIELD=VALUE", help="for one variant, to equal seconds")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs" / "tables")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options, extra = parser.parse_args(argv[:split]), argv[split + 1 :]
    try:
        failed = run_all(options, planned(options, extra), extra)
    except SleepkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def run_all(options: argparse.Namespace, variants: Mapping[str, list[str]], extra: Sequence[str]) -> list[str]:
    """Run what is not finished, write the table after each run; returns the runs that failed.

    The table is read again before each run and each row: another process may fill it with other variants or seeds.
    """
    failed: list[str] = []
    path = options.results / f"{options.name}.json"
    document: dict[str, Any] = {"name": options.name, "config": Path(options.config).name}
    document["arguments"] = [Path(word).name if Path(word).exists() else word for word in extra]
    for seed in options.seeds:
        for name, variant in variants.items():
            if any((found["variant"], found["seed"]) == (name, seed) for found in _earlier(path, document)):
                print(f"== {name}, seed {seed}: in {path} already")
                continue
            folder = options.runs_dir / options.name / name / f"seed_{seed}"
            if not (folder / FILE_NAME).is_file():
                print(f"== {name}, seed {seed}", flush=True)
                script = str(ROOT / "recipes" / ("text_baseline.py" if is_baseline(variant) else "sleep.py"))
                arguments = command(options.config, variant, seed, folder, extra)
                if subprocess.run([sys.executable, script, *arguments]).returncode:
                    failed.append(f"{name}, seed {seed}")
                    continue
            rows = [*_earlier(path, document), row(name, read_results(folder))]
            order = list(dict.fromkeys([*(found["variant"] for found in rows[:-1]), *variants]))
            rows.sort(key=lambda found: (order.index(found["variant"]), found["seed"]))
            write_json(path, {**document, "runs": rows, "versions": versions(), "hardware": hardware()})
    if path.is_file():
        print(f"\n{render(read_json(path))}\n\nwritten to {path}")
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return failed


def _earlier(path: Path, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table that is there.  Raises `SleepkitError` if it is another experiment's."""
    if not path.is_file():
        return []
    found = read_json(path)
    for key, value in document.items():
        if found.get(key) != value:
            raise SleepkitError(f"{path} has {key} {found.get(key)}, not {value}; give the table another name, or delete it")
    return list(found["runs"])


if __name__ == "__main__":
    sys.exit(main())
