"""How a finished disentangled run depends on the number of exemplars and on sigma: the third open question of Infinite dSprites.

    python benchmarks/exemplar_sensitivity.py NAME 1 2 4 8 --config recipes/configs/disentangled/s1.yaml \\
        --exemplar_source first --exemplars_per_class 8 --output_dir runs/first8

After the name and the numbers come the arguments with which recipes/disentangled.py made the run.  Its canonicalizer stays as it
is; of each class the first so many exemplars are kept.  For each number: accuracy on and off the grid, AUROC of the ratio score,
and bytes of a class.  With all exemplars, for sigmas that accept shares of the last night's validation images: the share of known
(off the grid) and of novel images that they accept.  Writes benchmarks/results/NAME.json, which `make tables` turns into the
README's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from make_tables import render

from sleepkit.reporting.results import hardware, versions
from sleepkit.runs.arguments.disentangled import parse_disentangled
from sleepkit.utils.files import write_json
from sleepkit.vision.disentangled import open_set
from sleepkit.vision.disentangled.canonicalizer import Canonicalizer
from sleepkit.vision.disentangled.exemplars import Exemplars
from sleepkit.vision.disentangled.learner import DisentangledLearner
from sleepkit.vision.disentangled.protocol import image_sets
from sleepkit.vision.disentangled.sprites import build_sprites

RESULTS = Path(__file__).parent / "results"
ACCEPTED = (0.8, 0.9, 0.95, 0.99)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the table")
    parser.add_argument("numbers", nargs="+", type=int, help="of exemplars of each class")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options, rest = parser.parse_known_args(argv)
    args, config = parse_disentangled(rest)
    folder = Path(str(config.output_dir)) / "model"
    learner = DisentangledLearner(Canonicalizer.from_pretrained(folder).eval(), config)
    everything = Exemplars.load(folder / "exemplars")
    stream = build_sprites(config, args.dataset)
    sets = image_sets(stream, config.novel_classes, config.novel_images)
    poses = {name: learner.poses(images.pixels) for name, images in sets.items()}
    rows = []
    for number in options.numbers:
        learner.exemplars = first_of_each(everything, number)
        found = {name: learner.match(images.pixels, poses[name]) for name, images in sets.items()}
        right = {name: (match.labels[:, 0] == sets[name].labels).double().mean().item() for name, match in found.items()}
        scores = {name: open_set.novelty(match.distances) for name, match in found.items()}
        row = {"exemplars": number, "accuracy": right["test"], "off_grid_accuracy": right["off"]}
        row |= {f"auroc_{one}": open_set.auroc(scores["off"][one], scores["novel"][one]) for one in scores["off"]}
        rows.append(row | {"bytes_per_class": learner.exemplars.bytes / len(learner.exemplars.labels.unique())})
    last = stream[len(stream) - 1].validation
    images = last.batch()["pixel_values"]
    usual = open_set.novelty(learner.match(images, learner.poses(images)).distances)["ratio"]
    sigmas = []
    for share in ACCEPTED:
        sigma = open_set.threshold(usual, share)
        known, novel = ((scores[name]["ratio"] <= sigma).mean().item() for name in ("off", "novel"))
        sigmas.append({"accepted": share, "sigma": sigma, "known_accepted": known, "novel_accepted": novel})
    about = {"seed": config.seed, "versions": versions(), "hardware": hardware()}
    document = {"sensitivity": {"exemplars": rows, "sigma": sigmas}, **about}
    write_json(options.results / f"{options.name}.json", document)
    print(render(document))


def first_of_each(memory: Exemplars, number: int) -> Exemplars:
    """A memory of the first ``number`` exemplars of each class."""
    places = torch.cat([(memory.labels == label).nonzero().flatten()[:number] for label in memory.labels.unique()])
    other = memory.without_classes()
    other.set(memory.pictures[places], memory.labels[places])
    return other


if __name__ == "__main__":
    main(sys.argv[1:])
