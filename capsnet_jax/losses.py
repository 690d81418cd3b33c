"""Loss functions: of one example where they are plain formulas, and their sum over a batch for training."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from capsnet_jax import config

AUXILIARY = {
    "aux1_logits": 0.3,
    "aux2_logits": 0.3,
}  # weights of classifiers that help in training (GoogLeNet, section 5)
FEW = 10  # classes, among whose first five a class is found too easily for a top-5 error to say anything


def margin_loss(
    lengths: Float[Array, "classes"],
    one_hot: Float[Array, "classes"],
    *,
    m_plus: float | Float[Array, ""] = 0.9,
    m_minus: float | Float[Array, ""] = 0.1,
    down_weight: float | Float[Array, ""] = 0.5,
) -> Float[Array, ""]:
    """Σ_k T_k max(0, m⁺ − |v_k|)² + λ (1 − T_k) max(0, |v_k| − m⁻)² of one example.

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


def cross_entropy(logits: Float[Array, "classes"], one_hot: Float[Array, "classes"]) -> Float[Array, ""]:
    """−Σ_k T_k log softmax(logits)_k of one example, in nats."""
    return -jnp.sum(one_hot * jax.nn.log_softmax(logits))


def squared_error(image: Float[Array, "*shape"], reconstruction: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Sum over the pixels of one example's squared differences (Sabour 2017, section 4.1)."""
    return jnp.sum((image - reconstruction) ** 2)


def total_loss(
    out: dict[str, Any],
    images: Float[Array, "batch height width channels"],
    labels: Int[Array, "batch"],
    settings: config.Loss,
) -> tuple[Float[Array, ""], dict[str, Float[Array, "batch"]]]:
    """What training minimises, averaged over the batch, with its parts for each example.

    A model that gives `lengths` is judged by the margin loss, one that gives `logits` by the cross-entropy; a
    `reconstruction` adds its squared error, and auxiliary logits, which are there in training only, add 0.3 of their
    cross-entropies. In the paper's form the margin loss is summed over the classes. The
    released code multiplies it by 0.5 and averages it over the classes (for ten classes a twentieth), and leaves
    the reconstruction's weight as it is: `form="official"`.

    Args:
        out: the model's outputs for the batch.
        images: what is to be reconstructed, in [0, 1].
        labels: the true classes.
        settings: weights and margins.

    Returns:
        The mean loss, and {"classification_loss", "reconstruction_mse" (mean over pixels, 0 without a decoder),
        "loss", "error" (1 where the class is wrong), and with more than ten classes "top5_error" (1 where the class
        is not among the five of highest score; of equal scores the first class's is the higher, as in "error")} of
        every example.
    """
    scores = out["lengths"] if "lengths" in out else out["logits"]
    one_hot = jax.nn.one_hot(labels, scores.shape[-1])
    if "lengths" in out:
        margins = {name: getattr(settings, name) for name in ("m_plus", "m_minus", "down_weight")}
        classification = jax.vmap(lambda s, t: margin_loss(s, t, **margins))(scores, one_hot)
        if settings.form == "official":
            classification *= 0.5 / scores.shape[-1]
    else:
        classification = jax.vmap(cross_entropy)(scores, one_hot)
    squared = jnp.zeros_like(classification)
    if "reconstruction" in out:
        squared = jax.vmap(squared_error)(images, out["reconstruction"])
    loss = classification + settings.reconstruction_weight * squared
    for name, weight in AUXILIARY.items():
        if name in out:
            loss += weight * jax.vmap(cross_entropy)(out[name], one_hot)
    parts = {
        "loss": loss,
        "classification_loss": classification,
        "reconstruction_mse": squared / (images.size // images.shape[0]),
        "error": (jnp.argmax(scores, axis=-1) != labels).astype(jnp.float32),
    }
    if scores.shape[-1] > FEW:
        parts["top5_error"] = jnp.all(jax.lax.top_k(scores, 5)[1] != labels[:, None], axis=-1).astype(jnp.float32)
    return jnp.mean(loss), parts
