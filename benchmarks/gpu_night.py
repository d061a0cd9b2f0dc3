"""The first thing to run on a machine with a GPU: short nights at real size by each path, in 8 minutes, without a download.

    python benchmarks/gpu_night.py [--shape Qwen2.5-7B] [--minutes 8] [--output gpu_night.json]

The model has the shape that is named, random weights in bfloat16 and a tokenizer of bytes, so nothing but the packages is
needed.  Each case is a night of its own in a process of its own, on passages that are written here; one that fails or runs out of
time says so and leaves the others alone:

    night          as users run it: packed rows, top-k targets
    padded         an item a row                                   its first loss must be that of `night`, up to rounding
    checkpointing  activations computed anew on the way back       likewise
    all tokens     targets of the whole vocabulary (`top_k 0`)
    dreams         dreams, their scores and trials, rehearsal

Of each: seconds and tokens by phase, floating-point operations a second, and the highest memory, beside what was planned.  The
file is written after each case.  Random weights write nothing of use: this measures speed, memory and agreement, not learning.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cost import chronicle
from make_tables import ROOT, render
from plan import SHAPES

from sleepkit.reporting.results import hardware, versions
from sleepkit.utils.files import read_json, write_json

CASES: dict[str, dict[str, Any]] = {
    "night": {},
    "padded": {"packing": False},
    "checkpointing": {"gradient_checkpointing": True},
    "all tokens": {"top_k": 0},
    "dreams": {"dream_rounds": 1, "dreams_per_context": 8, "dream_max_tokens": 64, "trial_steps": 3, "dream_rehearsal_steps": 4},
}
ALIKE = ("padded", "checkpointing")  # cases that only compute in another way
LOSS = 0.02  # of a first loss, by which they may differ in bfloat16
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY: dict[str, tuple[str, dict[str, Any]]] = {"tiny": ("llama", SMALL | {"vocab_size": 512, "tie_word_embeddings": True})}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """A tokenizer of bytes with a ChatML template, of no file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|im_end|>", "<|im_start|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: k for k, token in enumerate([*special, *letters])}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=special[0], pad_token=special[0], additional_special_tokens=special[1:]
    )
    made.chat_template = TEMPLATE
    return made


def random_model(shape: str, tokenizer: Any, device: Any) -> Any:
    """A model of a shape with random weights, made where it runs."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    family, sizes = (SHAPES | TINY)[shape]
    marks = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    with torch.device(device):
        config = CONFIG_MAPPING[family](**sizes, **marks, max_position_embeddings=32768)
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def case(name: str, shape: str, passages: int, steps: int, folder: Path) -> dict[str, Any]:
    """Sleep one night, in this process."""
    from sleepkit import SleepConfig, SleepTrainer

    texts = [chronicle(110, seed=k) for k in range(passages)]
    options = {"max_steps": steps, "gate": False, "question_writer": "rules", "styles": ["wh", "keywords", "about"]} | CASES[name]
    args = SleepConfig(
        output_dir=str(folder), general_items=16, logging_steps=1, passages_per_night=passages, nights=1, **options
    )
    tokenizer = byte_tokenizer()
    start = time.perf_counter()
    model = random_model(shape, tokenizer, args.device)
    loading = time.perf_counter() - start
    record = SleepTrainer(model, args, texts, processing_class=tokenizer).train()
    seen, phases = record.plan["seen"], record.plan["seen"]["by_phase"]
    seconds = sum(phases["seconds"].values())
    return {
        "case": name,
        "shape": shape,
        "seconds_loading": loading,
        "seconds": seconds,
        "by_phase": {
            phase: {"seconds": took, **phases["tokens"].get(phase, {})} for phase, took in phases["seconds"].items() if took
        },
        "flops_per_second": seen["flops"] / seconds,
        "planned_seconds": record.plan["seconds"],
        "peak_bytes": seen["peak_bytes"],
        "planned_peak_bytes": record.plan["memory"]["peak_bytes"],
        "losses": [row["loss"] for row in record.history if "loss" in row],
    }


def tried(name: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run a case in a process of its own; says why where it does not end well."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "case.json"
        words = ["--case", name, "--output", out]
        for option in ("shape", "passages", "steps"):
            words += [f"--{option}", getattr(options, option)]
        command = [sys.executable, str(Path(__file__)), *map(str, words)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"case": name, "shape": options.shape, "failed": f"stopped after {seconds:.0f} s"}
        if done.returncode:
            last = next((line for line in done.stderr.splitlines()[::-1] if line.strip()), "no word")
            return {"case": name, "shape": options.shape, "failed": last.strip()}
        found: dict[str, Any] = read_json(out)
        return found


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By how much the first losses of some cases differ from that of `night`, as a share of it."""
    first = {row["case"]: row["losses"][0] for row in rows if row.get("losses")}
    return {name: abs(first[name] / first["night"] - 1) for name in ALIKE if {name, "night"} <= first.keys()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="Qwen2.5-7B", choices=[*SHAPES, *TINY])
    parser.add_argument("--minutes", type=float, default=8, help="for all cases together; those that do not fit are left out")
    parser.add_argument("--passages", type=int, default=4, help="of 110 words, of which a night is")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_night.json")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.case:
        with tempfile.TemporaryDirectory() as folder:
            write_json(options.output, case(options.case, options.shape, options.passages, options.steps, Path(folder) / "run"))
        return 0
    until, rows = time.monotonic() + 60 * options.minutes, []
    for name in options.cases:
        left = until - time.monotonic()
        no_time = {"case": name, "shape": options.shape, "failed": "no time was left"}
        rows.append(tried(name, options, left) if left > 0 else no_time)
        apart = agreement(rows)
        write_json(options.output, {"cases": rows, "apart": apart, "hardware": hardware(), "versions": versions()})
        print(f"{name}: {rows[-1].get('failed') or format(rows[-1]['seconds'], '.0f') + ' s'}", flush=True)
    print(render(read_json(options.output)))
    return int(any("failed" in row for row in rows) or any(share > LOSS for share in apart.values()))


if __name__ == "__main__":
    sys.exit(main())
