"""The names of tfds that it does not promise to keep. Only this file says so when an update removes one."""

import ast
import importlib.metadata
import re
from pathlib import Path

from capsnet_jax.data.tfds import private


def test_the_installed_tfds_has_every_private_name_that_is_used():
    missing = private.missing_names()
    version = importlib.metadata.version("tensorflow-datasets")
    assert not missing, (
        f"tensorflow-datasets {version} no longer has {', '.join(missing)}, which capsnet_jax/data/tfds uses; "
        "change what uses them, or lower the bound of tensorflow-datasets in pyproject.toml"
    )


def test_a_missing_name_is_reported(monkeypatch):
    names = {
        "tensorflow_datasets.core.constants": ("DATA_DIR", "GONE", "DATA_DIR.gone"),
        "tensorflow_datasets.no": ("x",),
    }
    monkeypatch.setattr(private, "PRIVATE_NAMES", names)
    constants = "tensorflow_datasets.core.constants"
    assert private.missing_names() == [f"{constants}.GONE", f"{constants}.DATA_DIR.gone", "tensorflow_datasets.no.x"]


def test_every_private_name_in_the_code_is_listed():
    listed = [f"{module}.{name}." for module, names in private.PRIVATE_NAMES.items() for name in names]
    for file in Path(private.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorflow_datasets."):
                for alias in node.names:
                    assert any(name.startswith(f"{node.module}.{alias.name}.") for name in listed), (file, alias.name)
            if isinstance(node, ast.Attribute) and re.match("_[a-zA-Z]", node.attr):
                assert any(f".{node.attr}." in name for name in listed), (file, node.attr)
