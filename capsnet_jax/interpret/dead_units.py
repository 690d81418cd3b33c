"""Which channels and capsules are dead or starve: the definitions, and how many there are through training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Examples
from capsnet_jax.data.augment import map_batches, to_float
from capsnet_jax.interpret.routing_diagnostics import BATCH, DEAD
from capsnet_jax.ops.squash import length

NEAR_DEAD = 1e-3  # share of positions
CONSTANT = 1e-6  # the range of activations that say nothing
STARVED = 0.01  # of what a capsule would have if all had as much

ROUTED = ("primary", "primary_activations", "lengths", "couplings")  # what a net that routes has among its outputs
# Scores and images: no channels that could die.
NO_LAYERS = ("logits", "lengths", "reconstruction", "primary_activations")


class Activity(NamedTuple):
    """What the units of a layer did over many images; a channel of a layer with positions is one unit.

    Attributes:
        least: the least activation at any position of any image.
        greatest: the greatest.
        active: the share of positions, of all images, with an activation above 0.
    """

    least: Float[Array | np.ndarray, " units"]
    greatest: Float[Array | np.ndarray, " units"]
    active: Float[Array | np.ndarray, " units"]

    @property
    def dead(self) -> Bool[Array | np.ndarray, " units"]:
        """Which units are never above 0; in a layer that goes below 0, which are always the same, to within 1e-6."""
        positive = (self.least >= 0).all()
        return (positive & (self.greatest <= 0)) | (~positive & (self.greatest - self.least < CONSTANT))

    @property
    def near_dead(self) -> Bool[Array | np.ndarray, " units"]:
        """Which units are above 0 at fewer than 0.1 % of positions, and not dead; none in a layer that goes below 0."""
        return (self.least >= 0).all() & (self.active < NEAR_DEAD) & ~self.dead

    def join(self, images: int) -> Activity:
        """Return what `channel_sums` of so many images say together, stacked as [parts, units]."""
        return Activity(self.least.min(axis=0), self.greatest.max(axis=0), self.active.sum(axis=0) / images)


class CapsuleActivity(NamedTuple):
    """What the capsules of a layer did over many images.

    Attributes:
        greatest: the greatest activation in any image, |u_i| where a capsule's length says how present it is.
        share: its mean share of what is sent between the two layers of capsules, Σ c_io a_i, times the number of
            capsules: 1 where all have as much.
    """

    greatest: Float[Array | np.ndarray, " capsules"]
    share: Float[Array | np.ndarray, " capsules"]

    @property
    def dead(self) -> Bool[Array | np.ndarray, " capsules"]:
        """Which capsules' activation is never above 0.1."""
        return self.greatest <= DEAD

    @property
    def starved(self) -> Bool[Array | np.ndarray, " capsules"]:
        """Which capsules send, or get, less than 1 % of what they would if all had as much."""
        return self.share < STARVED

    def join(self, images: int) -> CapsuleActivity:
        """Return what `capsule_sums` of so many images say together, stacked as [parts, capsules]."""
        return CapsuleActivity(self.greatest.max(axis=0), self.share.sum(axis=0) * self.share.shape[1] / images)


def channel_sums(array: Float[Array, "batch positions units"], counts: Bool[Array, " batch"]) -> Activity:
    """Return the activity in those images of a batch that count, `active` summed over them."""
    counted = counts[:, None, None]
    low = jnp.min(jnp.where(counted, array, jnp.inf), axis=(0, 1))
    high = jnp.max(jnp.where(counted, array, -jnp.inf), axis=(0, 1))
    return Activity(low, high, jnp.sum(counted & (array > 0), axis=(0, 1)) / array.shape[1])


def capsule_sums(outputs: Mapping[str, Any], counts: Bool[Array, " batch"]) -> dict[str, CapsuleActivity]:
    """Return the activity of "primary" and of class "capsules" in those images that count, shares summed over them."""
    primary, classes = (jnp.where(counts[:, None], outputs[name], 0) for name in ("primary_activations", "lengths"))
    sent = outputs["couplings"] * primary[:, :, None]
    shares = sent / jnp.maximum(sent.sum(axis=(1, 2), keepdims=True), 1e-9)
    return {
        "primary": CapsuleActivity(primary.max(axis=0), shares.sum(axis=(0, 2))),
        "capsules": CapsuleActivity(classes.max(axis=0), shares.sum(axis=(0, 1))),
    }


def lacking(outputs: Mapping[str, Any]) -> list[str]:
    """Return what a net lacks among its outputs to have capsules that starve."""
    return [name for name in ROUTED if outputs.get(name) is None]


def by_unit(array: Array, by_length: bool = False) -> Array:
    """Return activations as [images, positions, units]."""
    if array.ndim == 3:
        array = length(array) if by_length else array.reshape(len(array), -1)
    return array.reshape(len(array), -1, array.shape[-1] if array.ndim > 1 else 1)


def count_dead(
    config: Config, params: PyTree, stats: PyTree, examples: Examples, classes: int
) -> dict[str, Float[Array, ""]]:
    """Count the dead and the nearly dead channels of every layer, and the capsules that are dead or starve.

    Args:
        config: of the run.
        params: its parameters.
        stats: running statistics.
        examples: images uint8[count, height, width, channels] and their labels; 1,000 or more to call a channel dead.
        classes: number of classes.

    Returns:
        Percentages of a layer's channels, "dead_channels_LAYER" and "near_dead_channels_LAYER", for each layer of
        channels at positions or of plain units, but the classes' scores; and where the net routes, of its capsules:
        "dead_primary_capsules", "starved_primary_capsules", "dead_class_capsules" and "starved_class_capsules". What
        each means, `Activity` and `CapsuleActivity` say. Nothing where there are no examples.
    """
    count = examples.labels.shape[0]
    if not count:
        return {}
    model = models.build(config, classes)

    def observe_batch(batch: Examples, counts: Array) -> tuple[dict[str, Activity], dict[str, CapsuleActivity]]:
        out = models.apply(model, params, stats, to_float(batch.images))
        layers = [name for name in out if name not in NO_LAYERS and getattr(out[name], "ndim", 0) in (2, 4)]
        channels = {name: channel_sums(by_unit(out[name]), counts) for name in layers}
        return channels, {} if lacking(out) else capsule_sums(out, counts)

    channels, capsules = map_batches(observe_batch, examples, BATCH)
    found: dict[str, Array] = {}
    for name, parts in channels.items():
        activity = parts.join(count)
        found |= {f"dead_channels_{name}": activity.dead, f"near_dead_channels_{name}": activity.near_dead}
    for name, each in capsules.items():
        joined, which = each.join(count), "class" if name == "capsules" else name
        found |= {f"dead_{which}_capsules": joined.dead, f"starved_{which}_capsules": joined.starved}
    return {name: percentage(units) for name, units in found.items()}


def percentage(units: Bool[Array, " units"]) -> Float[Array, ""]:
    """Return how many of the units are true, in percent: at most 100, where rounding would give 100.00001 of 144."""
    return jnp.minimum(100 * jnp.mean(units), 100)
