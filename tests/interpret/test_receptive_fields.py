import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import receptive_field
from capsnet_jax.models import MODELS, init
from capsnet_jax.models.forward import Forward, from_flax
from capsnet_jax.ops.conv import conv2d
from capsnet_jax.ops.materialize import materialize
from capsnet_jax.ops.pooling import average_pool, max_pool

KEYS = jax.random.split(jax.random.key(0), 4)


def conv(x, key, kernel, **settings):
    weights = 1 + jax.random.uniform(key, (*kernel, x.shape[-1], 3))  # no two of them cancel
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, weights, dimension_numbers=numbers, **settings)


def plain(images):
    """Padding, strides and dilation that differ by axis; a path around; a pooling; flattened and brought back."""
    first = conv(images, KEYS[0], (3, 5), window_strides=(2, 1), padding=((1, 0), (0, 3)))
    second = first + conv(
        jax.nn.relu(first), KEYS[1], (3, 1), window_strides=(1, 1), padding=((2, 2), (0, 0)), rhs_dilation=(2, 1)
    )
    pooled = lax.reduce_window(second, 0.0, lax.add, (1, 2, 3, 1), (1, 2, 2, 1), "VALID")
    turned = jnp.concatenate([pooled, 2 * pooled], axis=3).transpose(3, 2, 0, 1)  # channels, columns, batch, rows
    mixed = jnp.einsum("cxby,cd->byxd", turned, jnp.ones((6, 2)))
    units = mixed.reshape(len(images), -1, 1)
    return {
        "second": second,
        "mixed": mixed,
        "units": units / jnp.sum(units**2, axis=-1, keepdims=True),
        "rows": mixed.mean(axis=2),
        "all": mixed - mixed.mean(axis=(1, 2), keepdims=True),
        "scanned": lax.scan(lambda carry, row: (carry + row, carry + row), mixed[:, 0], mixed.swapaxes(0, 1))[1],
    }


def seen_pixels(net, shape, layer, *index):
    """Which rows and columns move one element of a layer: change them, each alone."""
    base = jnp.ones((1, *shape))
    element = jax.jit(lambda images: net(images)[layer][(slice(None), *index)].reshape(len(images), -1).sum(axis=1))
    moved = []
    for axis in (1, 2):
        changed = jnp.stack([base[0].at[(slice(None),) * (axis - 1) + (i,)].add(1) for i in range(shape[axis - 1])])
        moved.append(np.flatnonzero(np.abs(element(changed) - element(base)) > 1e-4 * np.abs(element(base))))
    return moved


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "inside", "corner"), [("second", (4, 6), (9, 15)), ("mixed", (2, 4), (4, 6))])
def test_exactly_the_field_moves_a_position(layer, inside, corner):
    shape = (21, 17, 2)
    field = receptive_field(plain, shape, layer)
    for position in ((0, 0), inside, corner):
        for axis, moved in enumerate(seen_pixels(plain, shape, layer, *position)):
            first = field.start[axis] + field.stride[axis] * position[axis]
            last = first + field.size[axis] - 1
            assert first <= moved.min() <= moved.max() <= last
            if position == inside:
                assert (moved.min(), moved.max()) == (first, last)


def test_what_is_flattened_or_mixed():
    shape = (21, 17, 2)
    assert receptive_field(plain, shape, "units") == receptive_field(plain, shape, "mixed")
    rows, mixed = receptive_field(plain, shape, "rows"), receptive_field(plain, shape, "mixed")
    assert (rows.size, rows.stride) == ((mixed.size[0], 17), (mixed.stride[0], 0))
    for layer in ("all", "scanned"):
        assert receptive_field(plain, shape, layer) == ((21, 17), (0, 0), (0, 0))


def test_poolings_and_copies_are_seen_through():
    def net(images):
        x = materialize(average_pool(max_pool(images, 3, strides=2, padding=1), 2, ceil=True))
        return {"x": conv2d(x, jnp.ones((3, 3, 1, 1)), padding="SAME")}

    # max: 3, every 2nd from -1; mean of 2 of these: 5, every 4th; three of those: 5 + 2 · 4
    assert receptive_field(net, (33, 30, 1), "x") == ((13, 13), (4, 4), (-5, -5))


def test_a_flax_net_of_any_make():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.max_pool(nn.relu(nn.Conv(4, (5, 5), name="first")(images)), (2, 2), (2, 2))
            x = nn.LayerNorm(name="norm")(nn.Dense(3, name="dense")(x))  # of channels
            return nn.GroupNorm(num_groups=1, name="groups")(x)  # of all

    module = Net()
    net = from_flax(module, jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 20, 20, 1))))
    for layer in ("dense", "norm"):
        assert receptive_field(net, (20, 20, 1), layer) == ((6, 6), (2, 2), (-2, -2))
    assert receptive_field(net, (20, 20, 1), "groups").stride == (0, 0)


def test_what_is_no_layer_is_told():
    with pytest.raises(ConfigError, match="did you mean 'second'"):
        receptive_field(plain, (21, 17, 2), "secnd")
    with pytest.raises(ConfigError, match="does not compute it"):
        receptive_field(lambda images: {"ones": jnp.ones((1, 3))}, (5, 5, 1), "ones")


def recurrence(layers):
    """The textbook's: (kernel, stride, padding) of every layer in turn → size, stride, start."""
    size, stride, start = 1, 1, 0
    for kernel, step, padding in layers:
        size, start, stride = size + (kernel - 1) * stride, start - padding * stride, stride * step
    return size, stride, start


CONV, HALVE = (3, 1, 1), (2, 2, 0)
VGG16 = [CONV, CONV, HALVE] * 2 + [CONV, CONV, CONV, HALVE] * 3
ALEXNET = [(11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), CONV, CONV, CONV, (3, 2, 0)]
BOTTLENECKS = [CONV] * 3 + [(3, 2, 1)] + [CONV] * 3 + [(3, 2, 1)] + [CONV] * 5 + [(3, 2, 1)] + [CONV] * 2
# The published sizes are those of Araujo, Norris and Sim 2019 (distill.pub/2019/computing-receptive-fields).
PUBLISHED = [
    ("cnn_small", "conv3", [CONV, HALVE, CONV, HALVE, CONV], 18),
    ("capsnet_small", "primary", [(9, 1, 0), (9, 2, 0)], 17),
    ("alexnet_single", "conv5", ALEXNET[:-1], 163),
    ("alexnet_single", "pool5", ALEXNET, 195),
    ("vgg_d", "stage5.conv3", VGG16[:-1], 196),
    ("vgg_d", "pool5", VGG16, 212),
    ("resnet50", "stage4.block3", [(7, 2, 3), (3, 2, 1), *BOTTLENECKS], 427),
]


def without_numbers(name):
    entry = MODELS[name]
    model, shape = entry(), entry.image_shape
    params, stats = jax.eval_shape(lambda: init(model, jax.random.key(0), shape))
    return Forward(model, {"params": params, "batch_stats": stats}), shape


@pytest.mark.parametrize(
    ("name", "layer", "layers", "size"),
    [pytest.param(*row, marks=pytest.mark.slow if row[0] in ("vgg_d", "resnet50") else ()) for row in PUBLISHED],
)
def test_our_nets_have_the_published_sizes(name, layer, layers, size):
    net, shape = without_numbers(name)
    expected = recurrence(layers)
    assert expected[0] == size
    assert receptive_field(net, shape, layer) == tuple((number, number) for number in expected)
