"""Which code made a run: a digest of every source file that decides what it computes.

Comments, docstrings and layout do not count. A finished run is used again only where these digests are the same.
"""

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsnet_jax.config import Config
from capsnet_jax.data import Loader, entry_of, fingerprint, made_by, pairs
from capsnet_jax.losses import LOSSES
from capsnet_jax.models import MODELS
from capsnet_jax.overrides import flatten
from capsnet_jax.routing import ROUTERS
from capsnet_jax.sweeps.pretrain import pretraining_run
from capsnet_jax.sweeps.records import Run
from capsnet_jax.training.optimizer import OPTIMIZERS
from capsnet_jax.training.schedule import SCHEDULES

PACKAGE = Path(__file__).parents[1]
SHARED = (
    "ops/**/*.py",
    "losses.py",
    "data/augment.py",
    "data/split.py",
    "data/transform.py",
    "models/layers.py",
    "training/step.py",
    "training/evaluation.py",
    "training/finetune.py",
    "training/order.py",
)


def code_of(config: Config) -> dict[str, str]:
    """Return {source file: digest} of what decides a run's result: shared code, its model, its router, its loss.

    The user's own files that its images are read from count as one more, by the data set's name. Of a run that starts
    from another, that one's recipe and the files of its data count too.
    """
    files = set(_shared_files())
    parts: list[Any] = [MODELS[config.model.name].module, LOSSES[config.loss.name].function]
    parts += [OPTIMIZERS[config.train.optimizer], SCHEDULES[config.train.schedule]]
    head = getattr(config.model.settings, "head", None)
    if head is not None:
        files.add(PACKAGE / "models/heads.py")
    chosen = head if config.routing is None else config.routing.name
    if chosen in ROUTERS:
        router = ROUTERS[chosen]
        parts += [router.route, router.fixed, router.parameters]
        files |= {PACKAGE / "routing" / name for name in ("layer.py", "result.py", "router.py")}
        files.add(PACKAGE / "models/capsnet.py")  # whose layers all nets with capsules share
    parts += _data_parts(config.data.dataset)
    files |= {PACKAGE / "data" / name for name in made_by(config.data.dataset)}
    files |= {Path(file) for part in parts if (file := _source_file(part))}
    if chosen in ROUTERS:
        files |= _routing_files(files)
    code = {_name(path): digest(path) for path in sorted(files)}
    if sizes := _sizes(MODELS[config.model.name].module):  # its file serves other entries of MODELS too
        code[f"MODELS[{config.model.name}]"] = digest_of(sorted(sizes.items()))
    if own_files := fingerprint(config.data.dataset):
        code[config.data.dataset] = own_files
    if source := pretraining_run(Run(config, 0)):
        recipe = [pair for pair in sorted(flatten(source.config).items()) if pair[0].startswith(("data.", "train."))]
        of_source = code_of(source.config) | {"recipe": digest_of(recipe)}
        code |= {f"finetune.source: {name}": value for name, value in of_source.items() if name not in code}
    return code


def digest_of(value: Any) -> str:
    """Return a digest of what `repr` tells of a value."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _routing_files(files: set[Path]) -> set[Path]:
    """Return the files of the routing room that some files import, and those that these import."""
    found: set[Path] = set()
    new = {path for path in files if path.parent.name in ("routing", "models")}
    while new:
        imported = {name for path in new for name in _imports(path)}
        new = {PACKAGE / "routing" / f"{name}.py" for name in imported} - found
        found |= new
    return found


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the modules of the routing room that a file imports, by their last names."""
    room = "capsnet_jax.routing."
    nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom)]
    return tuple(node.module.removeprefix(room) for node in nodes if node.module and node.module.startswith(room))


def differing_files(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return the files whose code is not the same."""
    return [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


@functools.cache
def digest(path: Path) -> str:
    """Return a digest of a source file's code, without comments, docstrings and layout.

    Fields that are empty do not count: versions of Python differ in them.
    """
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]

    def plain(node: Any) -> Any:
        if isinstance(node, ast.AST):
            fields = [
                (name, plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != []
            ]
            return type(node).__name__, fields
        return [plain(each) for each in node] if isinstance(node, list) else node

    return digest_of(plain(tree))


@functools.cache
def _shared_files() -> tuple[Path, ...]:
    return tuple(path for pattern in SHARED for path in PACKAGE.glob(pattern))


def _data_parts(dataset: str) -> list[Callable[..., Any]]:
    """Return the functions of a data set's own that make its images: its loader, and what makes pairs of them."""
    entry = entry_of(dataset)
    if entry is None or entry.load is None:
        return []
    load = entry.load.function if isinstance(entry.load, Loader) else entry.load
    return [load, *([pairs.draw_pairs] if entry.pairs else [])]


def _sizes(module: Callable[..., Any]) -> dict[str, Any]:
    """Return what the entry of a model presets of its module."""
    return _sizes(module.func) | module.keywords if isinstance(module, functools.partial) else {}


def _source_file(part: Callable[..., Any] | None) -> str | None:
    """Return the file that a function or class is written in; None where there is none, as in an interpreter."""
    while isinstance(part, functools.partial):
        part = part.func
    try:
        return None if part is None else inspect.getsourcefile(inspect.unwrap(part))
    except TypeError:
        return None


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
