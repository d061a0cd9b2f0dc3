"""Let a small classifier meet image classes one night after the other, with and without a rehearsal buffer.

    python examples/images.py                       pictures that are drawn in code, about half a minute on two cores
    python examples/images.py digits/ runs/digits   yours: train.npz and test.npz, class folders, parquet files, or a Hub id

Each run leaves results.json, report.md with its pictures, and model/ in its folder; started again, it goes on where it stopped.
"""

import sys

from sleepkit.trainers.images import ImageTrainer
from sleepkit.vision.incremental.config import IncrementalTrainingConfig


def main(dataset: str = "procedural", output_dir: str = "runs/images", **options: object) -> dict[str, dict[str, float]]:
    """Run both methods on the same stream; returns their metrics.  ``options`` are more fields of the configuration."""
    found = {}
    for method in ("finetune", "er"):
        args = IncrementalTrainingConfig(output_dir=f"{output_dir}/{method}", **{"experiences": 6, "buffer_size": 200, **options})
        trainer = ImageTrainer("cnn", args, dataset, method=method)  # "microsoft/resnet-18" takes a pretrained backbone
        found[method] = trainer.train().metrics
        print(
            f"{method}: accuracy on all classes {trainer.evaluate()['class_il']:.3f}, {found[method]['forgetting']:.3f} forgotten"
        )
    trainer.save_model(f"{output_dir}/classifier")  # AutoModelForImageClassification.from_pretrained reads it
    # trainer.push_to_hub("me/classifier")  # private, with its card
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
