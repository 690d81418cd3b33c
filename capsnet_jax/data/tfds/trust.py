"""What a prepared set from someone else may not do: run code, or lead out of a folder by its names."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from tensorflow_datasets.core.features.feature import FeatureConnector

from capsnet_jax.data.arrays import DataError

_TFDS_FEATURES = "tensorflow_datasets.core.features."
_PLAIN_NAME = re.compile(r"[\w+-][\w+.-]*", re.ASCII)


@contextlib.contextmanager
def tfds_features_only() -> Iterator[None]:
    """Let tfds read only features of its own, until the context ends.

    A set's `features.json` names a class for each feature, and tfds imports the module of any class that it does not
    know. So whoever wrote that file could run code. Here only the classes that are there already are looked up.
    """
    importing = vars(FeatureConnector)["cls_from_name"]
    FeatureConnector.cls_from_name = classmethod(_known_class)
    try:
        yield
    finally:
        FeatureConnector.cls_from_name = importing


def _known_class(base: Any, name: str) -> Any:
    """Replace tfds's method: the name of a class → the feature of that name."""
    known = base._registered_features
    if not name.startswith(_TFDS_FEATURES) or name not in known:
        raise DataError(
            f"its metadata ask for the code {name[:80]!r}, which is no feature of tfds's own; "
            "use sets of images and class labels from someone you trust"
        )
    return known[name]


def check_names(builder: Any, where: str) -> None:
    """Check a set's name, config and version, which become folders of the cache.

    Args:
        builder: the set.
        where: what the set was asked for by, for the error.

    Raises:
        DataError: one of them is no plain name, such as `..`.
    """
    full_name = builder.info.full_name
    if not all(_PLAIN_NAME.fullmatch(part) for part in (builder.name, *full_name.split("/"))):
        raise DataError(f"{where}: its dataset_info.json gives it the name {full_name[:80]!r}; delete that folder")
