"""Reading images: the forms that are understood, splits that are missing, and one line for each thing that is wrong."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import pictures, write_npz

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.images import load_images


def save_folder(path, splits=("train", "val", "test"), **options):
    """Images as files, one folder for each class."""
    for seed, split in enumerate(splits):
        x, y = pictures(2, 4, seed, **options)
        for row, (image, label) in enumerate(zip(x, y, strict=True)):
            target = path / split / f"class_{label}" / f"{row}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target)
    return path


def test_npz(tmp_path):
    data = load_images(write_npz(tmp_path))
    assert data.train.pixels.shape == (96, 1, 8, 8) and data.train.pixels.dtype == torch.uint8
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [96, 24, 32]
    x, y = pictures(4, 24, 0)
    assert np.array_equal(data.train.pixels[:, 0].numpy(), x) and np.array_equal(data.train.labels.numpy(), y)
    assert data.names == ["0", "1", "2", "3"]


def test_without_a_test_split_the_validation_split_is_held_out(tmp_path):
    data = load_images(write_npz(tmp_path, splits=("train", "val")))
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [88, 8, 24]
    assert torch.bincount(data.validation.labels).tolist() == [2, 2, 2, 2]
    again, other = (load_images(tmp_path, seed=seed).validation.pixels for seed in (0, 1))
    assert torch.equal(data.validation.pixels, again) and not torch.equal(again, other)


def test_another_file_to_evaluate_on(tmp_path):
    write_npz(tmp_path / "one", splits=("train", "val"))
    other = write_npz(tmp_path / "two")
    for source in (other / "test.npz", other):
        data = load_images(tmp_path / "one", source)
        assert np.array_equal(data.test.pixels[:, 0].numpy(), np.load(other / "test.npz")["x"])
        assert [len(part.labels) for part in (data.train, data.validation)] == [96, 24]


def test_a_test_split_that_is_drawn(tmp_path):
    write_npz(tmp_path / "all")
    for source in (tmp_path / "all", tmp_path / "all" / "train.npz"):
        data = load_images(source, test_share=0.25)
        assert [torch.bincount(part.labels).tolist() for part in (data.train, data.validation, data.test)] == [
            [16] * 4,
            [2] * 4,
            [6] * 4,
        ]
    with pytest.raises(SleepkitError, match="test_share is 1.0; give a number between 0 and 1"):
        load_images(tmp_path / "all", test_share=1.0)
    with pytest.raises(SleepkitError, match="test_share is 0.5; leave it out"):
        load_images(tmp_path / "all", tmp_path / "all", test_share=0.5)


def test_names_of_classes_in_npz(tmp_path):
    for seed, split in enumerate(("train", "test")):
        x, y = pictures(2, 4, seed)
        np.savez(tmp_path / f"{split}.npz", x=x, y=y, names=np.array(["zebra", "ant"]))
    assert load_images(tmp_path).names == ["zebra", "ant"]


def test_folders_of_images(tmp_path):
    data = load_images(save_folder(tmp_path, channels=3))
    assert data.train.pixels.shape == (8, 3, 8, 8) and data.names == ["class_0", "class_1"]
    first = np.array(Image.open(tmp_path / "test" / "class_0" / "0.png"))
    assert np.array_equal(data.test.pixels[data.test.labels == 0][0].permute(1, 2, 0).numpy(), first)


@pytest.mark.parametrize("form", ["disk", "parquet"])
def test_datasets_tables(tmp_path, form):
    features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["b", "a"])})
    tables = {}
    for seed, split in enumerate(("train", "test")):
        x, y = pictures(2, 4, seed)
        rows = {"img": [Image.fromarray(one) for one in x], "fine_label": y.tolist()}
        tables[split] = datasets.Dataset.from_dict(rows, features=features)
        if form == "parquet":
            tables[split].to_parquet(tmp_path / f"{split}.parquet")
    if form == "disk":
        datasets.DatasetDict(tables).save_to_disk(tmp_path)
    data = load_images(tmp_path)
    assert data.names == ["b", "a"] and data.test.pixels.shape == (8, 1, 8, 8)
    assert np.array_equal(data.test.pixels[:, 0].numpy(), pictures(2, 4, 1)[0])
    assert data.test.labels.tolist() == pictures(2, 4, 1)[1].tolist()
    with pytest.raises(SleepkitError, match=r"columns \['fine_label', 'img'\]; it needs one of images and a label"):
        load_images(tmp_path, label_column="kind")


def test_sizes_and_channels_are_converted_when_asked(tmp_path):
    save_folder(tmp_path, splits=("train", "test"))
    x, _ = pictures(2, 4, channels=3, size=12)
    Image.fromarray(x[0]).save(tmp_path / "train" / "class_0" / "0.png")
    with pytest.raises(SleepkitError, match=r"has images of 12x12 and 8x8 \(rows 0 and 1\); give --image_size"):
        load_images(tmp_path)
    with pytest.raises(SleepkitError, match=r"has grey and RGB images \(rows 0 and 1\); give --channels 1 or 3"):
        load_images(tmp_path, image_size=8)
    assert load_images(tmp_path, image_size=8, channels=3).train.pixels.shape[1:] == (3, 8, 8)
    grey = load_images(tmp_path, image_size=8, channels=1)
    assert grey.train.pixels.shape[1:] == (1, 8, 8)


def test_splits_of_different_channels(tmp_path):
    save_folder(tmp_path, splits=("train", "val"))
    save_folder(tmp_path, splits=("test",), channels=3)
    with pytest.raises(SleepkitError, match="are 1x8x8 and 3x8x8 .*; set --channels or image_size"):
        load_images(tmp_path)


def test_a_corrupt_image_is_named(tmp_path):
    save_folder(tmp_path)
    (tmp_path / "train" / "class_1" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nnoise")
    with pytest.raises(SleepkitError, match=r"row \d+ \(.*3.png\) is not an image that can be decoded .*; replace or remove it"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x, np.where(y == 3, 2, y)), "test split has no image of 1 classes .3."),
        (lambda x, y: (x, y + 1), "class '4', which is missing in the training split"),
        (lambda x, y: (x, y[:-1]), r"has y of int64 and shape \(31,\) for 32 images"),
        (lambda x, y: (x / 255, y), r"has x of float64 and shape \(32, 8, 8\); give images, uint8"),
        (lambda x, y: (np.full((len(x), 5), np.nan), y), "has features that are not finite"),
        (lambda x, y: (np.ones((len(x), 5)), y), r"are 1x8x8 and 5 \(channels, height, width\)"),
        (lambda x, y: (x[:0], y[:0]), "has no images"),
    ],
)
def test_a_bad_split(tmp_path, change, words):
    write_npz(tmp_path, splits=("train", "val"))
    x, y = change(*pictures(4, 8, 2))
    np.savez(tmp_path / "test.npz", x=x, y=y)
    with pytest.raises(SleepkitError, match=words) as error:
        load_images(tmp_path)
    assert "\n" not in str(error.value)


def test_training_labels_have_no_gap(tmp_path):
    x, y = pictures(4, 8)
    np.savez(tmp_path / "train.npz", x=x, y=np.where(y == 1, 5, y))
    with pytest.raises(SleepkitError, match=r"labels from 0 to 5 without \[1, 4\]; number the classes from 0"):
        load_images(tmp_path, tmp_path / "train.npz")


def test_sources_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "cut").mkdir()
    whole = (write_npz(tmp_path / "whole") / "train.npz").read_bytes()
    (tmp_path / "cut" / "train.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images.csv").write_text("a,b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    np.savez(tmp_path / "columns.npz", images=np.zeros(3))
    np.savez(tmp_path / "alone.npz", x=pictures()[0], y=pictures()[1])

    def no_network(*args, **kwargs):
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    for source, words in (
        ("cut", "train.npz cannot be read"),
        ("images.csv", "is not a .npz or .parquet file"),
        ("nowhere", "does not exist; give an existing folder"),
        ("empty", "empty has no images; give a folder with"),
        ("cut.parquet", "cannot be read"),
        ("columns.npz", r"has the arrays \['images'\]; it needs x"),
        ("alone.npz", "has no test and no validation split; give --test_dataset"),
    ):
        with pytest.raises(SleepkitError, match=words) as error:
            load_images(tmp_path / source)
        assert "\n" not in str(error.value)
    with pytest.raises(SleepkitError, match="'owner/name' cannot be loaded"):
        load_images("owner/name")
