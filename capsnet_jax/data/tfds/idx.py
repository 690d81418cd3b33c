"""The IDX format of the MNIST family's original files (http://yann.lecun.com/exdb/mnist/, at the end)."""

import gzip
import math
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

from capsnet_jax.data.arrays import DataError

_UNSIGNED_BYTE = 0x08


def parse_idx(packed: bytes, filename: str) -> UInt8[np.ndarray, "..."]:
    """Unpack and read one gzipped IDX file of bytes.

    The format is two zero bytes, the type of the values, the number of axes, the length of each axis as a
    big-endian 32-bit number, then the values in C order.

    Args:
        packed: the content of the file.
        filename: its name, for the error.

    Returns:
        The values, in the shape that the header states. Read-only.

    Raises:
        DataError: the file is not gzip or incomplete, is not IDX, holds values other than bytes, or another number of
            them than its header states.
    """
    try:
        data = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{filename} is not a gzip file, or incomplete ({error}); download it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE:
        raise DataError(f"{filename} is not an IDX file of bytes: it starts with {data[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(f"{filename} ends within its IDX header; download it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise DataError(f"{filename} holds {len(data) - start} values, but its header says {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
