"""Folders of images as people have them: what is read, what is skipped and said to be, and what is one line."""

import os

import numpy as np
import pytest
from PIL import Image

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.images import load_images


def paint(path, value, form="PNG", mode="L", size=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value,) * len(mode)
    Image.new(mode, (size, size), colour).save(path, form)


@pytest.fixture
def photos(tmp_path):
    """Two classes of three images each in two splits; an image's value is 100 times its class and its number."""
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            for number in range(3):
                paint(tmp_path / "photos" / split / name / f"{number}.png", 100 * label + number)
    return tmp_path / "photos"


def refused(folder, **options):
    with pytest.raises(SleepkitError) as error:
        load_images(folder, **options)
    assert "\n" not in str(error.value) and ";" in str(error.value)
    return str(error.value)


def values(images):
    return sorted(images.pixels[:, 0, 0, 0].tolist())


def test_classes_are_folders(photos, capsys):
    data = load_images(photos)
    assert data.names == ["cat", "dog"] and values(data.test) == [0, 1, 2, 100, 101, 102]
    assert (data.test.labels == (data.test.pixels[:, 0, 0, 0] >= 100)).all()
    assert capsys.readouterr().out == ""


def test_files_that_are_no_images_are_skipped_and_said_to_be(photos, capsys):
    (photos / "README.md").write_text("# Photos")
    (photos / "old" / "cat").mkdir(parents=True)
    (photos / "train" / "labels.csv").write_text("a,b")
    (photos / "train" / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    (photos / "train" / "cat" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (photos / "train" / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    (photos / "train" / "dog" / ".cache").mkdir()
    os.mkfifo(photos / "train" / "dog" / "pipe.png")  # which no one writes to
    paint(photos / "train" / "dog" / "no ending", 150)
    paint(photos / "train" / "dog" / "word.txt", 151, "JPEG", "RGB")
    data = load_images(photos, channels=3)
    assert len(data.train.labels) + len(data.validation.labels) == 8
    assert {150, 151} <= set(values(data.train)) | set(values(data.validation))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("skipped, as no image of a class: README.md, old, ") and line.endswith(" and 3 more")
    for name in ("Thumbs.db", "._1.png", "pipe.png"):
        (photos / "train" / ("dog" if name == "pipe.png" else "cat") / name).unlink()
    load_images(photos, channels=3)
    said = "skipped, as no image of a class: README.md, old, train/labels.csv, train/cat/.DS_Store, train/dog/.cache\n"
    assert capsys.readouterr().out == said


def test_what_of_an_image_is_left_out_is_said(photos, capsys):
    paint(photos / "test" / "cat" / "clear.png", 60, mode="RGBA")
    frames = [Image.new("RGB", (4, 4), (value,) * 3) for value in (7, 8)]
    frames[0].save(photos / "test" / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    data = load_images(photos, channels=1)
    assert set(values(data.test)) >= {7, round(60 * 60 / 255 + 255 - 60)}
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "clear.png" in said[0] and "laid on white" in said[0]
    assert "moving.gif" in said[1] and "the first one is taken" in said[1]


def test_an_ending_that_lies(photos):
    paint(photos / "train" / "cat" / "0.png", 50, "BMP")
    data = load_images(photos)
    assert 50 in values(data.train) + values(data.validation)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nnoise", b"<html>404</html>"])
def test_a_damaged_image_is_named(photos, content):
    (photos / "train" / "dog" / "2.png").write_bytes(content)
    assert "dog/2.png) is not an image that can be decoded" in refused(photos)


def test_a_link_to_nothing_is_named(photos):
    (photos / "train" / "dog" / "3.png").symlink_to("gone.png")
    assert "dog/3.png) is not an image" in refused(photos)


def test_links_that_go_round(photos, tmp_path):
    (photos / "train" / "cat" / "loop").symlink_to(photos / "train" / "cat" / "loop")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    assert len(load_images(photos).test.labels) == 6
    assert "does not exist" in refused(tmp_path / "ring")
    (photos / "train" / "cat" / "up").symlink_to(photos)
    assert "cat has a folder, up" in refused(photos)


def test_one_split_of_class_folders(photos):
    data = load_images(photos / "train", test_share=0.3)
    assert data.names == ["cat", "dog"] and len(data.test.labels) == 2
    data = load_images(photos, photos / "train")
    assert values(data.test) == [0, 1, 2, 100, 101, 102]
    assert "has no test and no validation split" in refused(photos / "train")


def test_names_of_splits_in_any_case(photos):
    (photos / "train").rename(photos / "Training")
    (photos / "test").rename(photos / "VAL")
    assert len(load_images(photos).test.labels) == 6
    paint(photos / "valid" / "cat" / "0.png", 1)
    assert "has both VAL and valid, which are one split" in refused(photos)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda one: (one / "train" / "bird").mkdir(), "bird has no images; add some, or remove the folder"),
        (lambda one: paint(one / "train" / "cat" / "young" / "0.png", 1), "cat has a folder, young; a class is one folder"),
        (lambda one: paint(one / "test" / "bird" / "0.png", 1), "has the class 'bird', which is missing in the training split"),
        (lambda one: paint(one / "train" / "ape" / "0.png", 1), "has no image of 1 classes (ape)"),
        (lambda one: paint(one / "train" / "a\nb" / "0.png", 1), r"has the class 'a\nb', whose name cannot be printed"),
        (lambda one: paint(one / "train" / os.fsdecode(b"\xff") / "0.png", 1), r"has the class '\udcff', whose name"),
        (lambda one: paint(one / "train" / "cat" / "9.png", 1, size=9), "give --image_size to resize them, or remove"),
    ],
)
def test_folders_that_are_no_classes(photos, make, words):
    make(photos)
    assert words in refused(photos)


def test_images_without_classes(tmp_path):
    paint(tmp_path / "flat" / "train" / "0.png", 1)
    assert "train has no folders; put the images of each class into one" in refused(tmp_path / "flat")
    (tmp_path / "none").mkdir()
    assert "none has no images" in refused(tmp_path / "none")


def test_a_column_needs_a_table(photos):
    assert "label_column is 'kind' and" in refused(photos, label_column="kind")


def test_images_of_any_size_take_little_memory(photos, monkeypatch):
    paint(photos / "train" / "cat" / "big.png", 1, size=2000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    assert load_images(photos, image_size=8).train.pixels.shape[1:] == (1, 8, 8)
    assert "7 images of 1x400x400 would take" in refused(photos, image_size=400)


def test_numbers_of_pixels_and_order(photos):
    first = load_images(photos, seed=3)
    again = load_images(photos, seed=3)
    assert np.array_equal(first.train.pixels, again.train.pixels)
    assert values(first.train) + values(first.validation) != values(first.train)
