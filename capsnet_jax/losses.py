"""Loss functions and metrics: plain formulas of one example, and their sum over a batch for training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from capsnet_jax.config import Choice, Config, NoSettings, pytree_dataclass, static, traced
from capsnet_jax.signatures import asked_for

# Weights of the classifiers that help in training (GoogLeNet, section 5).
AUXILIARY = {"aux1_logits": 0.3, "aux2_logits": 0.3}
PARTS = ("loss", "classification_loss", "reconstruction_mse")  # what `total_loss` returns beside the metrics


@pytree_dataclass
class Margin:
    """Settings of the margin loss."""

    form: str = static("paper", choices=("paper", "official"), doc="the paper's loss, or the released code's")
    m_plus: float = traced(0.9, low=0, high=1, doc="least length of a present class's capsule")
    m_minus: float = traced(0.1, low=0, high=1, doc="greatest length of an absent class's capsule")
    down_weight: float = traced(0.5, low=0, doc="weight λ of absent classes")


def margin_loss(
    lengths: Float[Array, "classes"],
    one_hot: Float[Array, "classes"],
    *,
    m_plus: float | Float[Array, ""] = 0.9,
    m_minus: float | Float[Array, ""] = 0.1,
    down_weight: float | Float[Array, ""] = 0.5,
) -> Float[Array, ""]:
    """Compute Σ_k T_k max(0, m⁺ − |v_k|)² + λ (1 − T_k) max(0, |v_k| − m⁻)² of one example.

    Args:
        lengths: |v_k|, the lengths of the class capsules, in [0, 1).
        one_hot: T_k, 1 for each class that is present and 0 for the others; several may be.
        m_plus: length above which a present class costs nothing.
        m_minus: length below which an absent class costs nothing.
        down_weight: λ, weight of the absent classes, which keeps early learning from shrinking all lengths.

    Returns:
        The loss, at least 0.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), equation 4.
    """
    present = one_hot * jnp.maximum(0, m_plus - lengths) ** 2
    absent = (1 - one_hot) * jnp.maximum(0, lengths - m_minus) ** 2
    return jnp.sum(present + down_weight * absent)


def margin(
    lengths: Float[Array, "classes"], targets: Float[Array, "classes"], *, form: str = "paper", **margins: Any
) -> Float[Array, ""]:
    """Compute the margin loss in the paper's form, or in the released code's.

    The released code multiplies it by 0.5 and averages it over the classes, for ten classes a twentieth. It leaves the
    weight of the reconstruction as it is.
    """
    loss = margin_loss(lengths, targets, **margins)
    return loss * (0.5 / lengths.shape[-1]) if form == "official" else loss


def cross_entropy(logits: Float[Array, "classes"], targets: Float[Array, "classes"]) -> Float[Array, ""]:
    """Compute −Σ_k T_k log softmax(logits)_k of one example, in nats; of several classes each has an equal share."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits)) / jnp.maximum(jnp.sum(targets), 1)


@pytree_dataclass
class Spread:
    """Settings of the spread loss."""

    margin_steps: float = traced(
        50_000.0, low=1e-3, doc="steps; the margin is halfway from 0.2 to 0.99 after four times as many"
    )


def spread_margin(step: Any, margin_steps: Any) -> Float[Array, ""]:
    """Compute m = 0.2 + 0.79 sigmoid(min(10, step / margin_steps − 4)): the margin grows as a net learns.

    Source: the released code of Hinton, Sabour and Frosst 2018; in their paper it grows linearly from 0.2 to 0.9.
    """
    return 0.2 + 0.79 * jax.nn.sigmoid(jnp.minimum(10.0, step / margin_steps - 4))


def spread(
    lengths: Float[Array, "classes"],
    targets: Float[Array, "classes"],
    *,
    margin_steps: float | Float[Array, ""] = 50_000.0,
    step: Any = None,
) -> Float[Array, ""]:
    """Compute Σ_t Σ_i max(0, m − (a_t − a_i))² over each class t that is present and each class i that is not.

    Args:
        lengths: a, the activations of the class capsules, in [0, 1).
        targets: 1 for each class that is present, else 0.
        margin_steps: how fast the margin m grows (`spread_margin`).
        step: of training, from 0; None in evaluation, where the margin is the final one.

    Source: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", equation 3.
    """
    margin = spread_margin(jnp.inf if step is None else step, margin_steps)
    short = jnp.maximum(0, margin - (lengths[:, None] - lengths[None, :]))
    return jnp.einsum("t,i,ti->", targets, 1 - targets, short**2)


class Loss(NamedTuple):
    """An entry of LOSSES.

    Attributes:
        function: of one example, (scores[classes], targets[classes], **settings) → scalar. If its signature names them,
          it also gets `step` and `total`: which step of training this is, of how many; None in evaluation.
        scores: what it wants of a model, "lengths" in [0, 1) or "logits". A model that gives the other is converted:
          lengths are the sigmoid of logits.
        settings: its own settings, with their defaults.
    """

    function: Callable[..., Float[Array, ""]]
    scores: str
    settings: Any = NoSettings()


LOSSES: dict[str, Loss] = {
    "margin": Loss(margin, "lengths", Margin()),
    "cross_entropy": Loss(cross_entropy, "logits"),
    "spread": Loss(spread, "lengths", Spread()),
}


class Metric(NamedTuple):
    """An entry of METRICS.

    Attributes:
        function: of one example, (scores[classes], targets[classes]) → scalar.
        percent: whether its mean is given in percent.
        min_classes: least number of classes for which it says anything.
    """

    function: Callable[..., Float[Array, ""]]
    percent: bool = False
    min_classes: int = 0


def error(scores: Float[Array, "classes"], targets: Float[Array, "classes"]) -> Float[Array, ""]:
    """Tell whether the classes of highest score, as many as are present, are others than those present: 1 or 0.

    Of equal scores the first class's is the higher.
    """
    order = jnp.argsort(-scores, stable=True)
    rank = jnp.zeros(scores.shape, jnp.int32).at[order].set(jnp.arange(len(scores)))
    return jnp.any((rank < jnp.sum(targets)) != (targets > 0)).astype(jnp.float32)


def top5_error(scores: Float[Array, "classes"], targets: Float[Array, "classes"]) -> Float[Array, ""]:
    """Tell whether a class that is present is not among the five of highest score: 1 or 0."""
    top = jnp.zeros(scores.shape).at[jax.lax.top_k(scores, 5)[1]].set(1)
    return jnp.any((targets > 0) & (top == 0)).astype(jnp.float32)


METRICS: dict[str, Metric] = {
    "error": Metric(error, percent=True),
    "top5_error": Metric(top5_error, percent=True, min_classes=11),  # of ten classes five are half
}


def scores_of(out: dict[str, Any]) -> Float[Array, "batch classes"]:
    """Return a model's score of each class: its capsules' lengths, or its logits."""
    return out["lengths"] if "lengths" in out else out["logits"]


def classification_loss(
    out: dict[str, Any],
    targets: Float[Array, "batch classes"],
    choice: Choice,
    *,
    step: Int[Array, ""] | None = None,
    total: int | None = None,
) -> Float[Array, "batch"]:
    """Compute the chosen loss of every example."""
    loss = LOSSES[choice.name]
    options = vars(choice.settings) | asked_for(loss.function, {"step": step, "total": total})
    return jax.vmap(lambda s, t: loss.function(s, t, **options))(_as(loss.scores, out), targets)


def metrics_of(
    scores: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> dict[str, Float[Array, "batch"]]:
    """Compute every metric of every example."""
    return {
        name: jax.vmap(metric.function)(scores, targets)
        for name, metric in METRICS.items()
        if scores.shape[-1] >= metric.min_classes
    }


def total_loss(
    out: dict[str, Any],
    images: Float[Array, "batch *shown height width channels"],
    targets: Float[Array, "batch classes"],
    config: Config,
    *,
    step: Int[Array, ""] | None = None,
    total: int | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, "batch"]]]:
    """Compute what training minimises, averaged over the batch, with its parts for each example.

    To the chosen loss a `reconstruction` adds its squared error. Auxiliary logits, which are there in training only,
    add 0.3 of their cross-entropies.

    Args:
        out: the model's outputs for the batch.
        images: what is to be reconstructed, in [0, 1]: one image of an example, or one for each class that it shows,
          [batch, shown, height, width, channels], which a decoder makes of that class alone.
        targets: 1 for each class that is present, else 0.
        config: which loss, and the weight of the reconstruction.
        step: of training, from 0; None in evaluation.
        total: steps of training; None in evaluation.

    Returns:
        The mean loss, and {"loss", "classification_loss", "reconstruction_mse" (mean over pixels, 0 without a decoder)}
        and every metric of every example.
    """
    classification = classification_loss(out, targets, config.loss, step=step, total=total)
    squared = jnp.zeros_like(classification)
    loss = classification
    if config.reconstruction is not None and "reconstruction" in out:
        decoded = out["reconstruction"] if images.ndim == 4 else out["reconstructions"]
        squared = jax.vmap(squared_error)(images, decoded)
        loss = classification + config.reconstruction.reconstruction_weight * squared
    for name, weight in AUXILIARY.items():
        if name in out:
            loss += weight * jax.vmap(cross_entropy)(out[name], targets)
    parts = {
        "loss": loss,
        "classification_loss": classification,
        "reconstruction_mse": squared / (images.size // images.shape[0]),
    }
    return jnp.mean(loss), parts | metrics_of(scores_of(out), targets)


def squared_error(image: Float[Array, "*shape"], reconstruction: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Sum one example's squared differences over the pixels (Sabour 2017, section 4.1)."""
    return jnp.sum((image - reconstruction) ** 2)


def _as(wanted: str, out: dict[str, Any]) -> Float[Array, "batch classes"]:
    """Return a model's scores as lengths in [0, 1) or as logits, whichever a loss wants."""
    if wanted in out:
        return out[wanted]
    if wanted == "lengths":
        return jax.nn.sigmoid(out["logits"])
    lengths = out["lengths"]
    return jnp.log(lengths + 1e-6) - jnp.log(1 + 1e-6 - lengths)  # a gradient at 0 and 1 too
