"""Preparing the MNIST family from its original files: tiny ones always, the real ones where they are."""

import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import lazy_imports_utils

from capsnet_jax.data import DataError, describe, load
from tests.data import fakes

EMNIST_URL = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"


def read_back(name, data_dir, split):
    """Return what tfds alone reads from the prepared folder."""
    examples = list(tfds.data_source(name, split=split, data_dir=data_dir, download=False))
    return np.stack([e["image"] for e in examples]), np.array([e["label"] for e in examples])


def in_any_order(images, labels):
    rows = np.concatenate([images.reshape(len(images), -1), labels[:, None]], axis=1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("where", ["download cache", "manual folder"])
def test_prepared_from_originals_without_network(where, tmp_path, monkeypatch):
    files = fakes.fashion(monkeypatch, tmp_path)
    if where == "manual folder":
        (tmp_path / "downloads").rename(tmp_path / "aside")
        manual = tmp_path / "downloads" / "manual" / "fashion_mnist"
        manual.mkdir(parents=True)
        for name, content in files.items():
            (manual / name).write_bytes(content)
    data = load("fashion_mnist", data_dir=tmp_path, validation_fraction=0.0)
    assert (data.classes, data.image_shape, data.label_names[9]) == (10, (28, 28, 1), "Ankle boot")
    for part, split, count, seed in ((data.train, "train", 40, 1), (data.test, "test", 20, 2)):
        images, labels = fakes.digits(count, seed=seed)
        np.testing.assert_array_equal(in_any_order(*part), in_any_order(images, labels))
        for ours, theirs in zip(part, read_back("fashion_mnist", tmp_path, split), strict=True):
            np.testing.assert_array_equal(ours, theirs)  # in tfds's order


def test_emnist_comes_from_one_archive_of_all_its_configs(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split, seed in (("train", 1), ("test", 2)):
            images, labels = fakes.digits(52, classes=26, seed=seed)
            archive.writestr(f"gzip/emnist-letters-{split}-images-idx3-ubyte.gz", fakes.idx_gz(images))
            archive.writestr(f"gzip/emnist-letters-{split}-labels-idx1-ubyte.gz", fakes.idx_gz(labels + 1))
    files = {EMNIST_URL: packed.getvalue()}
    fakes.register(monkeypatch, "emnist", files)
    fakes.fill_download_cache("emnist", files, tmp_path)
    data = load("emnist/letters", data_dir=tmp_path, validation_fraction=0.5)
    assert np.bincount(data.train.labels).tolist() == [0] + [1] * 26
    np.testing.assert_array_equal(in_any_order(*data.test), in_any_order(images, labels + 1))
    with pytest.raises(DataError, match=r"gzip/emnist-digits-train.*delete it"):
        load("emnist/digits", data_dir=tmp_path)


@pytest.mark.parametrize("where", ["download cache", "manual folder"])
def test_a_corrupted_original_is_refused_and_leaves_nothing_to_trust(where, tmp_path, monkeypatch):
    fakes.fashion(monkeypatch, tmp_path)
    folder = tmp_path / "downloads" / "fashion_mnist"
    victim = next(path for path in folder.iterdir() if "train-labels" in path.name and path.suffix == ".gz")
    content = bytearray(victim.read_bytes())
    if where == "manual folder":
        victim.unlink()
        victim = tmp_path / "downloads" / "manual" / "fashion_mnist" / "train-labels-idx1-ubyte.gz"
        victim.parent.mkdir(parents=True)
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match="wrong checksum") as error:
            load("fashion_mnist", data_dir=tmp_path)
        assert str(victim) in str(error.value)
        assert "delete" in str(error.value)
        assert "\n" not in str(error.value)
        assert not list((tmp_path / "fashion_mnist").glob("*"))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("train-labels-idx1-ubyte.gz", fakes.idx_gz(np.zeros(39)), "do not belong together"),
        ("train-labels-idx1-ubyte.gz", fakes.idx_gz(np.full(40, 10)), "label 10"),
        ("t10k-images-idx3-ubyte.gz", fakes.idx_gz(np.zeros((20, 27, 28))), "do not belong together"),
        ("t10k-images-idx3-ubyte.gz", gzip.compress(b"something else"), "not an IDX file"),
    ],
)
def test_originals_that_are_wrong_in_themselves_leave_nothing(file, content, says, tmp_path, monkeypatch):
    files = {fakes.FASHION_URL + name: data for name, data in fakes.fashion_files().items()}
    files[fakes.FASHION_URL + file] = content
    fakes.register(monkeypatch, "fashion_mnist", files)
    fakes.fill_download_cache("fashion_mnist", files, tmp_path)
    with pytest.raises(DataError, match=says):
        load("fashion_mnist", data_dir=tmp_path)
    assert not list((tmp_path / "fashion_mnist").glob("*"))


@pytest.mark.parametrize("name", ["kmnist", "emnist/balanced"])
def test_without_network_one_line_names_folder_and_remedy(name, tmp_path):
    with pytest.raises(DataError) as error:
        load(name, data_dir=tmp_path)
    message = str(error.value)
    assert "\n" not in message
    base = name.split("/")[0]
    for part in (f"{name} is not prepared", str(tmp_path / base), f"tfds build {name}", "TFDS_DATA_DIR"):
        assert part in message
    assert str(tmp_path / "downloads" / "manual" / base) in message
    assert "this test has no network" in message


SCRIPT = """
import sys
from pathlib import Path
import pytest
from capsnet_jax.data import load
from tests.data import fakes

with pytest.MonkeyPatch.context() as patch:
    data_dir = Path(sys.argv[1])
    fakes.fashion(patch, data_dir)
    for _ in range(2):
        assert load("fashion_mnist", data_dir=data_dir).test.images.shape == (20, 28, 28, 1)
assert "tensorflow" not in sys.modules
"""


def test_tensorflow_is_never_imported_even_where_it_is_installed(tmp_path):
    package = tmp_path / "site" / "tensorflow" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("raise SystemExit('tensorflow was imported')")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{root}"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, env=environment)


def test_the_stand_in_leaves_tfds_as_it_was(tmp_path, monkeypatch):
    fakes.fashion(monkeypatch, tmp_path)
    before = dict(vars(lazy_imports_utils.tensorflow))
    load("fashion_mnist", data_dir=tmp_path)
    assert vars(lazy_imports_utils.tensorflow) == before


def originals_and_prepared():
    """Return the folders of real Fashion-MNIST's originals and prepared set, where the environment names them."""
    originals, prepared = os.environ.get("CAPSNET_JAX_ORIGINALS"), os.environ.get("TFDS_DATA_DIR")
    return [(originals, prepared)] if originals and prepared else []


if originals_and_prepared():

    @pytest.mark.slow
    @pytest.mark.parametrize(("originals", "prepared"), originals_and_prepared())
    def test_real_fashion_mnist_equals_the_prepared_set_byte_for_byte(originals, prepared, tmp_path):
        paths = Path(originals, "fashion_mnist").glob("*.gz")
        fakes.fill_download_cache(
            "fashion_mnist", {fakes.FASHION_URL + p.name: p.read_bytes() for p in paths}, tmp_path
        )
        ours = load("fashion_mnist", data_dir=tmp_path, validation_fraction=0.0)
        cache = tmp_path / "theirs"
        theirs = load("fashion_mnist", data_dir=prepared, validation_fraction=0.0, cache_dir=cache)
        assert len(ours.train.labels) == 60_000
        assert describe("fashion_mnist") == (theirs.image_shape, theirs.label_names)
        for left, right in zip((*ours.train, *ours.test), (*theirs.train, *theirs.test), strict=True):
            np.testing.assert_array_equal(left, right)
