"""Tables of `datasets`: columns, labels that are missing, and images that cannot be decoded."""

import io

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_images import pictures

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.images import load_images

X, Y = pictures(2, 4)


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


ENCODED = [{"bytes": png(one), "path": None} for one in X]


def write(folder, labels, images=ENCODED, label=None, name="train", **more):
    folder.mkdir(exist_ok=True)
    kinds = {"image": datasets.Image()} | ({"label": label} if label is not None else {})
    table = datasets.Dataset.from_dict({"image": images, "label": labels, **more})
    for column, kind in kinds.items():
        table = table.cast_column(column, kind)
    table.to_parquet(folder / f"{name}.parquet")
    return folder


def refused(source, **options):
    with pytest.raises(SleepkitError) as error:
        load_images(source, test_share=0.25, **options)
    assert "\n" not in str(error.value) and ";" in str(error.value)
    return str(error.value)


def test_labels_are_texts_or_numbers(tmp_path):
    for labels, names in ((Y.tolist(), ["0", "1"]), (["b", "a"] * 4, ["a", "b"])):
        data = load_images(write(tmp_path / "rows", labels), test_share=0.25)
        assert data.names == names
        assert sum(len(part.labels) for part in (data.train, data.validation, data.test)) == 8


def test_images_that_pandas_has_written(tmp_path):
    for form in ([one["bytes"] for one in ENCODED], ENCODED):
        pd.DataFrame({"picture": form, "y": Y}).to_parquet(tmp_path / "train.parquet")
        data = load_images(tmp_path / "train.parquet", tmp_path / "train.parquet")
        assert np.array_equal(data.test.pixels[:, 0].numpy(), X) and data.test.labels.tolist() == Y.tolist()


def test_one_table_that_was_saved(tmp_path):
    table = datasets.Dataset.from_dict({"image": ENCODED, "label": Y.tolist()}).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "saved")
    assert len(load_images(tmp_path / "saved", test_share=0.25).test.labels) == 2


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        ([0, 1, None, 1, 0, 1, 0, 1], None, "row 2 has no label; give it one, or remove the row"),
        (["a", "b", "", "a", "b", "a", "b", "a"], None, "row 2 has no label"),
        ([0, 1, 1, -1, 0, 1, 0, 1], datasets.ClassLabel(names=["a", "b"]), "row 3 has no label"),
        ([0.0, 1.9, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], None, "row 0 has the label 0.0 (float); give whole numbers or names"),
        ([[0], [1]] * 4, None, "row 0 has the label [0] (list)"),
        ([-1, 0] * 4, None, "has labels from -1 to 0; number the classes from 0"),
        ([0, 50_000_000] * 4, None, "has labels from 0 to 50000000 without [1, 2, 3, 4, 5]; number the classes from 0"),
        ([2**62, 0] * 4, None, f"has labels from 0 to {2**62} without"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, kind, words):
    assert words in refused(write(tmp_path / "rows", labels, label=kind))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"bytes": None, "path": None}, "row 5 has no image; give it one, or remove the row"),
        ({"bytes": b"", "path": None}, "row 5 is not an image that can be decoded"),
        ({"bytes": b"noise", "path": "five.png"}, "row 5 (five.png) is not an image that can be decoded"),
    ],
)
def test_images_that_are_none(tmp_path, image, words):
    assert words in refused(write(tmp_path / "rows", Y.tolist(), [*ENCODED[:5], image, *ENCODED[6:]]))


def test_columns(tmp_path):
    write(tmp_path / "rows", Y.tolist(), mask=ENCODED)
    source = tmp_path / "rows" / "train.parquet"
    table = datasets.Dataset.from_parquet(str(source)).cast_column("mask", datasets.Image())
    table.to_parquet(source)
    assert load_images(source, source).test.pixels.shape == (8, 1, 8, 8)  # of the two, "image" is meant
    table.rename_column("image", "picture").to_parquet(source)
    assert "has the columns of images ['picture', 'mask']; rename the one that is meant" in refused(source)
    assert "has the columns ['image', 'label', 'mask']; it needs" in refused(
        write(tmp_path / "two", Y.tolist(), mask=ENCODED), label_column="kind"
    )
    datasets.Dataset.from_dict({"image": [[0.5, 1.5]] * 8, "label": Y.tolist()}).to_parquet(tmp_path / "floats.parquet")
    assert "has the columns ['image', 'label']; it needs one of images" in refused(tmp_path / "floats.parquet")


def test_files_of_two_forms_for_one_split(tmp_path):
    write(tmp_path / "rows", Y.tolist())
    write(tmp_path / "rows", Y.tolist(), name="training")
    assert "has both train and training, which are one split" in refused(tmp_path / "rows")


def test_a_file_that_is_no_split_is_said_not_to_be_read(tmp_path, capsys):
    write(tmp_path / "rows", Y.tolist())
    write(tmp_path / "rows", Y.tolist(), name="tset")
    load_images(tmp_path / "rows", test_share=0.25)
    assert "not read, as it has the name of no split: tset.parquet" in capsys.readouterr().out


def test_splits_of_other_names(tmp_path):
    table = datasets.Dataset.from_dict({"image": ENCODED, "label": Y.tolist()}).cast_column("image", datasets.Image())
    datasets.DatasetDict({"first": table, "second": table}).save_to_disk(tmp_path / "saved")
    assert "has the splits ['first', 'second']; name them train, validation and test" in refused(tmp_path / "saved")
