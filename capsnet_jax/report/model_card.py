"""A model card: what an exported network is, how good, and what it is not for."""

import json
import math
import shlex
from typing import NamedTuple

from capsnet_jax.config import ConfigError
from capsnet_jax.data import DataError, entry_of, short_name, tells_stories
from capsnet_jax.data.babi import VOCABULARY
from capsnet_jax.interpret.network import Network
from capsnet_jax.models import count_parameters
from capsnet_jax.overrides import format_value, identity
from capsnet_jax.report.answers import RULE
from capsnet_jax.report.docstrings import code_block
from capsnet_jax.report.render import Table, to_markdown
from capsnet_jax.statistics import PERCENT, describe, mean_interval, wilson_interval
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.records import Record

MOST_CLASSES = 20  # that are named


class Kind(NamedTuple):
    """What a card says of one kind of examples.

    Attributes:
        does: what the network does with its classes.
        form: what an example's bytes are.
        others: what it was not tested on.
        uses: arguments of launch.py.
    """

    does: str
    form: str
    others: str
    uses: tuple[str, ...]


USE = """```python
import numpy as np
from jax import export
program = export.deserialize(bytearray(open({program}, "rb").read()))
print(program.call(np.zeros({shape}, np.uint8))["scores"])
```"""

PREDICT, INSPECT = "--model={folder} --predict=PICTURE_OR_FOLDER", "--model={folder} --inspect=list"
START = "--start_from={folder} --dataset=DATASET"

IMAGES = Kind(
    does="tells apart",
    form="the bytes of an image, rows, columns and channels",
    others="other pens, cameras, people, places",
    uses=(PREDICT, INSPECT, START),
)
STORIES = Kind(
    does="answers questions about stories, with one of",
    form="word numbers, first the question's row, then the sentences, the newest first; 0 is no word, "
    + ", ".join(f"{number} {word}" for number, word in enumerate(VOCABULARY) if word),
    others="other words, other tasks",
    uses=(START,),
)

LICENCE = """The code that made it, capsnet_jax, is under Apache 2.0. The parameters belong to who trained them, who \
should write their licence here before handing them on. {data} has a licence of its own, which may bind what is made \
of it."""

LIMITS = """- It gives one of its classes whatever it is given. Scores are not calibrated, and a high one is no proof \
that any class is right. {rule}.
- The test set comes from where the training set does. How often it errs on others ({others}) is not known, and \
usually more often.
- It is made for research and teaching. It is not for decisions about people, nor for anything where an error harms."""


def model_card(net: Network, folder: str, checksum: str) -> str:
    """Return the model card of a run's network, in Markdown.

    Args:
        net: of a run in its workdir, whose other seeds are counted too.
        folder: the exported folder's name.
        checksum: SHA-256 of its parameters.
    """
    record, name = net.record, net.config.model.name
    assert record is not None, "released weights have no run"
    data, routing = short_name(net.data.name), net.config.routing
    routed = f", routed by {routing.name}" if routing else ""
    names = net.data.label_names
    listed = ", ".join(names[:MOST_CLASSES]) + (", …" if len(names) > MOST_CLASSES else "")
    shape, kind = net.data.image_shape, STORIES if tells_stories(net.config.data.dataset) else IMAGES
    apart = {"data.dataset": net.config.data.dataset} | identity(net.config)
    settings = [[path, format_value(value)] for path, value in apart.items()]
    here = shlex.quote(folder)
    parts = [
        f"# {name} on {data}",
        f"A {name}{routed}, {count_parameters(net.params):,} parameters, trained by capsnet_jax. It {kind.does}"
        f" {len(names)} classes: {listed}. An example is {'×'.join(map(str, shape))}: {kind.form}.",
        "## How good it is",
        _errors(record),
        "## Data",
        _data(net),
        "## Use",
        USE.format(program=_quoted(f"{folder}/model_uint8.stablehlo"), shape=(1, *shape)),
        "This needs JAX and flatbuffers alone, on a CPU, an NVIDIA GPU or a TPU, and takes any number of examples."
        " `model_float32.stablehlo` takes bytes divided by 255. Besides `scores`, which are capsules' lengths or"
        " probabilities, there are `lengths` or `logits`, and `reconstruction`, where the network has them."
        f" Examples must look as those of {data} do. With capsnet_jax:",
        code_block([f"python launch.py {use.format(folder=here)}" for use in kind.uses]),
        "## Settings",
        to_markdown(Table("", ["setting", "value"], settings, [])),
        f"Everything else is at its default; `config.json` has all settings, of seed {record.seed}, and the versions."
        " To train it again:",
        code_block([record.command]) if record.command else "(The command is not known.)",
        f"SHA-256 of `params.safetensors`: `{checksum}`. Arrays are named `params/LAYER/…` and `stats/LAYER/…`, the"
        " running statistics of batch norms, if there are any.",
        "## Licence",
        LICENCE.format(data=data),
        "## What it is not for",
        LIMITS.format(rule=RULE[0].upper() + RULE[1:], others=kind.others),
    ]
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    """Return text as a literal of Python's."""
    return json.dumps(text, ensure_ascii=False)


def _errors(record: Record) -> str:
    """Say how often the run errs, as far as the test set tells, and how much that varies with the seed."""
    error = record.result.get("test_error", math.nan)
    lines = [f"- Test error of this run: {error:.2f} %"]
    if record.wrong is not None and record.wrong.size and math.isfinite(error):
        low, high = wilson_interval(error, record.wrong.size)
        lines[0] += f" of {record.wrong.size:,} test examples (Wilson's 95 % interval: {low:.2f} to {high:.2f} %)"
    finished = records.load_all(record.workdir).values()
    alike = [each for each in finished if each.settings == record.settings and not each.diverged]
    seeds = ", ".join(str(seed) for seed in sorted(each.seed for each in alike))
    if len(alike) > 1:
        over = describe(mean_interval([each.result.get("test_error", math.nan) for each in alike]), limits=PERCENT)
        lines.append(
            f"- Test error of its setting: {over} in percent, mean and 95 % Student t interval over seeds {seeds}"
        )
    else:
        lines.append("- There is one seed of its setting, so how much the error varies with the seed is not known")
    validation = record.result.get("validation_error", math.nan)
    if math.isfinite(validation):
        lines.append(f"- Validation error: {validation:.2f} %; runs of a workdir are chosen by it, so it flatters")
    return "\n".join(lines)


def _data(net: Network) -> str:
    """Say what it learned from, with numbers where the data set is on this machine."""
    entry, settings = entry_of(net.config.data.dataset), net.config.data
    text = f"{short_name(settings.dataset)}{f': {entry.description}' if entry else ''}."
    try:
        train, validation, test = (len(part.labels) for part in (net.data.train, net.data.validation, net.data.test))
        text += f" {train:,} examples are for training, {validation:,} held out for validation, {test:,} for the test."
    except (DataError, ConfigError, OSError):
        text += " How many it was trained on is not told, as the data set was not there when this was written."
    return f"{text} How they were split, moved or turned is among the settings."
