"""Learn to sort texts into classes that come one night after the other, from what a frozen language model makes of each text.

    python examples/class_incremental_text.py train.jsonl test.jsonl

A row of the files is {"text": "The keeper lit the lamp.", "label": "sea"}; the test file has held-out rows of the same labels.
The language model is not trained: each text becomes the mean of its hidden states, once.  What is learned night by night is a
classifier on these vectors (MyGO), which keeps a Gaussian mixture of each class, and no text, to rehearse from.
"""

import sys
from pathlib import Path

from sleepkit.language.text_features import write_features
from sleepkit.trainers.images import GenerativeReplayTrainer
from sleepkit.vision.mygo.config import GenerativeReplayConfig


def main(
    train: str = "train.jsonl",
    test: str = "test.jsonl",
    output_dir: str = "runs/text_classes",
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    **options: object,
) -> dict[str, float]:
    """Write the vectors, unless they are there, and learn two experiences; returns the metrics."""
    vectors = Path(output_dir) / "vectors"
    if not vectors.is_dir():
        write_features({"train": Path(train), "test": Path(test)}, vectors, model)
    args = GenerativeReplayConfig(
        output_dir=f"{output_dir}/run",
        experiences=2,  # of as many labels each
        replay_space="features",
        generator="gaussian",
        top_size=256,  # units of a hidden layer on the vectors
        **options,
    )
    trainer = GenerativeReplayTrainer("cnn", args, str(vectors))
    record = trainer.train()
    for night in record.nights:
        print(f"night {night['night']}: {night['experience']}")
    print(f"accuracy among all labels {record.metrics['class_il']:.3f}, forgetting {record.metrics['forgetting']:.3f}")
    return record.metrics


if __name__ == "__main__":
    main(*sys.argv[1:])
