"""Convolutional layers of capsules: the same weights at every position, and parents everywhere compete for a child.

A router routes the votes for the parents at one position. It is mapped over the positions, and the softmax that it gets
shares each child among all parents that see it: those of all types, at all positions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.config import Choice
from capsnet_jax.ops.conv.im2col import extract_patches
from capsnet_jax.ops.materialize import materialize
from capsnet_jax.routing import ROUTERS, Routing
from capsnet_jax.routing.layer import in_bounded_memory

POSITIONS = "positions"  # the axis over which a router is mapped


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of children that the parents at each position see, without padding.

    A window's inputs are flattened in the order [row, column, type], and so are positions [row, column].

    Attributes:
        grid: height and width of the layer of children, positions.
        kernel: height and width of a window, positions.
        stride: positions that the window moves.

    Raises:
        ValueError: the kernel is larger than the grid.
    """

    grid: tuple[int, int]
    kernel: tuple[int, int]
    stride: int = 1

    def __post_init__(self) -> None:
        if min(self.positions) < 1:
            grid, kernel = ("×".join(map(str, sizes)) for sizes in (self.grid, self.kernel))
            raise ValueError(f"images are too small: {grid} capsules are fewer than a {kernel} kernel")

    @property
    def positions(self) -> tuple[int, int]:
        """Rows and columns of parents."""
        rows, columns = ((size - k) // self.stride + 1 for size, k in zip(self.grid, self.kernel, strict=True))
        return rows, columns

    def gather(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch positions patch"]:
        """Copy what is in the window at each position, in the order [row, column, channel]."""
        patches = extract_patches(x, self.kernel, (self.stride, self.stride))
        return patches.reshape(len(x), -1, patches.shape[-1])

    def fold(
        self, x: Float[Array, "positions inputs"], combine: Callable[[Array, Array], Array], start: float
    ) -> Float[Array, "height width types"]:
        """Combine all that windows say of each child; `start` where no window sees it."""
        (rows, columns), (height, width) = self.positions, self.kernel
        windows = x.reshape(rows, columns, height, width, -1)
        reach = [(size - 1) * self.stride + 1 for size in self.positions]

        def spread(i: int, j: int) -> Array:
            ends = [full - first - r for full, first, r in zip(self.grid, (i, j), reach, strict=True)]
            pads = [(i, ends[0], self.stride - 1), (j, ends[1], self.stride - 1), (0, 0, 0)]
            return jax.lax.pad(windows[:, :, i, j], jnp.asarray(start, x.dtype), pads)

        return functools.reduce(combine, [spread(i, j) for i in range(height) for j in range(width)])

    def over_parents(
        self, x: Float[Array, "inputs"], combine: Callable[[Array, Array], Array], start: float
    ) -> Float[Array, "inputs"]:
        """Combine, for the children at this position, the values of all positions. For use under `vmap`."""
        folded = self.fold(jax.lax.all_gather(x, POSITIONS), combine, start)
        return self.gather(folded[None])[0, jax.lax.axis_index(POSITIONS)]

    def softmax(
        self, logits: Float[Array, "inputs outputs"], *, orphan: bool = False
    ) -> Float[Array, "inputs outputs"]:
        """Share each child among the parents at this and all other positions. For use under `vmap`.

        An `orphan` of logit 0, one for each child, takes part, and its share is left out.
        """
        greatest = jax.lax.stop_gradient(self.over_parents(jnp.max(logits, axis=-1), jnp.maximum, -jnp.inf))
        greatest = jnp.maximum(greatest, 0) if orphan else greatest
        powers = jnp.exp(logits - greatest[:, None])
        total = self.over_parents(jnp.sum(powers, axis=-1), jnp.add, 0.0)
        return powers / (total + jnp.exp(-greatest) if orphan else total)[:, None]


def route_convolution(
    poses: Float[Array, "batch height width types primary"],
    activations: Float[Array, "batch height width types"] | None,
    weights: Float[Array, "inputs outputs primary_dim dim"],
    choice: Choice,
    parameters: dict[str, Any] | None = None,
    *,
    kernel: tuple[int, int],
    stride: int = 1,
    offsets: Float[Array, "inputs pose"] | None = None,
    parents: Float[Array, "batch out_height out_width outputs pose"] | None = None,
    precision: str = "float32",
    trace: bool = False,
) -> Routing:
    """Route a batch through a convolutional layer of capsules.

    Args:
        poses: of the children: vectors of primary_dim numbers, or matrices [rows, primary_dim], flattened.
        activations: how present each child is; may be None where the router does not ask.
        weights: W of each child of a window, which is the same at all positions, for each type of parents. A child's
          vote is pose · W.
        choice: a key of ROUTERS, with that router's settings.
        parameters: the router's own for one position, where it has any; all positions share them.
        kernel: height and width of a window, positions; inputs = height · width · types.
        stride: positions that the window moves.
        offsets: added to the votes of each child of a window.
        parents: as an earlier pass has left them, for routers that go on from there.
        precision: type of the products with W.
        trace: whether every iteration is returned, where the router can.

    Returns:
        `Routing`: capsules [batch, out_height, out_width, outputs, pose], activations without the last axis; couplings
        and logits [batch, positions, inputs, outputs], and a trace [batch, positions, iterations, …].

    Raises:
        ValueError: the grid of children is smaller than the kernel.

    Source: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", sections 4 and 5.
    """
    router, windows = ROUTERS[choice.name], Windows((poses.shape[1], poses.shape[2]), kernel, stride)
    route = functools.partial(router, parameters=parameters, trace=trace and router.traces, **vars(choice.settings))
    given = activations if router.takes("activations") else None

    def route_images(arrays: tuple[Array, Array | None, Array | None], weights: Array) -> Routing:
        poses, activations, parents = arrays
        children, activations = gather_children(poses, activations, windows)
        votes = make_votes(children, weights, precision=precision)
        votes = votes if offsets is None else votes + offsets[None, None, :, None]
        return route_positions(votes, children, activations, parents, windows, route)

    if parents is not None:
        parents = parents.reshape(len(parents), -1, *parents.shape[3:])
    pose = poses.shape[-1] // weights.shape[2] * weights.shape[3]
    votes = weights.shape[0] * weights.shape[1] * pose * windows.positions[0] * windows.positions[1]
    routing = in_bounded_memory(route_images, (poses, given, parents), weights, votes=votes * poses.dtype.itemsize)
    place = (len(poses), *windows.positions, weights.shape[1])
    return routing._replace(
        capsules=routing.capsules.reshape(*place, pose), activations=routing.activations.reshape(place)
    )


def gather_children(
    poses: Float[Array, "batch height width types primary"],
    activations: Float[Array, "batch height width types"] | None,
    windows: Windows,
) -> tuple[Float[Array, "batch positions inputs primary"], Float[Array, "batch positions inputs"] | None]:
    """Copy the children that the parents at each position see."""
    flat = windows.gather(poses.reshape(*poses.shape[:3], -1))
    children = flat.reshape(*flat.shape[:2], -1, poses.shape[-1])
    return children, None if activations is None else windows.gather(activations)


def make_votes(
    children: Float[Array, "batch positions inputs primary"],
    weights: Float[Array, "inputs outputs primary_dim dim"],
    *,
    precision: str = "float32",
) -> Float[Array, "batch positions inputs outputs pose"]:
    """Make the votes V_io = M_i W_io of the children at every position."""
    batch, positions, inputs, _ = children.shape
    _, outputs, primary_dim, _ = weights.shape
    # Laid out as the products want them: u[k, batch, positions, rows, inputs] and W[k, outputs, dim, inputs].
    factors = children.reshape(batch, positions, inputs, -1, primary_dim).transpose(4, 0, 1, 3, 2)
    votes = _products(factors.astype(precision), weights.transpose(2, 1, 3, 0).astype(precision))
    return votes.astype(children.dtype).reshape(batch, positions, outputs, -1, inputs).transpose(0, 1, 4, 2, 3)


@jax.custom_vjp
def _products(
    u: Float[Array, "k batch positions rows inputs"], w: Float[Array, "k outputs dim inputs"]
) -> Float[Array, "batch positions outputs rows dim inputs"]:
    """Return Σ_k u_k w_k, parent by parent with the inputs last, as in `layer`.

    With so few terms, a sum of products is faster than a small matrix product for each input. It and its gradient are
    written to memory, as what reads them would compute them anew.
    """
    return materialize(sum(a[:, :, None, :, None] * b[None, None, :, None] for a, b in zip(u, w, strict=True)))


def _products_forward(u: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _products(u, w), (u, w)


def _products_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    u, w = residuals
    gradient = materialize(gradient)
    gradient = gradient.reshape(-1, *gradient.shape[2:])
    merged = u.reshape(len(u), -1, *u.shape[3:])
    to_u = [jnp.sum(gradient * b[None, :, None], axis=(1, 3)).reshape(u.shape[1:]) for b in w]
    to_w = [jnp.sum(gradient * a[:, None, :, None], axis=(0, 2)) for a in merged]
    return jnp.stack(to_u), jnp.stack(to_w)


_products.defvjp(_products_forward, _products_backward)


def route_positions(
    votes: Float[Array, "batch positions inputs outputs pose"],
    children: Float[Array, "batch positions inputs primary"],
    activations: Float[Array, "batch positions inputs"] | None,
    parents: Float[Array, "batch positions outputs pose"] | None,
    windows: Windows,
    route: Callable[..., Routing],
) -> Routing:
    """Map a router over positions, whose parents compete, and images."""

    def route_one(votes: Array, poses: Array, activations: Array | None, parents: Array | None) -> Routing:
        return route(votes, poses=poses, activations=activations, parents=parents, softmax=windows.softmax)

    return jax.vmap(jax.vmap(route_one, axis_name=POSITIONS))(votes, children, activations, parents)
