"""Prepare a tfds set: download, checksums, array_record files; without TensorFlow, without long waits."""

import contextlib
import errno
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums, downloader, resource
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.utils import py_utils

import capsnet_jax.data.tfds.mnist_family as mnist_family
from capsnet_jax.data.arrays import DataError

Builder = Any  # tfds.core.DatasetBuilder, which a type checker cannot see into

_DISK_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENAMETOOLONG}
_TIMEOUT = 10  # seconds without an answer after which a download has failed; tfds has no limit


def is_prepared(builder: Builder) -> bool:
    """Return whether the set's folder is complete, as tfds's method of that name does, but without its warning."""
    folder = Path(builder.data_dir)
    return (folder / "dataset_info.json").is_file() and (folder / "features.json").is_file()


def prepare(builder: Builder) -> None:
    """Download a set and write it to its folder, where every later `tfds.data_source` reads it.

    tfds writes to a temporary folder, and renames it when it is complete. Original files in tfds's download cache, or
    under their original names in `<data_dir>/downloads/manual/<name>`, are used instead of the network.

    Raises:
        DataError: the set cannot be prepared. Nothing is left that a later load would trust.
    """
    folder = Path(builder.data_dir)
    if folder.exists():
        raise DataError(f"{builder.name}: {folder} is not a complete prepared dataset; delete it and load again")
    downloads = Path(builder.data_dir_root) / "downloads"
    _check_cached_downloads(builder, downloads)
    if mnist_family.is_member(builder):
        builder._split_generators = functools.partial(mnist_family.split_generators, builder)
    manual = _manual_folder(builder)
    config = tfds.download.DownloadConfig(try_download_gcs=False, manual_dir=manual if manual.exists() else None)
    try:
        print(f"preparing {builder.name} in {folder}", flush=True)
        with _short_timeout(), _quiet():
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:  # the builder, the network and the disk can raise anything
        if is_prepared(builder):  # another process was faster
            return
        raise DataError(_explain(builder, error)) from error


def _manual_folder(builder: Builder) -> Path:
    return Path(builder.data_dir_root) / "downloads" / "manual" / builder.name


@contextlib.contextmanager
def _short_timeout() -> Iterator[None]:
    """Make tfds's downloads fail in seconds. By default it tries for minutes, without a time limit."""
    open_url = functools.partial(downloader._open_url, timeout=_TIMEOUT)
    with (
        py_utils.temporary_assignment(downloader, "MAX_RETRIES", 0),
        py_utils.temporary_assignment(downloader, "_open_url", open_url),
    ):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide tfds's messages and progress bars, which would bury the one line of an error."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _check_cached_downloads(builder: Builder, downloads: Path) -> None:
    """Compare the files in tfds's download cache with the registered checksums, because tfds does not.

    Raises:
        DataError: a file has another checksum.
    """
    for url, expected in (builder.url_infos or {}).items():
        names = resource.get_dl_fname(url, expected.checksum), resource.get_dl_fname(url)
        for path in (folder / name for folder in (downloads / builder.name, downloads) for name in names):
            if path.is_file() and checksums.compute_url_info(path) != expected:
                raise DataError(
                    f"{builder.name}: {path} has a wrong checksum, it is not the original of {url}; "
                    "delete it and load again"
                )


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and those that it was raised from, the last first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _explain(builder: Builder, error: Exception) -> str:
    """Say in one line what went wrong and what can be done."""
    chain = causes(error)
    for link in chain:
        if isinstance(link, DataError):
            return str(link)
        if isinstance(link, NonMatchingChecksumError):
            where = str(link).splitlines()[0].rstrip(":")
            return f"{builder.name}: wrong checksum: {where}; delete that file and load again"
        if isinstance(link, OSError) and link.errno in _DISK_ERRORS:
            return f"{builder.name} cannot be prepared: {link}; set TFDS_DATA_DIR to a folder that has room to write"
    set_name = "/".join(filter(None, (builder.name, builder.builder_config and builder.builder_config.name)))
    elsewhere = (
        f"run `tfds build {set_name} --file_format=array_record` on a machine with TensorFlow and a network, "
        "and set TFDS_DATA_DIR to the folder it wrote"
    )
    if any(isinstance(link, ModuleNotFoundError) and link.name == "tensorflow" for link in chain):
        return f"{builder.name}: tfds needs TensorFlow to prepare it, which is not used here; {elsewhere}"
    files = sorted(info.filename or os.path.basename(url) for url, info in (builder.url_infos or {}).items())
    by_hand = f"put {', '.join(files[:6])} in {_manual_folder(builder)}, or " if files else ""
    return (
        f"{set_name} is not prepared in {builder.data_dir} and cannot be downloaded and prepared now "
        f"({type(error).__name__}: {str(chain[-1])[:200]}); {by_hand}{elsewhere}"
    )
