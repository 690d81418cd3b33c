import gzip

import numpy as np
import pytest

from capsnet_jax.data import DataError
from capsnet_jax.data.tfds.idx import parse_idx
from tests.data.fakes import idx_gz


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0,), (2, 1, 1)])
def test_values_and_shape_are_those_written(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = parse_idx(idx_gz(values), "file")
    assert read.dtype == np.uint8
    assert read.shape == shape
    np.testing.assert_array_equal(read, values)


COMPLETE = gzip.decompress(idx_gz(np.zeros((3, 4), np.uint8)))


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (b"not gzip", "gzip"),
        (b"", "IDX"),
        (gzip.compress(COMPLETE)[:-9], "gzip"),
        (gzip.compress(b""), "nothing"),
        (gzip.compress(b"\1\0\x08\1"), "IDX"),
        (gzip.compress(b"\0\0\x0d\1" + bytes(8)), "IDX"),  # floats, not bytes
        (gzip.compress(COMPLETE[:8]), "header"),
        (gzip.compress(COMPLETE[:-1]), "11 values"),
        (gzip.compress(COMPLETE + b"\0"), "13 values"),
    ],
)
def test_anything_else_is_refused_by_name(packed, says):
    with pytest.raises(DataError, match=says) as error:
        parse_idx(packed, "train-images")
    assert "train-images" in str(error.value)
    assert "\n" not in str(error.value)
