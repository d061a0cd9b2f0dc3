"""Sprites as ordinary files: parquet with a card, as the Hugging Face Hub shows and loads them.

    folder/README.md
    folder/data/train-00000-of-00004.parquet ...      image, label, scale, orientation, position_x, position_y

Images are PNG of 8 bits a channel.  Uploading is hub.py's: ``push_folder(folder, "owner/name", repo_type="dataset")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sleepkit.errors import SleepkitError
from sleepkit.reporting.tables import code_block, markdown_table
from sleepkit.utils.files import replacing
from sleepkit.utils.paths import new_folder
from sleepkit.vision.data.image_data import as_bytes
from sleepkit.vision.idsprites.dataset import SpritesDataset
from sleepkit.vision.idsprites.factors import FACTOR_NAMES

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

__all__ = ["export_parquet", "sprites_card"]


def export_parquet(
    splits: Mapping[str, SpritesDataset],
    folder: str | Path,
    *,
    name: str = "infinite-dsprites",
    license: str | None = None,
    shard: int = 10_000,
) -> Path:
    """Write data sets and their card to ``folder``, which is made; returns it.

    Args:
        splits: by name, such as train, validation and test.
        name: of the data set, for its card.
        license: as the Hub spells it; None leaves it open.
        shard: most images of a file.

    Raises:
        SleepkitError: a split without images, or a folder that holds something already or cannot be written to.
    """
    import datasets
    from PIL import Image

    if shard < 1:
        raise SleepkitError(f"shard is {shard}; give at least 1 image a file")
    card = sprites_card(splits, name=name, license=license)
    folder = new_folder(folder, "folder")
    if any(folder.iterdir()):
        raise SleepkitError(f"{folder} is not empty; choose a new folder")
    (folder / "data").mkdir()
    kinds = {"image": datasets.Image(), "label": datasets.Value("int64")}
    features = datasets.Features(kinds | {factor: datasets.Value("float32") for factor in FACTOR_NAMES})
    for split, images in splits.items():
        shards = torch.arange(len(images)).split(shard)
        for number, places in enumerate(shards):
            pixels, factors = [], []
            for part in places.split(256):
                batch = images.batch(part)
                pixels += list(as_bytes(batch["pixel_values"]).permute(0, 2, 3, 1).squeeze(-1).cpu().numpy())
                factors.append(batch["factors"])
            columns = dict(zip(FACTOR_NAMES, torch.cat(factors).T.tolist(), strict=True))
            rows = {
                "image": [Image.fromarray(image) for image in pixels],
                "label": images.select(places).labels.tolist(),
                **columns,
            }
            path = folder / "data" / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            with replacing(path) as draft:
                datasets.Dataset.from_dict(rows, features=features).to_parquet(draft)
    card.save(folder / "README.md")
    return folder


def sprites_card(splits: Mapping[str, SpritesDataset], *, name: str, license: str | None = None) -> DatasetCard:
    """The card of exported data sets: what they show, how many, and the settings that make them again."""
    from huggingface_hub import DatasetCard, DatasetCardData

    if not splits or not all(len(images) for images in splits.values()):
        raise SleepkitError(f"data set {name!r} has a split without images ({', '.join(splits) or 'no split'}); leave it out")
    data = DatasetCardData(
        pretty_name=name,
        license=license,
        annotations_creators="machine-generated",
        source_datasets=["original"],
        task_categories=["image-classification"],
        tags=["sleepkit", "continual-learning", "infinite-dsprites", "synthetic"],
    )
    rows = [(split, len(images), len(images.labels.unique())) for split, images in splits.items()]
    images = next(iter(splits.values()))
    settings = {"renderer": repr(images.renderer), "factors": repr(images.factors)}
    body = (
        f"# {name}\n\nRandom two-dimensional shapes in known poses, after "
        "[Infinite dSprites](https://arxiv.org/abs/2312.16731), drawn by sleepkit. A shape's number is its label.\n\n"
        f"{markdown_table(['split', 'images', 'shapes'], rows)}\n\n"
        "scale: 1 is the canonical size. orientation: radians. position: from 0 to 1, left to right and top to bottom.\n\n"
        f"{code_block(settings)}\n"
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")
