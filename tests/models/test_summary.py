import jax
import jax.numpy as jnp
import pytest

from capsnet_jax import config
from capsnet_jax.models import CIFAR, IMAGENET, MODELS
from capsnet_jax.models.summary import count_flops, describe
from capsnet_jax.ops.conv import conv2d


def rows(text: str) -> dict[str, tuple[str, int]]:
    """{layer: (output, parameters)} of a table, under its two lines of heading and above its two of totals."""
    return {
        name: (shape, int(count.replace(",", ""))) for name, shape, count in map(str.split, text.splitlines()[2:-2])
    }


def flops_of(function, *shapes) -> int:
    return count_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def test_capsnet_of_the_paper():
    text = describe("capsnet")
    layers = rows(text)
    assert layers["conv1"] == ("20×20×256", 20_992)
    assert layers["primary"] == ("6×6×256", 5_308_672)
    assert layers["digit"] == ("10×16", 1_474_560)
    assert layers["decoder"] == ("784", 1_411_344)
    assert layers["decoder.hidden2"] == ("1024", 512 * 1024 + 1024)
    assert "total 8,215,568 parameters" in text
    assert text.splitlines()[0] == "capsnet: images of 28×28×1, 10 classes"


def test_work_of_capsnet():
    conv1 = 2 * 20 * 20 * 9 * 9 * 1 * 256
    primary = 2 * 6 * 6 * 9 * 9 * 256 * 256
    votes = 2 * 1152 * 10 * 8 * 16
    # Three iterations: the first is a plain mean, each other one agreement and one weighted sum.
    routing = 2 * 2 * (2 * 1152 * 10 * 16)
    decoder = 2 * (160 * 512 + 512 * 1024 + 1024 * 784)
    total = conv1 + primary + votes + routing + decoder
    assert total == 406_036_480
    assert f"{total / 1e6:,.1f} MFLOP for one image" in describe("capsnet")


def test_baseline_cnn():
    text = describe("sabour_cnn")
    layers = rows(text)
    assert layers["conv1"] == ("28×28×256", 25 * 256 + 256)
    assert layers["conv2"] == ("28×28×256", 25 * 256 * 256 + 256)
    assert layers["conv3"] == ("28×28×128", 25 * 256 * 128 + 128)
    dense = [value for name, value in layers.items() if not name.startswith("conv") and value[1]]
    assert dense == [("328", 784 * 128 * 328 + 328), ("192", 328 * 192 + 192), ("10", 192 * 10 + 10)]
    assert "total 35,445,522 parameters" in text
    convolutions = 784 * 25 * (256 + 256 * 256 + 256 * 128)
    work = 2 * (convolutions + 784 * 128 * 328 + 328 * 192 + 192 * 10)
    assert f"{work / 1e6:,.1f} MFLOP" in text


# Millions of multiplications and additions: twice 0.724, 15.470 and 4.089 thousand million products.
@pytest.mark.parametrize(
    ("name", "parameters", "work"),
    [("alexnet", 60_965_224, 1_448.8), ("vgg_d", 138_357_544, 30_940.5), ("resnet50", 25_557_032, 8_178.4)],
)
def test_imagenet_nets_are_described_as_in_their_papers(name, parameters, work):
    text = describe(name)
    assert text.splitlines()[0] == f"{name}: images of 224×224×3, 1000 classes"
    assert f"total {parameters:,} parameters" in text
    assert f"{work:,.1f} MFLOP" in text
    whole = sum(count for layer, (_, count) in rows(text).items() if "." not in layer)
    assert whole == parameters
    if name == "resnet50":
        assert rows(text)["stage2.block1.conv2"] == ("28×28×128", 9 * 128 * 128)


def test_a_net_for_cifar_is_described_at_its_images():
    text = describe("resnet20")
    assert text.splitlines()[0] == "resnet20: images of 32×32×3, 10 classes"
    # Products by hand: the first convolution; 6, then 1 and 5, then 1 and 5 of 3×3 filters; the classes.
    stages = 1024 * 6 * 16 * 16, 256 * (16 * 32 + 5 * 32 * 32), 64 * (32 * 64 + 5 * 64 * 64)
    products = 9 * (1024 * 3 * 16 + sum(stages)) + 640
    assert products == 40_551_040
    assert f"{2 * products / 1e6:,.1f} MFLOP" in text


def test_auxiliary_classifiers_are_told_apart():
    text = describe("googlenet")
    assert "total 6,998,552 parameters (and 6,379,728 of aux1 and aux2 in training only)" in text
    assert not [layer for layer in rows(text) if layer.startswith("aux")]


@pytest.mark.parametrize("name", [name for name in sorted(MODELS) if name not in IMAGENET | CIFAR])
def test_the_layers_add_up_to_the_total(name):
    text = describe(name)
    layers = rows(text)
    whole = sum(count for layer, (_, count) in layers.items() if "." not in layer)
    assert f"total {whole:,} parameters" in text


def test_other_images_and_classes():
    text = describe("capsnet", (32, 32, 3), 7)
    layers = rows(text)
    assert layers["conv1"] == ("24×24×256", 81 * 3 * 256 + 256)
    assert layers["primary"] == ("8×8×256", 5_308_672)
    assert layers["digit"] == ("7×16", 2048 * 7 * 8 * 16)
    assert layers["decoder"][0] == "3072"


def test_unknown_model():
    with pytest.raises(config.ConfigError, match="did you mean 'capsnet'"):
        describe("capsnt")


def test_products_are_counted():
    assert flops_of(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert flops_of(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (7, 3, 4), (7, 4, 5)) == 2 * 7 * 3 * 4 * 5
    assert flops_of(lambda a, b: jnp.einsum("ij,ij->", a, b), (3, 4), (3, 4)) == 2 * 3 * 4
    assert flops_of(lambda a: jnp.exp(a) + a, (3, 4)) == 0


def test_products_in_loops_and_calls_are_counted():
    def looped(a, b):
        return jax.lax.scan(lambda carry, _: (carry @ b, None), a, length=6)[0]

    assert flops_of(looped, (3, 4), (4, 4)) == 6 * 2 * 3 * 4 * 4
    assert flops_of(jax.jit(jax.checkpoint(lambda a, b: a @ b)), (3, 4), (4, 5)) == 2 * 3 * 4 * 5


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_a_convolution_counts_as_the_direct_one(strides, padding):
    def conv(x, kernel):
        return conv2d(x, kernel, strides=strides, padding=padding)

    side = {("VALID", 1): 9, ("VALID", 2): 5, ("SAME", 1): 11, ("SAME", 2): 6}[padding, strides]
    assert flops_of(conv, (2, 11, 11, 3), (3, 3, 3, 8)) == 2 * 2 * side * side * 9 * 3 * 8
