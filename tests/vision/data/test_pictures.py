"""One picture in bytes: as a person sees it, whatever the file's depth, colours, orientation and transparency."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.pictures import decoded, fitted, fitted_shape

TURNS = {  # of EXIF: how the file's picture is made of what a person sees
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.T,
    6: lambda seen: np.rot90(seen),
    7: lambda seen: seen.T[::-1, ::-1],
    8: lambda seen: np.rot90(seen, -1),
}


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def read(image, form="PNG", **options):
    """What is decoded of a picture that Pillow has saved, as nested lists."""
    return decoded(saved(image, form, **options), "here").pixels.tolist()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_photograph_is_seen_upright(orientation, form):
    seen = np.zeros((16, 32), dtype=np.uint8)
    seen[:8, :16], seen[8:, 24:] = 200, 100  # a corner and another, so that all eight ways differ
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
    turned = Image.fromarray(np.ascontiguousarray(TURNS[orientation](seen)))
    picture = decoded(saved(turned, form, exif=exif, **options), "here")
    assert picture.pixels.shape[1:] == (16, 32)
    torch.testing.assert_close(picture.pixels[0].int(), torch.from_numpy(seen).int(), atol=3, rtol=0)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_of_sixteen_bits_is_scaled(form):
    values = np.array([[0, 4000], [60000, 65535]], dtype=np.uint16)
    assert read(Image.fromarray(values), form) == [[[0, 16], [233, 255]]]


def test_other_depths_are_scaled():
    assert decoded(b"P5 2 1 4095\n" + np.array([4095, 2048], dtype=">u2").tobytes(), "here").pixels.tolist() == [[[255, 128]]]
    assert read(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF") == [[[0, 128, 255]]]
    assert read(Image.fromarray(np.array([[True, False]]))) == [[[255, 0]]]
    twelve = saved(Image.fromarray(np.array([[0, 4095]], dtype=np.uint16)), "TIFF", tiffinfo={258: 16, 262: 0})
    assert decoded(twelve, "here").pixels.tolist() == [[[255, 239]]]  # white is zero


def test_colours_of_sixteen_bits_are_scaled():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">6H", 4000, 0, 60000, 65535, 32768, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    found = decoded(file, "here").pixels[:, 0].T
    torch.testing.assert_close(found.int(), torch.tensor([[16, 0, 233], [255, 128, 0]]).int(), atol=1, rtol=0)


@pytest.mark.parametrize(
    ("mode", "values", "seen"),
    [
        ("RGBA", [(200, 0, 0, 255), (200, 0, 0, 0)], [[200, 0, 0], [255, 255, 255]]),
        ("RGBA", [(0, 0, 0, 51), (9, 8, 7, 255)], [[204, 204, 204], [9, 8, 7]]),
        ("LA", [(10, 255), (10, 0)], [[10], [255]]),
    ],
)
def test_transparency_is_laid_on_white_and_said(mode, values, seen):
    image = Image.new(mode, (2, 1))
    image.putdata(values)
    picture = decoded(saved(image), "here")
    assert picture.pixels[:, 0].T.tolist() == seen and picture.remarks == ("partly transparent, and laid on white",)


def test_what_is_opaque_needs_no_white():
    image = Image.new("RGBA", (1, 1), (1, 2, 3, 255))
    assert decoded(saved(image), "here").remarks == () and read(image) == [[[1]], [[2]], [[3]]]


def test_palettes():
    image = Image.new("P", (2, 1))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.putdata([0, 1])
    assert decoded(saved(image), "here").pixels[:, 0].T.tolist() == [[250, 0, 0], [0, 0, 250]]
    clear = decoded(saved(image, transparency=1), "here")
    assert clear.pixels[:, 0].T.tolist() == [[250, 0, 0], [255, 255, 255]] and clear.remarks


def test_cmyk_is_rgb():
    picture = decoded(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), "here")
    torch.testing.assert_close(picture.pixels[:, 0, 0].int(), torch.tensor([255, 0, 0]).int(), atol=3, rtol=0)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames(form):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    picture = decoded(saved(frames[0], form, save_all=True, append_images=frames[1:]), "here")
    assert picture.remarks == ("of several frames, and the first one is taken",)
    torch.testing.assert_close(picture.pixels[:, 0, 0].int(), torch.tensor([255, 0, 0]).int(), atol=8, rtol=0)


def test_the_smallest_picture():
    assert read(Image.new("L", (1, 1), 7)) == [[[7]]]


def noisy(form):
    return saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), form)


def bomb(side):
    """A PNG of so many pixels, of which there is only the header."""
    whole = saved(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "is not an image that can be decoded"),
        (b"\x89PNG\r\n\x1a\nnoise", "is not an image that can be decoded"),
        (noisy("PNG")[:3000], "is not an image that can be decoded"),
        (noisy("JPEG")[:1000], "is not an image that can be decoded"),
        (noisy("WEBP")[:3000], "is not an image that can be decoded"),
        (noisy("TIFF")[:3000], "is not an image that can be decoded"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image that can be decoded"),
        (bomb(20_000), "has more than 89,478,485 pixels; scale it down"),
        (bomb(10_000), "has more than 89,478,485 pixels; scale it down"),  # of which Pillow only warns
        (saved(Image.fromarray(np.array([[1, 2**20]], dtype=np.int32)), "TIFF"), "has whole numbers of 32 bits"),
        (saved(Image.fromarray(np.array([[0, 255]], dtype=np.float32)), "TIFF"), "floating-point values from 0 to 255; save it"),
        (saved(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF"), "floating-point values from nan to nan"),
    ],
)
def test_what_cannot_be_seen_is_one_line(file, words):
    with pytest.raises(SleepkitError, match=words) as error:
        decoded(file, "cats/1.png")
    assert str(error.value).startswith("cats/1.png ") and "\n" not in str(error.value)


def test_channels_and_size():
    images = torch.tensor([10, 200, 30], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    grey = fitted(images, 2, 1)
    assert grey.shape == (2, *fitted_shape((3, 4, 4), 2, 1)) == (2, 1, 2, 2) and grey.unique().tolist() == [124]
    assert torch.equal(fitted(grey, None, 3), grey.expand(2, 3, 2, 2)) and fitted_shape((1, 2, 2), None, 3) == (3, 2, 2)
    assert torch.equal(fitted(images, None, None), images)
