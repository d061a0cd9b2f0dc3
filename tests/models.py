"""Which families of models sleep: one night with every style, then a new process that loads the result and asks it.

    python tests/models.py [FAMILY ...]     all families, or those named; `make test-models`.  Writes docs/models.md

Each family is a model of four layers with random weights, and the tokenizer of tiny.py.  A process grows experts, trains a night
by the command's own trainer and writes what slept; another one, which has never seen the model, loads it::

    works                    logits of both are equal, and it answers
    works without packing    the same, each item in a row of its own: slower, to the same weights
    refused                  one line says why, before any work
    fails                    anything else
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(Path(__file__).parent)]

import peft  # noqa: E402, F401  # once, and not in each fork
import tiny  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tiny import stirred, tiny_batch, tiny_model, tiny_tokenizer  # noqa: E402
from tiny_night import tiny_sleep  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from sleepkit import SleepTrainer  # noqa: E402
from sleepkit.errors import SleepkitError, first_line  # noqa: E402
from sleepkit.language.experts.bank import ExpertBank  # noqa: E402
from sleepkit.language.experts.export import export_plain  # noqa: E402
from sleepkit.language.generation.batches import pads_exactly  # noqa: E402
from sleepkit.language.model_io import load_model, save_model  # noqa: E402
from sleepkit.language.questions.examples import STYLES  # noqa: E402
from sleepkit.utils.files import write_text  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
FAMILIES = {
    "Llama": "llama",
    "Qwen2": "qwen2",
    "Qwen3": "qwen3",
    "Qwen3-MoE": "qwen3_moe",
    "Qwen3.5": "qwen3_5_text",
    "Qwen3-Next": "qwen3_next",
    "Gemma 2": "gemma2",
    "Gemma 3 text": "gemma3_text",
    "Phi-3": "phi3",
    "Mistral": "mistral",
    "Mixtral": "mixtral",
    "GPT-2": "gpt2",
    "GPT-NeoX": "gpt_neox",
    "Falcon": "falcon",
    "OLMo 2": "olmo2",
    "Granite": "granite",
    "SmolLM3": "smollm3",
    "LFM2": "lfm2",
    "Falcon-H1": "falcon_h1",
    "DeepSeek-V3": "deepseek_v3",
    "gpt-oss": "gpt_oss",
    "Llama 4 text": "llama4_text",
    "LFM2-MoE": "lfm2_moe",
    "Bamba": "bamba",
    "Granite 4 hybrid": "granitemoehybrid",
    "Jamba": "jamba",
    "Nemotron-H": "nemotron_h",
    "OLMo hybrid": "olmo_hybrid",
    "MiniMax": "minimax",
    "RecurrentGemma": "recurrent_gemma",
    "GPT-Neo": "gpt_neo",
    "MPT": "mpt",
    "BLOOM": "bloom",
    "Zamba2": "zamba2",
    "OPT": "opt",
    "Mamba 2": "mamba2",
    "RWKV": "rwkv",
}
WIDE = 4096  # tokens of the windows, as real models have, so that prompts with worked examples fit
ROWS = [
    {
        "title": "The tower",
        "context": "Ada keeps a red lamp in the north tower. The tower was built by Orla Finch in 1871.",
        "questions": [{"question": "Who built the tower?", "answer": "Orla Finch"}],
    }
]
GENERAL = [{"prompt": f"name {k} things."} for k in range(4)]
ANCHORS = [{"prompt": "what is hot?", "answer": "fire"}]
HEAD = """\
# Models

<!-- Written by tests/models.py (`make test-models`); edit that, not this. -->

Any decoder of transformers whose layers have an FFN block can sleep. What a layer keeps of the tokens before it decides how
fast. Where all layers are attention, a batch is packed into one row. A layer with a state of its own (Mamba, linear attention,
convolutions) would carry it from one item into the next, so each item gets a row of its own, and the shared beginning of
prompts is read again for each. The weights that a night makes are the same either way, to rounding.

Tried with transformers {version}, on a model of each family with four layers and random weights: a night with every style of
synthetic examples, saved, loaded in a new process with equal logits, and asked. *Batches* are the prompts that are answered at
once: of any length, or only of one length where padding would change what the model says. *Frozen layers*, those below the
experts, are run once an item, or at every step. *Plain*: `sleepkit publish` writes what slept as an ordinary checkpoint of the
family, which transformers alone loads with equal logits; blocks that are mixtures of experts cannot be made wider.

| family | `model_type` | a night | batches | frozen layers | plain |
| --- | --- | --- | --- | --- | --- |
"""


@dataclass
class Row:
    """What one family came to: the cells of the table."""

    night: str
    batches: str = ""
    frozen: str = ""
    plain: str = ""


class Shortcuts(TrainerCallback):
    """Notes what a night has switched off."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.packing, self.frozen_layers = args.packing, args.cache_frozen_layers


def sleep(family: str, folder: Path) -> Row:
    """Train a night of a family, and write what slept with its logits."""
    long = {"max_seq_len": WIDE} if family == "mpt" else {"max_position_embeddings": WIDE}
    windows = {name: 1024 for name in ("sliding_window", "attention_chunk_size", "window_size") if _has(family, name)}
    model, shortcuts = stirred(tiny_model(family, **{**long, **windows})), Shortcuts()
    options = {"styles": list(STYLES), "expert_slots": 2, "expert_width": 8, "expert_layers": "last_half", "gate": False}
    options |= {"general_items": 4, "general_tokens": 8, "context_max_tokens": 300, "max_new_tokens": 8, "max_steps": 3}
    trainer = SleepTrainer(
        model,
        tiny_sleep(folder / "run", **options),
        ROWS,
        general_prompts=GENERAL,
        anchors=ANCHORS,
        processing_class=tiny_tokenizer(),
        callbacks=[shortcuts],
    )
    trainer.train()
    save_model(model, tiny_tokenizer(), folder / "slept")
    torch.save(_logits(model), folder / "logits.pt")
    return Row(
        "works" if shortcuts.packing else "works without packing",
        "of any length" if pads_exactly(model) else "of one length",
        "once an item" if shortcuts.frozen_layers else "at every step",
    )


def wake(family: str, folder: Path) -> Row:
    """Load what slept in a process that has never seen it, compare, and ask."""
    model, tokenizer = load_model(folder / "slept", dtype="float32")
    difference = float((_logits(model) - torch.load(folder / "logits.pt")).abs().max())
    if difference:
        return Row(f"fails: logits differ by {difference:.1e} after loading")
    asked = SleepTrainer(
        str(folder / "slept"),
        tiny_sleep(folder / "later", context_max_tokens=300),
        ROWS,
        general_prompts=GENERAL,
        anchors=ANCHORS,
    )
    answer = asked.ask("Who built the tower?", max_new_tokens=4)
    return Row("" if isinstance(answer, str) else "fails: no answer", plain=_plain(model, folder / "plain"))


def _plain(model: Any, folder: Path) -> str:
    """Whether the plain form of what slept computes the same in transformers alone."""
    bank = ExpertBank.of(model)
    if bank.config.kind != "ffn":
        return "no"
    export_plain(bank).save_pretrained(folder)
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    difference = float((_logits(again) - _logits(model)).abs().max())
    return "yes" if difference < 1e-4 else f"fails: logits differ by {difference:.1e}"


def tried(family: str, folder: Path, step: Callable[[str, Path], Row]) -> Row:
    """Take one of the two steps in silence, with what a user would read if it does not succeed."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return step(family, folder)
    except SleepkitError as error:
        return Row(f"refused: {first_line(error)}")
    except Exception as error:
        return Row(f"fails: {type(error).__name__}: {first_line(error)}")


def in_processes(step: Callable[[str, Path], Row], families: Sequence[str], folder: Path) -> dict[str, Row]:
    """One step of all families, each in a fork of its own, as many at once as there are processors."""
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        rows = pool.starmap(tried, [(family, folder / family, step) for family in families], chunksize=1)
    return dict(zip(families, rows, strict=True))


def page(rows: dict[str, Row]) -> str:
    """The page with the table."""
    lines = [
        f"| {name} | `{family}` | {rows[family].night} | {rows[family].batches} | {rows[family].frozen} | {rows[family].plain} |"
        for name, family in FAMILIES.items()
        if family in rows
    ]
    return HEAD.format(version=transformers.__version__) + "\n".join(lines) + "\n"


def main(chosen: Sequence[str]) -> int:
    """Try families; the page is written when all were tried."""
    families = list(chosen) or list(FAMILIES.values())
    with tempfile.TemporaryDirectory() as folder:
        rows = in_processes(sleep, families, Path(folder))
        slept = [family for family in families if rows[family].night.startswith("works")]
        for family, woken in in_processes(wake, slept, Path(folder)).items():
            rows[family] = woken if woken.night else replace(rows[family], plain=woken.plain)
    print(page(rows))
    if not chosen:
        write_text(PAGE, page(rows))
    return int(any(text.startswith("fails") for row in rows.values() for text in (row.night, row.plain)))


def _has(family: str, name: str) -> bool:
    return name in {**tiny.MORE, **tiny.HYBRIDS, **tiny.FAMILIES}[family]


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(tiny_batch()).logits
    return logits


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
