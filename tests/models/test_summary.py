import jax
import jax.numpy as jnp
import pytest

from capsnet_jax import overrides
from capsnet_jax.models import MODELS, summary
from capsnet_jax.models.summary import Layer, count_flops, outline, side_by_side
from capsnet_jax.ops.conv import conv2d


def describe(name: str, *image, **settings) -> str:
    config = overrides.build({"model.name": name} | {k.replace("__", "."): v for k, v in settings.items()})
    return summary.describe(name, outline(config, *image))


def lines(text: str) -> dict[str, list[str]]:
    """{layer: what stands beside it} of a table, under its two lines of heading and above its two of totals."""
    return {name: cells for name, *cells in map(str.split, text.splitlines()[2:-2])}


def rows(text: str) -> dict[str, tuple[str, int]]:
    """{layer: (output, parameters)}."""
    return {name: (cells[0], int(cells[1].replace(",", ""))) for name, cells in lines(text).items()}


def flops_of(function, *shapes) -> int:
    return count_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def test_capsnet_of_the_paper():
    text = describe("capsnet")
    layers = rows(text)
    assert layers["conv1"] == ("20×20×256", 20_992)
    assert layers["primary"] == ("6×6×256", 5_308_672)
    assert layers["class_capsules"] == ("10×16", 1_474_560)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_head_of_capsules_is_described_with_its_work():
    plain, capsules = (
        outline(overrides.build({"model.name": "resnet20", "model.head": h})) for h in ("avg", "uniform")
    )
    own = {layer.name: (layer.output, layer.parameters) for layer in capsules.layers[-2:]}
    assert own == {"primary": ((8, 8, 64), 4_160), "class_capsules": ((10, 16), 10_240)}
    # By hand: a 1×1 convolution, and one matrix product of 256 capsules with the coupled W, in place of the classes.
    assert capsules.flops - plain.flops == 2 * (64 * 64 * 64 + 256 * 16 * 160 - 640)
    assert "global_max" in rows(describe("resnet8", model__head="max"))


@pytest.mark.slow
def test_auxiliary_classifiers_are_told_apart():
    text = describe("googlenet")
    assert "total 6,998,552 parameters (and 6,379,728 of aux1 and aux2 in training only)" in text
    assert not [layer for layer in rows(text) if layer.startswith("aux")]


@pytest.mark.parametrize("name", [name for name in sorted(MODELS) if MODELS[name].image_shape == (28, 28, 1)])
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
    assert layers["class_capsules"] == ("7×16", 2048 * 7 * 8 * 16)
    assert layers["decoder"][0] == "3072"


def test_settings_are_honoured():
    layers = rows(describe("capsnet", model__channels=64, loss__reconstruction=False))
    assert layers["conv1"] == ("20×20×64", 81 * 64 + 64)
    assert not [layer for layer in layers if layer.startswith("decoder")]
    one = outline(overrides.build({"model.name": "capsnet", "routing.iterations": 1}))
    two = outline(overrides.build({"model.name": "capsnet", "routing.iterations": 2}))
    assert two.flops - one.flops == 2 * (2 * 1152 * 10 * 16)  # an agreement, and a weighted sum in place of a mean


@pytest.mark.slow
def test_kernels_strides_and_paddings():
    """Sabour et al. 2017, figure 1; Krizhevsky et al. 2012, figure 2. SAME at a stride has more zeros at the end."""
    layers = lines(describe("capsnet"))
    assert layers["conv1"][2:] == ["9×9", "1", "0"]
    assert layers["primary"][2:] == ["9×9", "2", "0"]
    assert layers["class_capsules"][2:] == []
    layers = lines(describe("alexnet"))
    assert layers["conv1"][2:] == ["11×11", "4", "1+2"]
    assert layers["conv2"][2:] == ["5×5", "1", "2"]
    assert lines(describe("cnn_small_strided"))["conv2"][2:] == ["3×3", "2", "0+1"]
    assert lines(describe("resnet50"))["max_pool"] == ["56×56×64", "0", "3×3", "2", "1"]


def names(name: str) -> list[str]:
    return [layer.name for layer in outline(overrides.build({"model.name": name})).layers]


@pytest.mark.slow
def test_poolings_stand_where_they_run():
    assert names("alexnet")[:5] == ["conv1", "local_response_norm", "max_pool", "conv2", "local_response_norm"]
    vgg = names("vgg_a_lrn")
    assert vgg[:5] == ["stage1.conv1", "stage1.local_response_norm", "stage1", "max_pool", "stage2.conv1"]
    google = names("googlenet")
    at = google.index("inception3a.max_pool")
    assert google[at - 1 : at + 2] == ["inception3a.conv5x5", "inception3a.max_pool", "inception3a.project.conv"]
    assert google[google.index("inception3b") + 1] == "max_pool"
    dense = names("densenet121")
    at = dense.index("transition1.average_pool")
    assert dense[at - 1 : at + 2] == ["transition1.conv", "transition1.average_pool", "transition1"]
    small = names("cnn_small")
    assert small[:5] == ["conv1", "max_pool", "conv2", "max_pool", "conv3"]
    assert "global_average" in names("resnet20")


def test_a_pooling_is_a_layer_without_parameters():
    layers = outline(overrides.build({"model.name": "cnn_small"})).layers
    assert layers[1] == Layer("max_pool", (14, 14, 32), 0, "max_pool", 2, 2, "0")


# Simonyan and Zisserman 2014, table 1: layers between two poolings.
VGG = {
    "vgg_a": [["3-64"], ["3-128"], ["3-256"] * 2, ["3-512"] * 2, ["3-512"] * 2],
    "vgg_b": [["3-64"] * 2, ["3-128"] * 2, ["3-256"] * 2, ["3-512"] * 2, ["3-512"] * 2],
    "vgg_c": [["3-64"] * 2, ["3-128"] * 2, *([f"3-{w}"] * 2 + [f"1-{w}"] for w in (256, 512, 512))],
    "vgg_e": [["3-64"] * 2, ["3-128"] * 2, *([f"3-{w}"] * 4 for w in (256, 512, 512))],
}


@pytest.mark.slow
def test_vgg_side_by_side_is_the_papers_table():
    text = side_by_side({name: outline(overrides.build({"model.name": name})) for name in VGG})
    header, *table = text.splitlines()
    starts = [header.index(name) for name in VGG]
    columns = {
        name: [line[start : start + 12].strip() for line in table] for name, start in zip(VGG, starts, strict=True)
    }
    for name, stages in VGG.items():
        layers = [cell for cell in columns[name] if cell.startswith(("conv", "maxpool", "FC"))]
        wanted = [cell for stage in stages for cell in [*(f"conv{size}" for size in stage), "maxpool"]]
        assert layers == [*wanted, "FC-4096", "FC-4096", "FC-1000"]
    poolings = [[i for i, cell in enumerate(column) if cell == "maxpool"] for column in columns.values()]
    assert all(rows == poolings[0] for rows in poolings)
    assert len(poolings[0]) == 5
    # Table 2 of the paper, in millions: 133, 133, 134, 144.
    assert [round(float(column[-2].replace(",", "")) / 1e6) for column in columns.values()] == [133, 133, 134, 144]
    assert [column[-1] for column in columns.values()] == ["15.218", "22.617", "23.542", "39.264"]


def test_nets_of_different_kinds_side_by_side():
    outlines = {name: outline(overrides.build({"model.name": name})) for name in ("capsnet", "vgg_a_lrn", "resnet20")}
    text = side_by_side(outlines)
    assert "capsules-10×16" in text
    assert "LRN" in text
    assert "global_average" in text


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
