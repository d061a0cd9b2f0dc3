"""Splits in .npz files: what is read right, and one line for what is not, before anything is unpacked."""

import io
import zipfile

import numpy as np
import pytest
import torch
from tiny_images import pictures

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.arrays import read_npz

X, Y = pictures(4, 2)


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def refused(path):
    with pytest.raises(SleepkitError) as error:
        read_npz(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and ";" in str(error.value)
    return str(error.value)


def test_images_labels_and_names(tmp_path):
    table = read_npz(write(tmp_path / "a.npz", x=X, y=Y[:, None], other=np.array([None])))  # what is not needed is not read
    assert table.images.shape == (8, 1, 8, 8) and np.array_equal(table.images[:, 0].numpy(), X) and table.labels == Y.tolist()
    colours = np.random.default_rng(0).integers(0, 256, (8, 5, 6, 3), dtype=np.uint8)
    table = read_npz(write(tmp_path / "b.npz", x=colours, y=Y.astype(np.uint64), names=np.array(["d", "c", "b", "ä"])))
    assert np.array_equal(table.images.permute(0, 2, 3, 1).numpy(), colours)
    assert table.labels == ["d", "c", "b", "ä"] * 2 and table.order == ["d", "c", "b", "ä"]


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2"])
def test_features_of_any_byte_order(tmp_path, kind):
    x = np.arange(24).reshape(8, 3).astype(kind)
    found = read_npz(write(tmp_path / "a.npz", x=x, y=Y)).images
    assert torch.equal(found.float(), torch.arange(24.0).reshape(8, 3))
    assert found.dtype == (torch.float16 if kind == "<f2" else torch.float32)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X / 255, "float (N, size) (it runs from 0 to"),
        (X.astype(np.float32), "float (N, size) (it runs from 0 to"),
        (X - 300.0, "(it runs from -300 to"),
        (np.where(X > 100, np.nan, X), "x of float64"),
        (X.astype(np.int64), "x of int64"),
        (X.astype(np.uint16) * 257, "x of uint16"),
        (X > 100, "x of bool"),
        (X.astype(str), "x of <U"),
        (X.reshape(8, 64), "x of uint8 and shape (8, 64)"),
        (X.reshape(-1), "x of uint8 and shape (512,)"),
        (np.uint8(3), "x of uint8 and shape ()"),
        (np.zeros((8, 3, 8, 8), np.uint8), "of 8 channels; give 1 (grey) or 3 (RGB); channels stand last"),
        (np.zeros((8, 8, 8, 4), np.uint8), "of 4 channels; give 1 (grey) or 3 (RGB)"),
        (np.zeros((8, 8, 0), np.uint8), "images without a pixel"),
        (np.zeros((8, 0), np.float32), "features of float32 and shape (8, 0)"),
        (np.ones((8, 3), np.longdouble), "features of "),
        (np.full((8, 3), np.inf), "features that are not finite or beyond 1e+15 (row 0, and 7 more); scale them"),
        (np.full((8, 3), 1e300), "features that are not finite"),  # in the precision of a model
        (np.full((8, 3), np.nan), "features that are not finite"),
        *(
            (np.full((8, 3), bad, dtype=kind), "features that are not finite")
            for bad in (np.inf, np.nan)
            for kind in ("f2", "f4")
        ),
        (np.full((8, 3), -1e16), "features that are not finite or beyond"),
        (np.array([X, None], dtype=object), "Python objects in x"),
        (np.zeros(8, [("a", "i4")]), "x of [('a', '<i4')]"),
    ],
)
def test_images_of_another_form(tmp_path, x, words):
    assert words in refused(write(tmp_path / "a.npz", x=x, y=Y))


def test_how_fractions_become_bytes_is_said(tmp_path):
    assert "(255 * x).round().astype('uint8') makes bytes" in refused(write(tmp_path / "a.npz", x=X / 255, y=Y))
    assert "makes bytes" not in refused(write(tmp_path / "a.npz", x=X * 1.0, y=Y))


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (Y + 0.9, "y of float64"),
        (Y.astype(float), "y of float64"),
        (Y[:-1], "shape (7,) for 8 images"),
        (np.eye(8, dtype=int), "shape (8, 8) for 8 images"),
        (Y > 1, "y of bool"),
        (Y.astype(str), "y of <U"),
        (np.array(3), "shape () for 8 images"),
        (Y.astype("M8[s]"), "y of datetime64"),
        (Y.astype(object), "Python objects in y"),
    ],
)
def test_labels_of_another_form(tmp_path, y, words):
    assert words in refused(write(tmp_path / "a.npz", x=X, y=y))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (np.array(["a", "b"]), "labels from 0 to 3 and 2 names; give one name for each class"),
        (np.array(["a", "b", "a", "c"]), "the name 'a' twice"),
        (np.array([["a", "b"], ["c", "d"]]), "names of <U1 and shape (2, 2)"),
        (np.array([b"a", b"b", b"c", b"d"]), "names of |S1"),
        (np.arange(4), "names of int64"),
        (np.array([], dtype=str), "names of <U1 and shape (0,)"),
        (np.array(["a", None, "b", "c"], dtype=object), "Python objects in names"),
    ],
)
def test_names_of_another_form(tmp_path, names, words):
    assert words in refused(write(tmp_path / "a.npz", x=X, y=Y, names=names))


def test_a_negative_label_names_no_class(tmp_path):
    path = write(tmp_path / "a.npz", x=X, y=Y - 1, names=np.array(list("abcd")))
    assert "labels from -1 to 2 and 4 names" in refused(path)


def test_arrays_that_are_missing(tmp_path):
    assert "has the arrays ['x']; it needs x (images) and y" in refused(write(tmp_path / "a.npz", x=X))
    assert "has the arrays []" in refused(write(tmp_path / "b.npz"))


def archive(path, x, **more):
    """An archive with these bytes in place of the array x."""
    file = io.BytesIO()
    np.save(file, Y)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("x.npy", x)
        target.writestr("y.npy", file.getvalue())
    return path


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_files_that_are_damaged(tmp_path):
    whole = write(tmp_path / "whole.npz", x=X, y=Y).read_bytes()
    middle = whole.index(X.tobytes()) + 5
    files = {
        "empty.npz": b"",
        "half.npz": whole[: len(whole) // 2],
        "noise.npz": b"PK\x03\x04" + b"noise" * 99,
        "text.npz": b"x,y\n1,2\n",
        "alone.npz": array(X),  # no archive
        "flipped.npz": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be read" in refused(tmp_path / name), name
    for name, x in {"no.npz": b"", "magic.npz": b"noise" * 9, "header.npz": array(X)[:60]}.items():
        assert "cannot be read" in refused(archive(tmp_path / name, x)), name


def test_an_array_that_is_longer_or_shorter_than_it_says(tmp_path):
    for x in (array(X)[:-1], array(X) + b"\0", array(X).replace(b"(8, 8, 8)", b"(9, 8, 8)")):
        assert "write it again" in refused(archive(tmp_path / "a.npz", x))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    zeros = 2**22
    path = archive(tmp_path / "a.npz", array(np.zeros((4, zeros // 4, 1), np.uint8)))
    assert path.stat().st_size < zeros / 100
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": zeros}))
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("it was unpacked"))
    assert "GiB of memory" in refused(path)
    claimed = array(np.zeros((1, 1, 1), np.uint8)).replace(b"(1, 1, 1)", b"(10**12,)"[:9])
    assert "cannot be read" in refused(archive(tmp_path / "b.npz", claimed))
    vast = array(np.zeros((1, 1, 1), np.uint8)).replace(b"'shape': (1, 1, 1), }        ", b"'shape': (1, 1, 10000000000)}")
    assert "1 bytes in x for (1, 1, 10000000000) of uint8" in refused(archive(tmp_path / "c.npz", vast))
