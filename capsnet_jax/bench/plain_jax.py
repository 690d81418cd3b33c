"""CapsNet as one would write it down in plain JAX: native convolutions, einsums, a Python loop, autodiff, optax.

Nothing here is shared with the rest of the project but the layout of the parameters and the weights to start from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from capsnet_jax.bench import memory
from capsnet_jax.bench.workload import Workload, load_weights


def forward(params: Any, images: Array, labels: Array | None, iterations: int) -> tuple[Array, Array | None]:
    """Images [batch, side, side, 1] to lengths [batch, classes] and, with a decoder, reconstructions like them.

    The decoder sees the capsules of the labels, or of the longest capsules without them.
    """
    x = jax.nn.relu(_conv(params["conv1"], images, 1))
    x = _conv(params["primary"], x, 2)
    weights = params["digit"]["W"]
    capsules = _squash(x.reshape(x.shape[0], weights.shape[0], weights.shape[2]))
    votes = jnp.einsum("bik,iokd->biod", capsules, weights)
    logits = jnp.zeros(votes.shape[:3])
    for iteration in range(iterations):
        couplings = jax.nn.softmax(logits, axis=-1)
        outputs = _squash(jnp.einsum("bio,biod->bod", couplings, votes))
        if iteration < iterations - 1:
            logits += jnp.einsum("biod,bod->bio", votes, outputs)
    lengths = jnp.sqrt(jnp.sum(outputs**2, axis=-1) + 1e-12)
    if "decoder" not in params:
        return lengths, None
    shown = jnp.argmax(lengths, axis=-1) if labels is None else labels
    masked = outputs * jax.nn.one_hot(shown, outputs.shape[1])[:, :, None]
    return lengths, _decode(params["decoder"], masked.reshape(masked.shape[0], -1)).reshape(images.shape)


def loss(params: Any, images: Array, labels: Array, settings: Mapping[str, Any]) -> Array:
    """Margin loss and weighted squared error of the reconstruction, averaged over the batch."""
    lengths, reconstruction = forward(params, images, labels, settings["routing.iterations"])
    target = jax.nn.one_hot(labels, lengths.shape[1])
    present = target * jnp.maximum(0, settings["loss.m_plus"] - lengths) ** 2
    absent = (1 - target) * jnp.maximum(0, lengths - settings["loss.m_minus"]) ** 2
    total = jnp.sum(present + settings["loss.down_weight"] * absent, axis=1)
    if reconstruction is not None:
        total += settings["loss.reconstruction_weight"] * jnp.sum((reconstruction - images) ** 2, axis=(1, 2, 3))
    return jnp.mean(total)


def _conv(layer: Any, x: Array, stride: int) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), "VALID", dimension_numbers=layout)
    return y + layer["bias"].reshape(1, 1, 1, -1)


def _squash(s: Array) -> Array:
    squared = jnp.sum(s**2, axis=-1, keepdims=True)
    return s * squared / (1 + squared) / jnp.sqrt(squared + 1e-12)


def _decode(layers: Any, x: Array) -> Array:
    hidden = sorted(name for name in layers if name != "pixels")
    for name in hidden:
        x = jax.nn.relu(x @ layers[name]["kernel"] + layers[name]["bias"].reshape(1, -1))
    return jax.nn.sigmoid(x @ layers["pixels"]["kernel"] + layers["pixels"]["bias"].reshape(1, -1))


class PlainJax:
    """The jitted training step, or the jitted forward pass, on images that live on the device."""

    def __init__(self, workload: Workload):
        """Data, weights and Adam's state, on the device."""
        self._settings, self._batch = workload.settings, workload.batch
        self._training = workload.phase == "training"
        self._data = jax.device_put(workload.images())
        self._params = jax.device_put(load_weights(workload.weights))
        self._adam = optax.adam(workload.settings["train.learning_rate"])
        self._moments = self._adam.init(self._params) if self._training else None
        self._step = 0

    def prepare(self) -> float:
        """Compile; returns the seconds that it took."""
        clock = time.perf_counter()
        if self._training:
            program = jax.jit(self._train, donate_argnums=(0, 1)).lower(self._params, self._moments, self._data, 0)
        else:
            program = jax.jit(self._infer).lower(self._params, self._data, 0)
        self._program = program.compile()
        return time.perf_counter() - clock

    def run(self, steps: int) -> None:
        """Train, or compute, that many batches and wait for them."""
        batches = self._data[1].shape[0] // self._batch
        out: Any = None
        for step in range(self._step, self._step + steps):
            start = step % batches * self._batch
            if self._training:
                self._params, self._moments, out = self._program(self._params, self._moments, self._data, start)
            else:
                out = self._program(self._params, self._data, start)
        self._step += steps
        jax.block_until_ready((out, self._params))

    def peak(self) -> int:
        """Peak memory, bytes."""
        return memory.jax_peak()

    def _take(self, data: tuple[Array, Array], start: Array) -> tuple[Array, Array]:
        images, labels = jax.tree.map(
            partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=self._batch), data
        )
        return images.astype(jnp.float32) / 255, labels

    def _train(self, params: Any, moments: Any, data: tuple[Array, Array], start: Array) -> tuple[Any, Any, Array]:
        images, labels = self._take(data, start)
        value, gradient = jax.value_and_grad(loss)(params, images, labels, self._settings)
        updates, moments = self._adam.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    def _infer(self, params: Any, data: tuple[Array, Array], start: Array) -> tuple[Array, Array | None]:
        return forward(params, self._take(data, start)[0], None, self._settings["routing.iterations"])


build = PlainJax
