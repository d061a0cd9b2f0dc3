"""One picture of a file in bytes, as a person sees it: what Pillow opens -> uint8 (channels, height, width), 1 grey or 3 RGB.

    orientation     that of EXIF is applied
    depth           whole numbers of up to 16 bits, and floats from 0 to 1, are scaled to 0..255 and rounded
    colours         palettes, CMYK and the like become RGB; one bit becomes grey
    transparency    is laid on white
    animation       the first frame is taken; of a file of several pages, the first page

The last two are remarked, as something of the file is left out.  Also here: other channels and another size.

Left out: colour profiles; whole numbers of 32 bits, whose range no file says.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.errors import SleepkitError, first_line

__all__ = ["Picture", "decoded", "fitted", "fitted_shape", "is_picture", "picture_suffixes"]

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # that are known by their first bytes, whatever a file is called
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
TRANSPARENT, ANIMATED = "partly transparent, and laid on white", "of several frames, and the first one is taken"
_BITS, _INTERPRETATION, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF


class Picture(NamedTuple):
    """``pixels`` uint8 ``(1 or 3, height, width)``, where they are from, and what of the file is not in them, in words."""

    pixels: Tensor
    place: str
    remarks: tuple[str, ...] = ()


def picture_suffixes() -> set[str]:
    """Endings of files that Pillow reads, in small letters."""
    from PIL import Image

    known = Image.registered_extensions()  # which imports all formats
    return {suffix for suffix, form in known.items() if form in Image.OPEN}


def is_picture(path: Path) -> bool:
    """Whether a file of any name begins as a picture of one of `FORMATS` does."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=FORMATS).close()
    except Image.DecompressionBombError:
        return True  # and refused when it is read
    except Exception:  # each format raises its own
        return False
    return True


def decoded(source: bytes | Path, place: str) -> Picture:
    """Decode one picture; see the module.

    Args:
        source: the file, or its content.
        place: of the picture, for messages.

    Raises:
        SleepkitError: not a picture, damaged, too many pixels, or values whose range is unknown.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                opened.load()  # TIFF turns itself here
                several = opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1
                picture = ImageOps.exif_transpose(opened)
                values, transparent = _values(picture, opened, place)
    except SleepkitError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise SleepkitError(f"{place} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down, or remove it") from None
    except Exception as error:  # each format raises its own
        raise SleepkitError(f"{place} is not an image that can be decoded ({first_line(error)}); replace or remove it") from None
    pixels = torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1).contiguous()
    return Picture(pixels, place, (TRANSPARENT,) * transparent + (ANIMATED,) * several)


def _values(picture: Any, opened: Any, place: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """``(height, width[, 3])``, and whether it was laid on white; ``opened`` is the picture as it came from the file."""
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        return _scaled(np.asarray(picture), opened, place), False
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.mode in ALPHA or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        if seen.getextrema()[3][0] < 255:
            white = Image.new("RGBA", seen.size, "white")
            white.alpha_composite(seen)
            return np.array(white.convert("L" if grey else "RGB"), dtype=np.uint8), True
        picture = seen
    return np.array(picture.convert("L" if grey else "RGB"), dtype=np.uint8), False


def _scaled(values: npt.NDArray[Any], opened: Any, place: str) -> npt.NDArray[np.uint8]:
    """Grey values of more than 8 bits, from 0 to 255."""
    tags = getattr(opened, "tag_v2", {})
    if opened.mode == "F":
        top = 1.0
        if not (values.min() >= 0 and values.max() <= 1):  # also NaN
            raise SleepkitError(
                f"{place} has floating-point values from {values.min():g} to {values.max():g}; save it with values from 0 to 1, "
                "or with 8 or 16 bits a channel"
            )
    elif opened.mode.startswith("I;16") or opened.format in ("PNG", "PPM"):
        top = 2.0 ** tags.get(_BITS, (16,))[0] - 1
    else:
        raise SleepkitError(f"{place} has whole numbers of 32 bits, of an unknown range; save it with 8 or 16 bits a channel")
    shares = np.clip(values / top, 0, 1)
    if tags.get(_INTERPRETATION) == _WHITE_IS_ZERO:
        shares = 1 - shares
    return np.rint(255 * shares).astype(np.uint8)


def fitted_shape(shape: tuple[int, ...], image_size: int | None, channels: int | None) -> tuple[int, ...]:
    """``(channels, height, width)`` after `fitted`."""
    size = (image_size, image_size) if image_size else shape[1:]
    return (channels or shape[0], *size)


def fitted(images: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    """Return images with other channels and of another size.

    Args:
        images: ``(n, 1 or 3, height, width)`` uint8.
        image_size: pixels of a side; None leaves it.
        channels: 1 or 3; None leaves them.
    """
    if channels == 3 and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    elif channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)  # ITU-R 601, as in PIL
        images = (images * weights).sum(1, keepdim=True).round().to(torch.uint8)
    if image_size and tuple(images.shape[2:]) != (image_size, image_size):
        size = (image_size, image_size)
        resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
        images = resized.round().clamp(0, 255).to(torch.uint8)
    return images
