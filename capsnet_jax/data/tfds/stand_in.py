"""A stand-in for the three functions of TensorFlow that tfds's builders of image sets call.

They open files, decode file names and encode PNGs. With the stand-in, tfds's builders of CIFAR, SVHN, smallNORB and
similar sets run unchanged on a machine without TensorFlow. On a machine with TensorFlow they do not import it.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.core.utils import lazy_imports_utils, py_utils


class _Stub(SimpleNamespace):
    """A module with a few names. Any other name gives the error of a missing TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        raise ModuleNotFoundError(f"tensorflow's {name} is needed", name="tensorflow")


_TENSORFLOW = _Stub(io=_Stub(gfile=_Stub(GFile=open)), compat=_Stub(as_text=os.fsdecode))


@contextlib.contextmanager
def tensorflow_stand_in() -> Iterator[None]:
    """Replace TensorFlow within tfds by the stand-in, until the context ends."""
    # All modules of tfds share one lazy module, which stores what it imported in its dictionary.
    lazy = vars(lazy_imports_utils.tensorflow)
    imported = lazy.get("_module")
    lazy["_module"] = _TENSORFLOW
    try:
        with py_utils.temporary_assignment(image_feature._ImageEncoder, "_encode_image", _encode_png):
            yield
    finally:
        if imported is None:
            del lazy["_module"]
        else:
            lazy["_module"] = imported


def _encode_png(encoder: Any, image: np.ndarray) -> bytes:
    """Replace tfds's method: uint8[height, width, channels] → the bytes of a PNG."""
    image_feature._validate_np_array(image, shape=encoder.shape, dtype=encoder.np_dtype)
    if image.dtype != np.uint8 or encoder.encoding_format != "png":
        raise ModuleNotFoundError(f"tensorflow's {encoder.encoding_format} encoder is needed", name="tensorflow")
    encoded = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image).save(encoded, format="PNG")
    return encoded.getvalue()
