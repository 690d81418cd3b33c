"""CapsNet as one would write it in plain JAX: native convolutions, einsums, a Python loop, autodiff, optax.

It shares nothing with the rest of the project but the names of parameters and the weights to start from.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from capsnet_jax.bench.workload import Workload, capsnet_loss


def forward(params: Any, images: Array, labels: Array | None, iterations: int) -> tuple[Array, Array | None]:
    """Return lengths [batch, classes] and reconstructions of the labels' capsules, or of the longest, or None."""
    x = jax.nn.relu(_conv(params["conv1"], images, 1))
    x = _conv(params["primary"], x, 2)
    weights = params["class_capsules"]["W"]
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
    decoded_class = jnp.argmax(lengths, axis=-1) if labels is None else labels
    x = (outputs * jax.nn.one_hot(decoded_class, outputs.shape[1])[:, :, None]).reshape(images.shape[0], -1)
    for name, layer in sorted(params["decoder"].items()):  # "hidden1", …, "pixels"
        x = x @ layer["kernel"] + layer["bias"].reshape(1, -1)
        x = jax.nn.sigmoid(x) if name == "pixels" else jax.nn.relu(x)
    return lengths, x.reshape(images.shape)


def loss(params: Any, images: Array, labels: Array, settings: Mapping[str, Any]) -> Array:
    """Return the loss that is minimised."""
    net = partial(forward, params, iterations=settings["routing.iterations"])
    return capsnet_loss(jax.nn.one_hot, net, images, labels, settings)


def _conv(layer: Any, x: Array, stride: int) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), "VALID", dimension_numbers=layout)
    return y + layer["bias"].reshape(1, 1, 1, -1)


def _squash(s: Array) -> Array:
    squared = jnp.sum(s**2, axis=-1, keepdims=True)
    return s * squared / (1 + squared) / jnp.sqrt(squared + 1e-12)


class OnJax:
    """A subject that computes by JAX."""

    def device_peak(self) -> int:
        """Return the device's peak memory [bytes]; 0 on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


class _PlainJax(OnJax):
    """The jitted training step, or the jitted forward pass, on images that live on the device."""

    def __init__(self, workload: Workload, weights: Any):
        self._workload, self._adam = workload, optax.adam(workload.settings["train.learning_rate"])
        self._data, self.params = jax.device_put((workload.images(), weights))
        self._moments = self._adam.init(self.params) if workload.phase == "training" else None

    def compile(self) -> float:
        clock = time.perf_counter()
        step = jax.jit(self._step, donate_argnums=(0, 1))
        self._program = step.lower(self.params, self._moments, self._data, 0).compile()
        return time.perf_counter() - clock

    def run(self, start: int, stop: int) -> None:
        batches, batch = self._workload.num_images // self._workload.batch, self._workload.batch
        for first in (step % batches * batch for step in range(start, stop)):
            self.params, self._moments, out = self._program(self.params, self._moments, self._data, first)
        jax.block_until_ready((self.params, out))

    def _step(self, params: Any, moments: Any, data: Any, first: Array) -> tuple[Any, Any, Any]:
        images, labels = (jax.lax.dynamic_slice_in_dim(array, first, self._workload.batch) for array in data)
        if moments is None:
            return params, None, forward(params, images / 255.0, None, self._workload.iterations)
        value, gradient = jax.value_and_grad(loss)(params, images / 255.0, labels, self._workload.settings)
        updates, moments = self._adam.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value


build = _PlainJax
