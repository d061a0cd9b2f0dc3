"""A learner of your own in the sleep cycle: it gets nights, exact resume, metrics, report and pictures for six short methods.

    python examples/own_learner.py                      pictures that are drawn in code, some seconds
    python examples/own_learner.py digits/ runs/means   yours: train.npz and test.npz, class folders, parquet files, or a Hub id

The learner keeps the mean picture of each class, and an image is of the class whose mean is nearest.
"""

import sys
from pathlib import Path

import torch

from sleepkit import SleepCycle, build_stream, load_images
from sleepkit.cycle.image_state import ImageState
from sleepkit.vision.incremental.learner import Accuracy, Snapshots


class NearestMean(Snapshots):  # which writes and reads what `snapshot` returns
    def __init__(self):
        self.means = {}  # label -> picture

    def wake(self, experience):  # meet something new
        self.today = experience

    def sleep(self, night, output_dir):  # learn it; what is returned stands in the row of the night
        images, labels = self.today.train.pixels().float(), self.today.train.labels
        self.means |= {str(label): images[labels == label].mean(0) for label in self.today.labels}
        return {"classes_known": len(self.means)}

    def evaluate(self, experiences, in_context=False):  # test each experience
        return [
            self.accuracy(one) if str(one.labels[0]) in self.means else Accuracy(*[float("nan")] * 2, 0) for one in experiences
        ]

    def accuracy(self, experience):
        known = torch.tensor([int(label) for label in self.means])
        apart = torch.cdist(experience.test.pixels().float().flatten(1), torch.stack(list(self.means.values())).flatten(1))
        own = apart.masked_fill(~torch.isin(known, torch.tensor(experience.labels)), float("inf"))
        right = [(known[one.argmin(1)] == experience.test.labels).double().mean().item() for one in (apart, own)]
        return Accuracy(*right, len(experience.test))

    def snapshot(self):  # all that a night changes
        return {label: mean.clone() for label, mean in self.means.items()}

    def restore(self, snapshot):
        self.means = dict(snapshot)


def main(dataset: str = "procedural", output_dir: str | Path = "runs/own_learner", experiences: int = 6) -> dict[str, float]:
    """Run one night for each experience; returns the metrics."""
    stream = build_stream(load_images(dataset), experiences=experiences)
    cycle = SleepCycle(
        NearestMean(), stream, output_dir=output_dir, method="nearest mean", config={"scenario": "class"}, state_class=ImageState
    )
    return cycle.run().metrics


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
