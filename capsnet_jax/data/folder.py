"""A folder of pictures of the user's own: a sub-folder for each class, in `train` and `test` or not.

    toys/cars/1.jpg toys/cars/2.png … toys/planes/…            a fifth of each class is test
    toys/train/cars/… toys/test/cars/… (toys/validation/cars/…)       also named as in `SPLITS`, in any case

Any format and size that Pillow reads; each is turned upright, cropped to its middle square and scaled, as a picture
that is to be classified is. Sub-folders of a class and links are followed. The set is grey if every picture is, else
RGB.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from capsnet_jax.data import cache, picture
from capsnet_jax.data.arrays import DataError, Examples, RawDataset, note
from capsnet_jax.data.split import TEST_FRACTION, train_and_test

MADE_BY = ("folder.py", "picture.py", "split.py")  # the code that makes the arrays
SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val"), "test": ("test", "testing")}
NAMED = 3  # files that a note names, with the reason
MANY = 1000  # pictures; reading more takes long enough to say so

Pictures = dict[str, list[Path]]  # of each class


def load(path: str, image_size: int, cache_dir: str | os.PathLike[str] | None = None) -> RawDataset:
    """Read a folder's pictures, in squares of `image_size` pixels.

    Raises:
        DataError: there is no such folder, it has no two classes with pictures, or train and test differ in classes; or
            the system does not hand out a file, which is not left out then.
    """
    root = Path(path)
    splits, left_out = _find(root)
    identity = {"path": path, "size": str(image_size), "files": fingerprint(path), "others": repr(left_out)}
    file = f"folder/{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}-{image_size}.npz"
    return cache.cached_in(cache_dir, file, identity, lambda: _read(root, splits, left_out, image_size), MADE_BY)


def fingerprint(path: str) -> str:
    """Return a digest of the names, sizes and times of all files that are read.

    Raises:
        DataError: as of `load`.
    """
    splits, _ = _find(Path(path))
    files = [file for pictures in splits.values() for members in pictures.values() for file in members]
    return cache.fingerprint(files, Path(path))


def _find(root: Path) -> tuple[dict[str, Pictures], list[Path]]:
    """Return the files of every class of every split, and what is hidden or lies beside the classes."""
    if not root.is_dir():
        raise DataError(
            f"folder:{root}: there is no such folder; name one with a sub-folder of pictures for each class"
        )
    try:
        inside, left_out = _entries(root)
        named = [(split, name) for split, names in SPLITS.items() for name in inside if name.lower() in names]
        parts = {split: inside[name] for split, name in named}
        has_splits = "train" in parts and bool(_entries(parts["train"])[0])
        if has_splits and len(parts) < len(named):
            names = ", ".join(name for _, name in named)
            raise DataError(f"folder:{root}: of {names}, two name the same part; put what they hold into one folder")
        left_out += [folder for folder in inside.values() if folder not in parts.values()] if has_splits else []
        parts = parts if has_splits else {"train": root}
        found = {}
        for split, folder in parts.items():
            classes, beside = _entries(folder)
            left_out += beside if has_splits else []
            found[split] = {name: sorted(files_below(classes[name], left_out)) for name in sorted(classes, key=_order)}
    except OSError as error:
        raise DataError(f"folder:{root} cannot be read: {error}; mend that") from error
    for split, pictures in found.items():
        if len(pictures) < 2:
            raise DataError(
                f"folder:{parts[split]} has {len(pictures)} sub-folders, but there must be one for each class, and two"
                " classes; put the pictures of each class into a sub-folder of its own"
            )
        if unlike := pictures.keys() ^ found["train"].keys():
            raise DataError(
                f"folder:{root}: train and {split} differ in their classes ({_listed(sorted(unlike))});"
                " give both the same sub-folders"
            )
        if empty := [name for name, files in pictures.items() if not files]:
            raise DataError(
                f"folder:{parts[split]}: no file is in {_listed(empty)}; put pictures there, or remove the sub-folder"
            )
    return found, left_out


def _entries(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Return the folders in a folder by name, and what else is there: files, and what is hidden."""
    folders, others = {}, []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            folders[entry.name] = entry
        else:
            others.append(entry)
    return folders, others


def files_below(folder: Path, left_out: list[Path], above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files in a folder and the folders below; add what is hidden to `left_out`. Links are followed once."""
    real = folder.resolve()
    if real in above:  # a link back
        left_out.append(folder)
        return
    folders, others = _entries(folder)
    for entry in others:
        if entry.name.startswith("."):
            left_out.append(entry)
        elif entry.exists():
            yield entry
        else:  # a link to nothing
            left_out.append(entry)
    for below in folders.values():
        yield from files_below(below, left_out, (*above, real))


def _read(root: Path, splits: dict[str, Pictures], left_out: list[Path], size: int) -> RawDataset:
    """Decode all pictures."""
    count = sum(len(files) for pictures in splits.values() for files in pictures.values())
    if count > MANY:
        note(f"folder:{root}: reading {count:,} pictures, once")
    notes, problems, parts = [], {}, {}
    for split, pictures in splits.items():
        images: list[np.ndarray] = []
        labels: list[int] = []
        for label, (name, files) in enumerate(pictures.items()):
            before = len(images)
            for file in files:
                try:
                    images.append(_pixels(file, size))
                    labels.append(label)
                except picture.SystemFaultError:
                    raise  # what is left out now would be missing in the cache for ever
                except DataError as error:
                    problems[file] = str(error)
            if len(images) == before:
                raise DataError(
                    f"folder:{root}: none of the {len(files)} files of {split}'s class {name} can be read as a picture"
                    f" ({problems[files[-1]]})"
                )
        parts[split] = (np.stack(images), np.array(labels, np.int32))
    problems |= {file: f"{file} is hidden or in no class" for file in left_out}
    if problems:
        reasons = _listed([problem.replace(f"{root}/", "", 1).partition("; ")[0] for problem in problems.values()])
        notes.append(f"folder:{root}: {len(problems)} files are left out: {reasons}")
    if all((images[..., :1] == images).all() for images, _ in parts.values()):
        parts = {split: (images[..., :1].copy(), labels) for split, (images, labels) in parts.items()}
    examples: dict[str, Any] = {split: Examples(*arrays) for split, arrays in parts.items()}  # type: ignore[arg-type]
    if "test" not in examples:
        notes.append(f"folder:{root} has no test split: {TEST_FRACTION:.0%} of each class are test")
        examples["train"], examples["test"] = train_and_test(examples["train"], name=f"folder:{root}")
    return RawDataset(tuple(splits["train"]), **examples, notes=tuple(notes))


def _pixels(file: Path, size: int) -> np.ndarray:
    """Return a picture as uint8[size, size, 3], as one is read that is to be classified; a blank one is as it is."""
    shape = (size, size, 3)
    try:
        return picture.read(file, shape).pixels
    except picture.BlankError:
        return picture.read(file, shape, as_is=True).pixels


def _order(name: str) -> tuple[int, str]:
    """Sort numbers by value, before other names."""
    return (int(name), "") if name.isdecimal() else (2**63, name)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
