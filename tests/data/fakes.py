"""Tiny originals of real sets, registered and put where tfds looks for what it has downloaded."""

import gzip
import hashlib
import json
import struct

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums, resource

FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def idx_gz(array):
    """Return a gzipped IDX file of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def digits(count, classes=10, size=28, seed=0):
    """Return random images, and labels that go through the classes in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)
    return images, np.arange(count, dtype=np.uint8) % classes


def fashion_files(train=40, test=20):
    """Return the four originals of a tiny Fashion-MNIST, by file name."""
    files = {}
    for stem, count, seed in (("train", train, 1), ("t10k", test, 2)):
        images, labels = digits(count, seed=seed)
        files[f"{stem}-images-idx3-ubyte.gz"] = idx_gz(images)
        files[f"{stem}-labels-idx1-ubyte.gz"] = idx_gz(labels)
    return files


def register(monkeypatch, name, files):
    """Make tfds expect these files, {url: bytes}, of a dataset."""
    expected = tfds.builder_cls(name).url_infos
    for url in list(expected):
        if url not in files:
            monkeypatch.delitem(expected, url)
    for url, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(expected, url, checksums.UrlInfo(len(content), digest, url.rsplit("/", 1)[-1]))


def fill_download_cache(name, files, data_dir):
    """Put the files, {url: bytes}, in tfds's download cache as if it had downloaded them."""
    folder = data_dir / "downloads" / name
    folder.mkdir(parents=True, exist_ok=True)
    for url, content in files.items():
        info = tfds.builder_cls(name).url_infos[url]
        path = folder / resource.get_dl_fname(url, info.checksum)
        path.write_bytes(content)
        about = {"urls": [url], "original_fname": info.filename, "url_info": info.asdict()}
        resource.get_info_path(path).write_text(json.dumps(about))


def fashion(monkeypatch, data_dir, **sizes):
    """Download, but do not prepare, a tiny Fashion-MNIST. Return its originals by file name."""
    files = fashion_files(**sizes)
    by_url = {FASHION_URL + file: content for file, content in files.items()}
    register(monkeypatch, "fashion_mnist", by_url)
    fill_download_cache("fashion_mnist", by_url, data_dir)
    return files
