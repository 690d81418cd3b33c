"""What has routing to do with the hops of a memory network?

Claim: memory networks with one, two and three hops err on 0.8, 62.0 and 76.9 %, on 0.0, 15.6 and 31.6 %, and on 0.1,
14.0 and 33.1 % of the questions of bAbI's first three kinds (trained jointly on 1,000 of each of twenty kinds, the best
of ten runs by its training error), and three hops trained on one kind on 0.0, 8.3 and 40.3 % (Sukhbaatar et al. 2015,
Tables 1 and 2, position encoding, linear start; the last with random noise). A guess errs on five of six.

An iteration of routing by agreement is a hop: each parent asks, votes are keys and values, and what is read, squashed,
is added to the question. Two things differ. Parents ask, one for each possible answer; and attention adds up to 1 over
the memories of a question, couplings over the parents of an input. So memory networks are trained with a question of
each answer, and then with routing's axis. A CapsNet with memory's axis is one of the arms of `loss_scale`.

    python launch.py --experiment=hops --seeds=5

The stories are made (`capsnet_jax/data/babi.py`), unless bAbI's files are there. Gradients are the paper's: a sum over
batches of 32 at a rate of 0.01, at most of norm 40, halved after each quarter of 100 epochs. The rate is not lower in
the linear start, which ends after 20 epochs and not when the validation error no longer falls.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset
from capsnet_jax.figures.arms import compare_arms
from capsnet_jax.figures.grouping import DATASET, Record, compared_paths
from capsnet_jax.figures.images import network_note, single_networks
from capsnet_jax.figures.labels import MODEL
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.network import Observation, load_observation
from capsnet_jax.overrides import grid

HOPS, QUESTIONS, AXIS = "model.hops", "model.questions", "model.softmax_over"
BATCH = 32

CONFIG: dict[str, object] = {
    MODEL: "memory_network",
    "train.optimizer": "sgd",
    "train.epochs": 100,
    "train.batch_size": BATCH,
    "train.learning_rate": 0.01 * BATCH,
    "train.clip": 40 / BATCH,
    "train.schedule": "halving",
    "train.warmup": 0.0,
}

SWEEP: list[dict[str, object]] = [
    {DATASET: task} | network
    for task in ("babi_1", "babi_2", "babi_3")
    for network in (
        *grid({HOPS: (1, 2, 3), QUESTIONS: ("one",)}),
        *grid({HOPS: (3,), QUESTIONS: ("answers",), AXIS: ("memories", "answers")}),
    )
]

CAPTIONS = {
    "test_error": "test error of each network",
    "attention": "where a memory network looks in a story, hop by hop",
    "learning_curves": "each metric by epoch",
}


observe = OBSERVATIONS["attention"]


def requires(config: Config, data: Dataset) -> str | None:
    """Say what a config lacks, and the remedy; None if all is well."""
    del data
    if config.model.name == "memory_network":
        return None
    return f"hops looks at attention, and {config.model.name} has none; leave out model.name"


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw errors, the attention of the networks of one question with the most hops, and learning curves."""
    drawn = compare_arms(records, compared_paths(records, [HOPS, QUESTIONS, AXIS]), declared=SWEEP)
    curves = drawn.pop("learning_curves")
    most = max(record.settings[HOPS] for record in records)
    of_one = [r for r in records if r.settings[QUESTIONS] == "one" and r.settings[HOPS] == most]
    for title, record in single_networks(of_one).items():
        if arrays := load_observation(record, "hops"):
            note = network_note(record, "a test question")
            drawn[f"attention-{title}"] = attention_over_sentences(arrays, note=note)
    return drawn | {"learning_curves": curves}


@style.styled
def attention_over_sentences(arrays: Observation, *, note: str = "", most: int = 14) -> Figure:
    """Draw the attention to each sentence of a story, a column a hop.

    Args:
        arrays: of `observe_attention`.
        note: how the caption begins.
        most: sentences; of more those that have the most attention in a hop, in their order.

    Source of the idea: Sukhbaatar et al. 2015, Figure 2.
    """
    attention, sentences = arrays["attention"].T, arrays["sentences"]
    shown = np.sort(np.argsort(-attention.max(axis=1), kind="stable")[:most])
    figure = style.new_figure(1.6 + 0.27 * len(shown))
    axes = figure.subplots()
    axes.imshow(attention[shown], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(len(shown), attention.shape[1]):
        share = attention[shown[row], column]
        colour = "white" if share > 0.6 else "black"
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(shown)), [str(sentences[row]) for row in shown], fontsize=8)
    axes.set_xticks(range(attention.shape[1]), [f"hop {hop + 1}" for hop in range(attention.shape[1])])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    answer = str(arrays["answer"])
    right = "right" if answer == str(arrays["truth"]) else f"it is {arrays['truth']}"
    axes.set_xlabel(textwrap.fill(f"{arrays['question']}? {answer} ({right})", 60))
    rest = len(sentences) - len(shown)
    style.caption(figure, note, f"{rest} sentences with less attention are left out" if rest else "")
    return figure
