"""One training step as a pure function of state and batch, and many in a row as one loop on the device.

A *run* is one config and one seed. Every random number is derived from the run's seed and the step, so the state
carries no key, and a run that is cut at any step and continued from its state is equal to the bit to one that was not.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Examples, shows_pairs
from capsnet_jax.data.augment import augment, gather, gather_shifted, to_float, to_targets
from capsnet_jax.data.pairs import Pairs, by_class, draw_pairs
from capsnet_jax.data.transform import background
from capsnet_jax.losses import PARTS, total_loss
from capsnet_jax.training.finetune import layer_names, scale_pretrained_updates, split_frozen
from capsnet_jax.training.optimizer import add_weight_decay, gradient_transform
from capsnet_jax.training.parallel import split_batch
from capsnet_jax.training.schedule import ema_weight, learning_rate

TRAIN_METRICS = (*PARTS, "error")  # summed over an epoch's batches, as they are trained on


class TrainState(NamedTuple):
    """What a step reads and replaces.

    Attributes:
        params: the model's parameters.
        opt_state: the optimizer's moments, of the parameters that are trained.
        sums: each metric summed over the examples of the current epoch so far.
        diverged: the first step whose loss or result was not finite, else -1. From then on the state stands still,
          so it always holds finite numbers.
        stats: batch norm's running statistics; {} in a model without.
        average: params and stats, averaged over the last steps; () where that is not asked for.
    """

    params: PyTree
    opt_state: PyTree
    sums: dict[str, Float[Array, ""]]
    diverged: Int[Array, ""]
    stats: PyTree = {}  # noqa: RUF012 - never changed in place
    average: PyTree = ()

    @property
    def eval_params(self) -> tuple[PyTree, PyTree]:
        """The params and stats that are evaluated and saved."""
        return self.average or (self.params, self.stats)


def init_state(config: Config, seed: Int[Array, ""], image_shape: tuple[int, ...], classes: int) -> TrainState:
    """Draw the state before the first step."""
    params, stats = models.init(models.build(config, classes), run_key(seed, "init"), image_shape)
    trained, _ = split_frozen(params, config.train.frozen)
    opt_state = gradient_transform(config.train, models.MODELS[config.model.name].head_layers).init(trained)
    sums = {name: jnp.zeros(()) for name in TRAIN_METRICS}
    average = jax.tree.map(jnp.zeros_like, (params, stats)) if config.train.ema_epochs else ()
    return TrainState(params, opt_state, sums, jnp.int32(-1), stats, average)


def train_step(
    config: Config,
    seed: Int[Array, ""],
    state: TrainState,
    batch: Examples | Pairs,
    step: Int[Array, ""],
    *,
    classes: int,
    total: int,
) -> TrainState:
    """Take one step on a batch of uint8 images, augmented here; pairs are augmented already.

    Args:
        config: settings; its leaves may be traced.
        seed: of the run.
        state: to be replaced.
        batch: images uint8[batch, height, width, channels] and their labels; of pairs also both originals, each of
          which the decoder then makes of its class.
        step: number of this step, from 0.
        classes: number of classes.
        total: steps that the schedule spans.

    Returns:
        The next state; the old one with `diverged` set where the loss or the next state is not finite.
    """
    shift_key, dropout_key = jax.random.split(jax.random.fold_in(run_key(seed, "steps"), step))
    if isinstance(batch, Pairs):
        images, originals = to_float(batch.images), to_float(batch.originals)
    else:
        moves_in = background(config.data.transform)
        images = originals = to_float(augment(shift_key, batch.images, background=moves_in, **augmentation(config)))
    targets = to_targets(batch.labels, classes)
    model, head_layers = models.build(config, classes), models.MODELS[config.model.name].head_layers
    trained, frozen = split_frozen(state.params, config.train.frozen)

    def loss_of(trained: PyTree) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
        out, stats = models.apply_in_training(
            model,
            trained | frozen,
            state.stats,
            images,
            targets,
            dropout=dropout_key,
            progress=step / total,
            frozen=layer_names(config.train.frozen),
        )
        decoded = originals if "reconstructions" in out else images
        loss, parts = total_loss(out, decoded, targets, config, step=step, total=total)
        return loss, (parts, stats)

    (loss, (parts, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trained)
    rate = learning_rate(config.train, step, total)
    # A step moves a parameter by a few rates at most, so with these everything in the next state is finite.
    squares = jnp.stack([jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves((gradient, stats))])
    finite = jnp.all(jnp.isfinite(squares)) & jnp.isfinite(loss) & jnp.isfinite(1e3 * rate) & (state.diverged < 0)

    def update() -> TrainState:
        updates, opt_state = gradient_transform(config.train, head_layers).update(gradient, state.opt_state, trained)
        updates = add_weight_decay(updates, trained, config.train.weight_decay)
        if config.finetune.source != "none":
            scale = scale_pretrained_updates(config.finetune, trained, head_layers)
            updates, _ = scale.update(updates, scale.init(trained))
        params = jax.tree.map(lambda p, u: p - rate * u, trained, updates) | frozen
        sums = {name: state.sums[name] + jnp.sum(parts[name]) for name in TRAIN_METRICS}
        average = ()
        if config.train.ema_epochs:
            weight = ema_weight(config.train, step, total)
            average = optax.incremental_update((params, stats), state.average, weight)
        return TrainState(params, opt_state, sums, state.diverged, stats, average)

    def keep() -> TrainState:
        return state._replace(diverged=jnp.where(state.diverged < 0, step, state.diverged))

    # A choice between the two states' numbers instead would cost a CPU another pass over some of them.
    return jax.lax.cond(finite, update, keep)


def train_steps(
    config: Config,
    seed: Int[Array, ""],
    state: TrainState,
    examples: Examples,
    order: Int[Array, "images"],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    *,
    classes: int,
    total: int,
) -> TrainState:
    """Take steps `start` to `stop`, all of one epoch and in its `order` (of `order.py`), as one loop on the device.

    The loop's bounds are arguments of the program, so chunks of any length share one compilation and, as no step
    knows where its chunk began, lead to the same state to the bit.
    """
    size = config.train.batch_size
    where = by_class(examples.labels, classes) if shows_pairs(config.data.dataset) else None
    steps = steps_per_epoch(config, examples)
    begins = (start % steps == 0) & (state.diverged < 0)
    state = state._replace(sums={name: jnp.where(begins, 0, value) for name, value in state.sums.items()})

    def body(step: Array, state: TrainState) -> TrainState:
        indices = jax.lax.dynamic_slice(order, (step % steps * size,), (size,))
        batch: Examples | Pairs
        if config.data.shift_order == "in_turn":
            batch = gather_shifted(examples, indices, config.data.max_shift, background(config.data.transform))
        else:
            batch = gather(examples, indices)
        if where is not None:
            base_key, key = jax.random.split(run_key(seed, "pairs"))
            key = jax.random.fold_in(key, step)
            batch = draw_pairs(key, base_key, examples, where, indices, **augmentation(config))
        return train_step(config, seed, state, split_batch(batch), step, classes=classes, total=total)

    return jax.lax.fori_loop(start, stop, body, state)


def augmentation(config: Config) -> dict[str, Any]:
    """Return the settings of `augment`; images whose shifts come in turn are moved already."""
    chosen = {name: getattr(config.data, name) for name in ("max_shift", "max_rotation", "flip")}
    return chosen | {"max_shift": 0} if config.data.shift_order == "in_turn" else chosen


def steps_per_epoch(config: Config, examples: Examples) -> int:
    """Count whole batches in a pass; the order is new in every epoch, so the odd images left out change."""
    return examples.labels.shape[0] // config.train.batch_size


def run_key(seed: Int[Array, ""], purpose: str) -> Array:
    """Return a run's key for one purpose, so that no two purposes share random numbers."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "steps", "pairs").index(purpose))
