"""What the Trainer machinery costs MyGO: a wake epoch and 100 sleep steps against plain PyTorch loops of the same networks.

    python benchmarks/bench_mygo.py                  random images of MNIST's shape, about a minute on one core

    wake     one epoch of the fast learner over 12,000 images, which two digits of MNIST have; batch 128, Adam
    sleep    100 steps of the cortex on dreams, cross-entropy of all ten classes

Ours and the plain loop take turns, three times; the ratio is that of the fastest turns.  There is no augmentation: it would be
the same for both.
Writes benchmarks/results/bench_mygo.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sleepkit.reporting.results import hardware, versions
from sleepkit.utils.files import write_json
from sleepkit.vision.incremental.classifier import IncrementalClassifier, IncrementalClassifierConfig
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows
from sleepkit.vision.mygo.config import GenerativeReplayConfig

RESULTS = Path(__file__).parent / "results" / "bench_mygo.json"
IMAGES, BATCH, SLEEP_STEPS, TURNS = 12_000, 128, 100, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8)
    found = {}
    for name, classes, steps in (("wake", 2, IMAGES // BATCH), ("sleep", 10, SLEEP_STEPS)):
        labels = torch.randint(0, classes, (IMAGES,))
        turns = [(ours(pixels, labels, steps), plain(pixels, labels, steps)) for _ in range(TURNS)]
        own, loop = (min(seconds) for seconds in zip(*turns, strict=True))
        found[name] = {"steps": steps, "seconds": own, "plain_seconds": loop, "ratio": own / loop}
        print(f"{name}: {own:.2f} s, plain loop {loop:.2f} s, ratio {own / loop:.3f}", flush=True)
    write_json(options.output, {"mygo": found, "versions": versions(), "hardware": hardware()})
    print(f"written to {options.output}")


def classifier() -> IncrementalClassifier:
    torch.manual_seed(0)
    model = IncrementalClassifier(IncrementalClassifierConfig(num_channels=1, image_size=[28, 28]))
    model.grow(range(10), 0)
    return model.train()


def ours(pixels: Tensor, labels: Tensor, steps: int) -> float:
    """Seconds of `steps` steps by the trainer, without making it."""
    with tempfile.TemporaryDirectory() as folder:
        config = GenerativeReplayConfig(output_dir=folder, max_steps=steps, use_cpu=not torch.cuda.is_available())
        log = IncrementalTrainer(classifier(), loss, config, TensorRows(pixels, labels), 0, Path(folder)).run()
    return float(log["train_seconds"])


def plain(pixels: Tensor, labels: Tensor, steps: int) -> float:
    """Seconds of the same by a loop."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = classifier().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    start = time.perf_counter()
    order = torch.randperm(len(labels))
    for step in range(steps):
        rows = order[(step * BATCH) % len(labels) :][:BATCH]
        optimizer.zero_grad()
        loss(model, pixels[rows].to(device), labels[rows].to(device), step).backward()
        optimizer.step()
    return time.perf_counter() - start


def loss(model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
    found: Tensor = model(pixel_values=pixels, labels=labels).loss
    return found


if __name__ == "__main__":
    main()
