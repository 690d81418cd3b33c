"""explorer.html: trained CapsNets that compute in the browser, on what one draws, on a picture, or on test images.

The page needs no other file. It holds a workdir's best CapsNet, beside it the best one of another setting, some test
images, and the source that they come from. Weights are float16; `web/capsnet.js` is the forward pass, which
`tests/browser` compares with JAX's.
"""

import html
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capsnet_jax.config import ConfigError
from capsnet_jax.figures.labels import setting_label
from capsnet_jax.interpret.network import Network, restore_record
from capsnet_jax.models import MODELS
from capsnet_jax.models.capsnet import CapsNet
from capsnet_jax.report.html import asset, page_of
from capsnet_jax.report.packed import pack_dataset, pack_images, pack_model
from capsnet_jax.routing import ROUTERS
from capsnet_jax.sweeps.best import ranked
from capsnet_jax.sweeps.code import PACKAGE
from capsnet_jax.sweeps.files import write_text
from capsnet_jax.sweeps.records import Record
from capsnet_jax.sweeps.varying import varying_paths

FILE = "explorer.html"
SAME = ("data.dataset", "data.label", "data.transform", "data.image_size")  # of nets that can see the same images

# The routers whose forward pass the page knows, each in a formula. u: primary capsules, û: votes, c: couplings,
# s: sums, b: routing logits, v: class capsules.
FORMULAS = {
    "dynamic": "routing by agreement: c = softmax(b / T), s = Σ c û, v = squash(s), b ← b + û · v, with b = 0 at first",
    "max_min": "routing by agreement with c = (b − min b) / (max b − min b), and c = 1 at first",
    "uniform": "c = 1 / classes, always",
    "learned": "c = softmax(prior), with a prior that was learned and is the same for all images",
    "random": "c = softmax(prior), with a prior that was drawn at random and stays",
    "self_attention": "c = softmax(û · Σ û / √dim) + prior, in one pass",
    "inverted_attention": "c = softmax(v · û / √dim), v = layer norm of Σ c û, and c = 1 / classes at first",
    "self_routing": "c = softmax(W u + b) of each primary capsule alone; v is the mean of votes, weighted by c |u|",
}
SOURCES = {
    "report/web/capsnet.js": "the forward pass of this page",
    "models/capsnet.py": "the network, as it was trained",
    "ops/squash.py": "squashes",
    "interpret/capsule_maps.py": "maps of couplings",
}

log = logging.getLogger(__name__)


def write_explorer(workdir: Path, experiment: str | None = None) -> Path:
    """Write `explorer.html` into a workdir, of its best CapsNet and its best one of another setting.

    They are of one experiment, or of any. Another router, or the same one with other settings, is preferred to what
    differs elsewhere.

    Returns:
        The file.

    Raises:
        ConfigError: there is no finished run, or none of a model and a router that the page knows.
        CheckpointError: parameters are damaged.
        DataError: the test images are not on this machine.
    """
    records = ranked(Path(workdir), experiment)
    known = [record for record in records if _is_known(record.settings)]
    if not known:
        raise ConfigError(_unknown(records[0].settings))
    if known[0] is not records[0]:
        log.warning("left out: %s is better, but %s", records[0].name, _unknown(records[0].settings))
    best = known[0]
    others = [record for record in known if record.settings != best.settings and _sees_the_same(record, best)]
    others.sort(key=lambda record: _routing(record) == _routing(best))  # and by their error, as they were
    shown = [best, *others[:1]]
    nets = [restore_record(record) for record in shown]
    data = {**pack_dataset(nets[0]), "images": pack_images(nets[0]), "models": [*map(pack_model, nets, _labels(shown))]}
    title = f"Explorer of {workdir}"
    body = asset("explorer.html").replace("{how}", _how(nets)).replace("{title}", html.escape(title))
    text = page_of(title, body, data, name="explorer", scripts=("capsnet.js", "picture.js", "panel.js", "sources.js"))
    write_text(workdir / FILE, text)
    return workdir / FILE


def _is_known(settings: dict[str, Any]) -> bool:
    return settings["model.name"] in _models() and settings.get("routing.name") in FORMULAS


def _models() -> list[str]:
    return [name for name, entry in MODELS.items() if entry.module is CapsNet]


def _unknown(settings: dict[str, Any]) -> str:
    """Say what the page does not know of a run, and what it knows."""
    router = f" with routing.name={settings['routing.name']}" if "routing.name" in settings else ""
    return (
        f"explorer.html cannot compute model.name={settings['model.name']}{router};"
        f" it knows model.name={','.join(_models())} with routing.name={','.join(FORMULAS)}: train one of these"
    )


def _sees_the_same(record: Record, other: Record) -> bool:
    return all(record.settings.get(path) == other.settings.get(path) for path in SAME)


def _routing(record: Record) -> dict[str, Any]:
    return {path: value for path, value in record.settings.items() if path.startswith("routing.")}


def _labels(records: Sequence[Record]) -> list[str]:
    """Return each run's setting in words: its router, and whatever else tells it from the other run."""
    always = ["routing.name", "routing.iterations"]
    paths = varying_paths(records, always)
    return [setting_label(paths, [record.settings.get(path) for path in paths]) for record in records]


def _how(nets: Sequence[Network]) -> str:
    """Return HTML: the formulas of these networks' routers, and the source, to be unfolded."""
    routers = dict.fromkeys(net.config.routing.name for net in nets if net.config.routing is not None)
    formulas = "".join(f"<dt>{name.replace('_', ' ')}</dt><dd>{html.escape(FORMULAS[name])}</dd>" for name in routers)
    files = SOURCES | {_file_of(name): f"{name.replace('_', ' ')} routing" for name in routers}
    sources = "".join(
        f"<details><summary><code>capsnet_jax/{file}</code>: {words}</summary><pre>{_source(file)}</pre></details>"
        for file, words in files.items()
    )
    return f"<dl>{formulas}</dl><p>The source:</p>{sources}"


def _file_of(router: str) -> str:
    """Return the file of a router, seen from the package."""
    function = ROUTERS[router].route or ROUTERS[router].fixed
    assert function is not None
    return Path(inspect.getfile(inspect.unwrap(function))).relative_to(PACKAGE).as_posix()


def _source(file: str) -> str:
    return html.escape((PACKAGE / file).read_text(encoding="utf-8"))
