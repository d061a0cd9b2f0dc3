"""Infinite dSprites: images per second of our renderer against the PyPI package `idsprites`, and the time of a query.

    python benchmarks/bench_idsprites.py                       two minutes
    python benchmarks/bench_idsprites.py --sizes 64 --seconds 1

    idsprites     `InfiniteDSprites.draw`, an image a call; left out, with a line, if the package is not installed
    sleepkit      `SpriteRenderer`, a batch a call; anti-aliased, at sub-pixel positions; by the compiled loop of numba
    tensors       the same without numba
    reference     `ReferenceRenderer`: ours, bit-identical to the package
    a query       `Exemplars.classify` of an image in a known pose, in batches of 64, by both comparisons

All in one call, each in processes of its own with one thread: one process, then one for each core at once.  All draw images in
float32 of the same number of shapes with the marker, in random poses; shapes are made before the clock starts.  A process draws
for `--seconds`, `--repeats` times, and its best counts, as other programs can only slow it down; seconds are those that it had
a core for.

Writes benchmarks/results/bench_idsprites.json.  Left out: reading images in a training loop.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SYSTEMS = ("idsprites", "sleepkit", "tensors", "reference")


def main() -> None:
    from sleepkit.reporting.results import hardware, versions
    from sleepkit.utils.files import write_json

    options = arguments()
    missing = {"idsprites": "idsprites", "sleepkit": "numba", "reference": "cv2"}
    systems = []
    for name in SYSTEMS:
        if name in missing and importlib.util.find_spec(missing[name]) is None:
            print(f"{name} is left out: {missing[name]} is not installed (make bench-idsprites installs it)")
        else:
            systems.append(name)
    rows: dict[str, Any] = {}
    for size in options.sizes:
        for name in systems:
            print(f"measuring {name} at {size} px ...", flush=True)
            one, cores = (sum(together(name, size, count, options)) for count in (1, options.processes))
            rows.setdefault(str(size), {})[name] = {"one_process": one, "all_processes": cores}
    query = {str(count): query_milliseconds(count, options) for count in options.exemplars}
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    document = {
        "settings": settings,
        "versions": versions(),
        "hardware": hardware(),
        "seed": options.seed,
        "images_per_second": rows,
        "query_milliseconds": query,
    }
    write_json(options.output, document)
    from make_tables import render

    print(f"\n{render(document)}\n\nwritten to {options.output}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 256], help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=128, help="images of a call at 64 px; as many pixels at other sizes")
    parser.add_argument("--channels", type=int, default=3, choices=[1, 3], help="RGB or grey")
    parser.add_argument("--shapes", type=int, default=10, help="shapes, as in one experience of the benchmark")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, of which the best counts")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="how many at once")
    parser.add_argument("--exemplars", nargs="+", type=int, default=[100, 2000, 20000], help="numbers of classes in the memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "bench_idsprites.json")
    return parser.parse_args()


def together(name: str, size: int, processes: int, options: argparse.Namespace) -> list[float]:
    """Images per second of each of so many processes, measured at the same time."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes, ready, (spawn.Barrier(processes),)) as pool:
        return pool.starmap(measure, [(name, size, options)] * processes, chunksize=1)


# -- in the process of one system -------------------------------------------------------------------------------------
def ready(barrier: Any) -> None:
    global start
    start = barrier


def measure(name: str, size: int, options: argparse.Namespace) -> float:
    import torch

    torch.set_num_threads(1)
    draw, images = package(size, options) if name == "idsprites" else ours(name, size, options)
    for _ in range(20):
        draw()
    best = 0.0
    for _ in range(options.repeats):
        start.wait()
        begin, calls = time.process_time(), 0
        while time.process_time() - begin < options.seconds:
            draw()
            calls += 1
        best = max(best, calls * images / (time.process_time() - begin))
    return best


def package(size: int, options: argparse.Namespace) -> tuple[Callable[[], Any], int]:
    import cv2
    import numpy as np
    from idsprites import InfiniteDSprites

    cv2.setNumThreads(1)
    np.random.seed(options.seed)
    sprites = InfiniteDSprites(img_size=size, shapes=options.shapes, grayscale=options.channels == 1)
    factors = [sprites.sample_factors() for _ in range(1000)]
    turn = iter(range(10**12))
    return lambda: sprites.draw(factors[next(turn) % len(factors)]), 1


def ours(name: str, size: int, options: argparse.Namespace) -> tuple[Callable[[], Any], int]:
    import torch

    from sleepkit.vision.idsprites import renderer as module
    from sleepkit.vision.idsprites.factors import FactorRanges
    from sleepkit.vision.idsprites.reference import ReferenceRenderer

    if name == "tensors":
        module._kernel = lambda: None
    draws = ReferenceRenderer if name == "reference" else module.SpriteRenderer
    renderer = draws(size, options.seed, channels=options.channels)
    batch = max(1, options.batch_size * 64**2 // size**2)
    places = torch.arange(batch)
    classes = places % options.shapes
    factors, colors = FactorRanges().at(classes, places)
    return lambda: renderer(classes, factors, colors, places), batch


# -- in this process --------------------------------------------------------------------------------------------------
def query_milliseconds(count: int, options: argparse.Namespace) -> dict[str, float]:
    """Of one image at 64 px among so many exemplars, the best of the repeats; CPU time of one thread."""
    import torch

    from sleepkit.vision.disentangled.exemplars import MATCHES, Exemplars
    from sleepkit.vision.idsprites.affine import factors_to_matrix
    from sleepkit.vision.idsprites.factors import FactorRanges
    from sleepkit.vision.idsprites.renderer import SpriteRenderer

    torch.set_num_threads(1)
    print(f"measuring queries of {count:,} exemplars ...", flush=True)
    renderer, memory = SpriteRenderer(64, options.seed, channels=1), Exemplars(64, 1)
    for part in torch.arange(count).split(512):
        memory.add(memory.view(renderer.exemplars(part), torch.eye(3).expand(len(part), 3, 3)), part)
    classes = torch.arange(64) % count
    factors, colors = FactorRanges().at(classes, classes)
    images, matrix = renderer(classes, factors, colors, classes), factors_to_matrix(factors).float()
    found = {}
    for match in MATCHES:
        best = float("inf")
        for _ in range(options.repeats + 1):
            begin = time.process_time()
            memory.classify(images, matrix, match)
            best = min(best, time.process_time() - begin)
        found[match] = best / len(images) * 1e3
    return found


if __name__ == "__main__":
    main()
