"""What a network's scores say: the classes, how sure it is of them, and which come next."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.data import shows_pairs
from capsnet_jax.interpret.network import Network

LISTED = 5
LEAST_SCORE = 0.5  # below it no class has most of the probability, and no capsule is as long as one that is present
LEAST_LEAD = 0.1  # over the next class
RULE = f"an answer is unsure if its score is below {LEAST_SCORE}, or less than {LEAST_LEAD} above the next class's"


class Answer(NamedTuple):
    """What a network says of a picture.

    Attributes:
        label: the class; the two classes, of a network for images of two.
        confidence: its score, from 0 to 1: the length of its capsule, or its probability; of two classes the lesser.
        unsure: why the answer is unsure; "" if it is not.
        top: the classes of the greatest scores with their scores, five at most.
    """

    label: str
    confidence: float
    unsure: str
    top: list[tuple[str, float]]


def scores_of(out: Mapping[str, Any]) -> Float[Array, "batch classes"]:
    """Return each class's score from a network's outputs: its capsule's length, or its probability."""
    return out["lengths"] if "lengths" in out else jax.nn.softmax(out["logits"])


def measure_of(out: Mapping[str, Any]) -> str:
    """Return what the scores are, in words."""
    return "capsule length" if "lengths" in out else "probability"


def answer(scores: Float[np.ndarray, "classes"], net: Network) -> Answer:
    """Return what the scores of a picture say, by the `RULE`."""
    return read_scores(scores, net.data.label_names, classes_shown(net))


def read_scores(scores: Float[np.ndarray, "classes"], names: Sequence[str], shown: int = 1) -> Answer:
    """Return what scores say of a picture that shows `shown` of the classes."""
    order = np.argsort(-scores, kind="stable")
    confidence = float(scores[order[shown - 1]])
    following = float(scores[order[shown]]) if len(order) > shown else 0.0
    unsure = ""
    if not confidence >= LEAST_SCORE:
        unsure = f"its score is below {LEAST_SCORE}"
    elif confidence - following < LEAST_LEAD:
        unsure = f"its score is less than {LEAST_LEAD} above that of {names[order[shown]]}"
    label = " and ".join(names[i] for i in order[:shown])
    return Answer(label, confidence, unsure, [(names[i], float(scores[i])) for i in order[:LISTED]])


def classes_shown(net: Network) -> int:
    """Return how many classes each image of a network's data set shows."""
    return 2 if shows_pairs(net.config.data.dataset) else 1
