"""The IDX format of the MNIST family's original files (http://yann.lecun.com/exdb/mnist/, at the end)."""

import gzip
import math
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

from capsnet_jax.data.dataset import DataError

_UNSIGNED_BYTE = 0x08


def parse_idx(packed: bytes, origin: str) -> UInt8[np.ndarray, "..."]:
    """Unpacks and reads one gzipped IDX file of bytes.

    The format is two zero bytes, the type of the values, the number of axes, the length of each axis as a
    big-endian 32-bit number, then the values in C order.

    Args:
        packed: the whole file.
        origin: its name, for the error.

    Returns:
        The values in the shape that the file states. Read-only.

    Raises:
        DataError: not a whole gzip file, not IDX, values other than bytes, or another number of them than
            stated.
    """
    try:
        data = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{origin} is not a whole gzip file ({error}); download it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE:
        raise DataError(f"{origin} is not an IDX file of bytes: it starts with {data[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(f"{origin} ends within its IDX header; download it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise DataError(f"{origin} holds {len(data) - start} values where its header says {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
