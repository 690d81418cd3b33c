"""Heat maps of an image's pixels: how much each of them counts for a target."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Num

from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.program import Net
from capsnet_jax.interpret.targets import AnyTarget, Target, prepare, score

Images = Num[Array | np.ndarray, "batch height width channels"]
Maps = Float[Array, "batch height width channels"]


def gradient(net: Net, images: Images, target: AnyTarget = None, *, chunk: int = 32) -> Maps:
    """Return the gradient of the target by each pixel, with its sign.

    Args:
        net: a network, or any function of images to {name: array}.
        images: pixels in [0, 1], or bytes.
        target: what is explained: a class, one class an image, a `targets.Target`, a function of the outputs to
            scores[batch]; None: the class that the net itself chooses.
        chunk: images at a time.

    Source: Simonyan, Vedaldi and Zisserman 2014 (arXiv:1312.6034).
    """
    return _gradient(*prepare(net, images, target), chunk=chunk)


@partial(jax.jit, static_argnames="chunk")
def _gradient(net: Any, images: Array, target: Target, *, chunk: int) -> Array:
    def evaluate(image: Array, _: Array) -> Array:
        of_image = jax.tree.map(lambda index: index[image], target)
        return jax.grad(lambda pixels: score(net, of_image, pixels).sum())(images[image])

    return map_chunks(evaluate, len(images), 1, chunk)[:, 0]
