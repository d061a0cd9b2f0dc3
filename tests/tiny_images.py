"""Images small enough for tests, built in code: 8 x 8, one bright patch per class and noise, so that they can be learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, ResNetConfig, ViTImageProcessor

from sleepkit.vision.data.image_data import ImageData, Images
from sleepkit.vision.incremental.classifier import IncrementalClassifier, IncrementalClassifierConfig
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.learner import ImageLearner

COUNTS = {"train": 24, "val": 6, "test": 8}


def pictures(classes: int = 4, each: int = 24, seed: int = 0, size: int = 8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """``x`` uint8 (N, size, size[, channels]) and ``y``, classes in turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(classes * each) % classes
    x = rng.integers(0, 90, (len(y), size, size, channels))
    for row, label in enumerate(y):
        top, left = divmod(label, 4)
        x[row, 4 * top : 4 * top + 4, 2 * left : 2 * left + 2] += 150
    x = x.astype(np.uint8)
    return (x[..., 0] if channels == 1 else x), y


def write_npz(folder: Path, classes: int = 4, splits: tuple[str, ...] = ("train", "val", "test"), **options: int) -> Path:
    """A folder as `load_images` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(splits):
        x, y = pictures(classes, COUNTS[split], seed, **options)
        np.savez(folder / f"{split}.npz", x=x, y=y)
    return folder


def tiny_resnet(folder: Path, channels: int = 3) -> Path:
    """A folder with a ResNet of random weights and its image processor, as a pretrained backbone has it."""
    torch.manual_seed(0)
    form = ResNetConfig(num_channels=channels, embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    AutoModel.from_config(form).save_pretrained(folder)
    ViTImageProcessor(image_mean=[0.5, 0.4, 0.3][:channels], image_std=[0.2, 0.3, 0.4][:channels]).save_pretrained(folder)
    return folder


def tiny_data(classes: int = 4, channels: int = 1) -> ImageData:
    """The same in memory."""

    def images(seed: int, each: int) -> Images:
        x, y = pictures(classes, each, seed, channels=channels)
        x = x[..., None] if channels == 1 else x
        return Images(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(y))

    return ImageData(*(images(k, each) for k, each in enumerate(COUNTS.values())), [f"class {k}" for k in range(classes)])


def tiny_classifier(seed: int = 0, **options: object) -> IncrementalClassifier:
    """A CNN with a few hundred weights."""
    torch.manual_seed(seed)
    shape = {"num_channels": 1, "image_size": [8, 8], "cnn_widths": [4], "hidden_size": 8}
    return IncrementalClassifier(IncrementalClassifierConfig(**{**shape, **options}))


def tiny_config(folder: Path, **options: object) -> IncrementalTrainingConfig:
    """Short nights of small batches."""
    few = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "replay_batch_size": 8, "buffer_size": 12}
    few |= {"learning_rate": 0.01, "fisher_images": 4, "vae_hidden": 8, "vae_latent": 2, "vae_samples": 2, "use_cpu": True}
    return IncrementalTrainingConfig(output_dir=str(folder), **{**few, **options})


def night(one: ImageLearner, number: int, folder: Path) -> dict[str, object]:
    """A learner's night with experience ``number`` of its stream, from 1; the same numbers are drawn whatever came before."""
    torch.manual_seed(number)
    one.wake(one.stream[number - 1])
    return one.sleep(number, folder)
