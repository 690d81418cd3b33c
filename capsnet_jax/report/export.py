"""A finished run as a folder that can be taken elsewhere: parameters, settings, programs and a model card.

folder/
  params.safetensors        the run's own file: `params/LAYER/…`, and batch norms' statistics as `stats/LAYER/…`
  config.json               settings, label names, image shape, results, versions, checksums, its own too
  model_uint8.stablehlo     the network as a program of bytes [batch, height, width, channels]; any batch
  model_float32.stablehlo   the same of pixels in [0, 1]
  README.md                 a model card
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export as jax_export
from jaxtyping import Array, Num

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.examples import to_pixels
from capsnet_jax.interpret.network import Network
from capsnet_jax.models.exported import ABOUT, FORMAT, PARAMS, checksum_of
from capsnet_jax.report.answers import scores_of
from capsnet_jax.report.model_card import model_card
from capsnet_jax.sweeps.best import params_of
from capsnet_jax.sweeps.files import make_folder, to_json, write_bytes

PLATFORMS = ("cpu", "cuda", "tpu")
DTYPES = ("uint8", "float32")
OUTPUTS = ("lengths", "logits", "reconstruction")  # of a program beside "scores", where the network has them


def export(net: Network, folder: Path | str) -> Path:
    """Write a finished run as a folder, all of it or nothing.

    Args:
        net: a run's, as restored from its workdir.
        folder: where to; it must not be there yet, or be empty. `~` stands for the home directory.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder is not empty, or is a file.
        OSError: it cannot be written.
    """
    assert net.record is not None, "released weights have no run"
    place = Path(os.path.expanduser(folder)).resolve()
    check_new(place)
    files = {PARAMS: params_of(net.record).read_bytes()}
    files |= {f"model_{dtype}.stablehlo": to_stablehlo(net, dtype) for dtype in DTYPES}
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    about = json.loads(to_json(describe(net) | {"checksums": checksums}))
    about["checksum"] = checksum_of(about)
    files[ABOUT] = (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
    files["README.md"] = model_card(net, place.name, checksums[PARAMS]).encode()
    partial = place.parent / f".{secrets.token_hex(8)}.partial"
    try:
        make_folder(place.parent)
        for name, data in files.items():
            write_bytes(partial / name, data)
        check_new(place)
        os.replace(partial, place)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error  # the name that a person knows
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # which is there only if something failed
    return place


def check_new(place: Path) -> None:
    """Look whether a folder can be made, or is there and empty.

    Raises:
        ConfigError: it is neither.
    """
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        what = "is not empty" if place.is_dir() else "is a file"
        raise ConfigError(f"--export={place} {what}; name a new folder, nothing there is changed")


def describe(net: Network) -> dict[str, Any]:
    """Return what `config.json` holds, without the checksums."""
    record = net.record
    assert record is not None
    return {
        "format": FORMAT,
        "name": record.name,
        "seed": record.seed,
        "settings": record.settings,
        "label_names": list(net.data.label_names),
        "image_shape": list(net.data.image_shape),
        "result": record.result,
        "command": record.command,
        "recorded": record.recorded,
        "environment": record.environment,
    }


def to_stablehlo(net: Network, dtype: str) -> bytes:
    """Return the network as a serialized program for `PLATFORMS`, its parameters in it.

    It maps images [batch, height, width, channels], of any batch, to {"scores": [batch, classes], …}. The batch is
    vmapped over, as parts of the networks ask for its length.

    Args:
        net: the network.
        dtype: "uint8", or "float32" for pixels in [0, 1].
    """
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *net.data.image_shape), dtype)
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # or the program holds the paths of this machine's files
    try:
        return bytes(jax_export.export(jax.jit(outputs_of(net)), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def outputs_of(net: Network) -> Callable[[Num[Array, "batch height width channels"]], dict[str, Array]]:
    """Return the network as a function of images to its scores, and what else there is of `OUTPUTS`."""

    def of_one(image: Num[Array, "height width channels"]) -> dict[str, Array]:
        out = net.forward(to_pixels(image[None]))
        chosen = {"scores": scores_of(out)} | {name: out[name] for name in OUTPUTS if name in out}
        return {name: array[0] for name, array in chosen.items()}

    return jax.vmap(of_one)
