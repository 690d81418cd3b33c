"""A picture file as a data set has its images: upright, in its full range, and a drawing where the set has drawings."""

import contextlib
import errno
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from capsnet_jax.data.arrays import DataError
from capsnet_jax.data.ink import find_ink, frame_ink
from capsnet_jax.data.registry import Frame

MOST_PIXELS = 36_000_000  # A4 at 600 dpi; decoded, they take 144 MB, and of some formats twice to four times that
MOST_JPEG_PIXELS = 2**26  # the cameras of phones make up to 50 million; a JPEG is decoded at a part of its size
ENOUGH = 1024  # pixels of the longer side; a larger picture is reduced, so that the rest is quick
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow's
_ORIENTATION, _BITS_PER_SAMPLE = 274, 258  # TIFF's tags


class BlankError(DataError):
    """Every pixel of a picture is the same."""


class SystemFaultError(DataError):
    """A file, or memory for it, is not to be had: it may well be a picture."""


class Picture(NamedTuple):
    """A picture in the shape of a data set's images.

    Attributes:
        pixels: as the data set's.
        changes: what was done to the picture, in a few words.
    """

    pixels: UInt8[np.ndarray, "height width channels"]
    changes: str


def read(
    path: Path,
    shape: tuple[int, int, int],
    *,
    frame: Frame | None = None,
    invert: bool = False,
    as_is: bool = False,
) -> Picture:
    """Read a picture file in a data set's shape.

    Always: the first frame, turned upright by its EXIF, its brightest value 255 (`_full_range`), transparent parts in
    what contrasts with the opaque ones. Then a drawing is cropped and framed as the data set's are; another picture is
    cropped to the shape of the images around its middle.

    Args:
        path: of a file that Pillow reads.
        shape: height, width, channels of the result; channels are 1 or 3.
        frame: how the data set frames drawings; None: the picture is no drawing.
        invert: turn dark on light into light on dark. A drawing is dark on light then; otherwise that is found out.
        as_is: only scale the picture, even if that squeezes it.

    Raises:
        DataError: there is no such file, it is no picture, is too large, has no ink, or `shape` is not grey or RGB.
        SystemFaultError: the system does not hand it out.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise DataError(f"the model was trained on {channels} channels; pictures have 1 or 3")
    with _one_line(path):
        picture, changes, bits = _decode(path)
        values = _values(picture, changes, bits)
    if not np.isfinite(values).all():
        raise DataError(f"{path} has values that are not finite")
    if not as_is and np.ptp(values) == 0:
        raise BlankError(f"{path} is blank: every pixel is the same; --as_is takes it as it is")
    if channels == 1 and values.shape[2] == 3:
        values = values @ np.array(LUMINANCE, np.float32)[:, None]
    if frame is not None and not as_is:
        ink = find_ink(values.mean(axis=2), dark=True if invert else None)
        if ink is None:
            raise DataError(f"{path} shows no ink; --as_is takes the picture as it is")
        changes += ["dark ink on light: inverted" if ink.dark else "light ink on dark", "cropped to the ink", "centred"]
        pixels = frame_ink(ink.strength, frame, (height, width))[:, :, None]
        return Picture(np.repeat(pixels, channels, axis=2), ", ".join(changes))
    pixels = np.round(255 * values).astype(np.uint8)
    before = pixels.shape[1::-1]
    if not as_is:
        pixels = _crop(pixels, width / height)
    if pixels.shape[1::-1] != before:
        changes.append(f"cropped to its middle {pixels.shape[1]}×{pixels.shape[0]} of {before[0]}×{before[1]}")
    elif before[0] * height != before[1] * width:
        changes.append(f"squeezed from {before[0]}×{before[1]}")
    pixels = _scale(pixels, (width, height))
    if invert:
        pixels = 255 - pixels
        changes.append("inverted")
    pixels = np.broadcast_to(pixels, (height, width, channels))
    return Picture(np.ascontiguousarray(pixels), ", ".join(changes) or "as it is")


def read_whole(path: Path, most: int) -> Picture:
    """Read a photograph in colour and in its own proportions, its longer side no more than `most` pixels.

    Raises:
        DataError: there is no such file, it is no picture, or is too large.
    """
    with _one_line(path):
        size = _decode(path)[0].size
    width, height = (round(side * min(most / max(size), 1)) for side in size)
    return read(path, (max(height, 1), max(width, 1), 3), as_is=True)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Say in one line why a file cannot be decoded.

    Raises:
        DataError: why.
        SystemFaultError: the fault is not the file's content.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large: scale it to at most {MOST_PIXELS // 10**6} million pixels") from error
    except UnidentifiedImageError as error:  # its own message names Python's file object
        raise DataError(
            f"{path} is not a picture that can be read (of no known format); give a PNG or JPEG file"
        ) from error
    except Exception as error:  # what Pillow raises for a damaged file is of every kind
        number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
        if number and number != errno.EINVAL:  # a damaged file makes Pillow seek to where no file goes: EINVAL
            raise SystemFaultError(
                f"{path} cannot be read ({os.strerror(number)}); mend that, or take the file away"
            ) from error
        raise DataError(f"{path} is not a picture that can be read ({error}); give a PNG or JPEG file") from error


def _decode(path: Path) -> tuple[Image.Image, list[str], int]:
    """Return a file's first frame, upright, what was done, and of how many bits its values are, if more than 8."""
    changes = []
    if not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "there is no such file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are looked at here, and of damaged tags
        # Given a path, Pillow 13 maps uncompressed TIFFs into memory and mixes up width and height of turned ones.
        with path.open("rb") as file, Image.open(file) as picture:
            most = MOST_JPEG_PIXELS if picture.format in ("JPEG", "MPO") else MOST_PIXELS
            if picture.width * picture.height > most:
                raise Image.DecompressionBombError
            if picture.format == "EPS":
                raise ValueError("EPS is a program that draws")
            if getattr(picture, "is_animated", False):
                changes.append("the first of several frames")
            if picture.getexif().get(_ORIENTATION) in range(2, 9):
                changes.append("turned by its EXIF")
            picture.draft(None, (ENOUGH, ENOUGH))  # a JPEG is decoded at half its size, or less, if that is enough
            picture.load()
            bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
            return ImageOps.exif_transpose(picture), changes, bits


def _values(picture: Image.Image, changes: list[str], bits: int) -> np.ndarray:
    """Return a decoded picture as float32[height, width, 1 or 3] from 0 to 1; add what was done to `changes`."""
    if picture.mode[0] in "IF":
        changes.append(f"{'values' if picture.mode == 'F' else 'integers'} scaled to 0…255")
        low, high = _range(picture, bits)
        values = _reduce(picture, lambda part: Image.fromarray(np.asarray(part, np.float32))).astype(np.float64)
        with np.errstate(invalid="ignore"):  # of values that are not finite
            return ((values - low) / (high - low or 1)).astype(np.float32)
    mode = "RGBA" if picture.has_transparency_data else "L" if picture.mode == "L" else "RGB"
    values = _reduce(picture, lambda part: part.convert(mode)).astype(np.float32) / 255
    if mode != "RGBA" or values[:, :, 3].min() == 1:
        return values[:, :, :3]
    opaque, ground = values[:, :, 3:], _ground(values)
    changes.append(f"transparent parts made {'white' if ground else 'black'}")
    return values[:, :, :3] * opaque + ground * (1 - opaque)


def _range(picture: Image.Image, bits: int) -> tuple[float, float]:
    """Return what is black and what is white in a picture of more than 8 bits.

    Of 16 bits, or fewer that a TIFF declares, it is 0 and the greatest value of so many bits. Of 32 bits, the range is
    that of 8 or of 16 bits if all values lie in it; of floats it is from 0 to 1 if all do. Otherwise it goes from the
    least value to the greatest.
    """
    numbers = picture.convert("I") if picture.mode[0] == "I" else picture  # for Pillow's sake, if big-endian
    low, high = map(float, np.array(numbers.getextrema()))
    tops = {"F": [1], "I": [2**8 - 1, 2**16 - 1]}.get(picture.mode, [2**bits - 1])
    return next(((0.0, float(top)) for top in tops if low >= 0 and high <= top), (low, high))


def _ground(rgba: Float[np.ndarray, "height width 4"]) -> int:
    """Return what stands behind transparent parts, 0 or 1.

    It contrasts with what is opaque. But where most is opaque, and not of one brightness, ink and ground are both there
    and only corners are missing: it is like them.
    """
    grey, opaque = rgba[:, :, :3] @ np.array(LUMINANCE, np.float32), rgba[:, :, 3]
    if not opaque.any():
        return 1
    mean = np.average(grey, weights=opaque)
    alike = opaque.mean() > 0.5 and np.average((grey - mean) ** 2, weights=opaque) > 0.05**2
    return int((mean > 0.5) == alike)


def _reduce(
    picture: Image.Image, convert: Callable[[Image.Image], Image.Image]
) -> Num[np.ndarray, "height width channels"]:
    """Convert a picture, and average whole blocks of pixels of a large one; strip by strip, which saves memory."""
    block = -(-max(picture.size) // ENOUGH)
    strip = 64 * block if block > 1 else picture.height
    boxes = [(0, top, picture.width, min(top + strip, picture.height)) for top in range(0, picture.height, strip)]
    return np.concatenate([np.atleast_3d(np.asarray(convert(picture.crop(box)).reduce(block))) for box in boxes])


def _crop(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """Return the largest part around the middle whose width is `ratio` times its height."""
    height, width = pixels.shape[:2]
    rows, columns = min(height, max(1, round(width / ratio))), min(width, max(1, round(height * ratio)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def _scale(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return uint8[height, width, 1 or 3] scaled to (width, height), bilinearly, as ImageNet's nets see photographs.

    Of a smaller picture, every pixel is a mean over the part of the larger one that it stands for.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return np.atleast_3d(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
