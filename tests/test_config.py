"""Fields, values and their texts; how paths lead to fields is told in `test_overrides.py`."""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import pytest

from capsnet_jax import config, overrides
from capsnet_jax.config import (
    PRESETS,
    ConfigError,
    check_runs,
    check_value,
    check_word,
    describe_domain,
    makes_difference,
    nearest,
    pytree_dataclass,
    static,
    traced,
)
from capsnet_jax.overrides import fields_of, flatten

DEFAULT = overrides.build({})
FIELDS = fields_of(DEFAULT)
INT32 = "programs hold int32: up to 2147483647"
FLOAT32 = "programs hold float32: 0, or of a size from 1.2e-38 to 3.4e+38"


@pytree_dataclass
class Guest:
    """A settings dataclass as someone's router might have it."""

    beta: float = traced(0.5, low=0, only_if=lambda own: own.steps > 1, doc="of the softmax")
    steps: int = static(3, low=1, high=9, doc="how often")


def test_defaults_of_the_paper():
    flat = flatten(DEFAULT)
    assert [flat[f"loss.{name}"] for name in ("m_plus", "m_minus", "down_weight")] == [0.9, 0.1, 0.5]
    assert flat["loss.reconstruction_weight"] == 0.0005
    assert flat["train.batch_size"] == 128
    assert flat["data.max_shift"] == 2
    assert flat["routing.iterations"] == 3


def test_a_config_is_not_to_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT.preset = "paper"


def test_traced_fields_are_leaves_and_static_ones_structure():
    assert jax.tree.leaves(Guest(0.25, 4)) == [0.25]
    assert jax.tree.structure(Guest(0.1)) == jax.tree.structure(Guest(0.2))
    assert jax.tree.structure(Guest(steps=4)) != jax.tree.structure(Guest())
    assert jax.tree.map(lambda leaf: 2 * leaf, Guest(0.25, 4)) == Guest(0.5, 4)


def test_numbers_are_the_leaves_and_can_be_traced():
    leaves = jax.tree.leaves(DEFAULT)
    assert len(leaves) == sum(field.metadata["traced"] for field in FIELDS.values())
    assert all(type(leaf) is float for leaf in leaves)

    @jax.jit
    def product(settings):
        assert settings.train.batch_size == 128  # static inside
        return settings.train.learning_rate * settings.loss.settings.m_plus

    settings = overrides.build({"train.learning_rate": 0.25, "loss.m_plus": 0.5})
    assert float(product(settings)) == 0.125
    doubled = jax.tree.map(lambda leaf: jnp.asarray(leaf) * 2, settings)
    assert float(product(doubled)) == 0.5
    assert product._cache_size() <= 2  # one a kind of leaf, none a value
    assert float(product(overrides.override(settings, {"train.learning_rate": 0.5}))) == 0.25
    assert product._cache_size() <= 2


@pytest.mark.parametrize(
    ("path", "value", "takes"),
    [
        ("routing.iterations", 2.0, "a whole number from 1 to 100, not 2.0"),
        ("routing.iterations", True, "a whole number from 1 to 100, not True"),
        ("routing.iterations", None, "a whole number from 1 to 100, not None"),
        ("routing.iterations", 0, "a whole number from 1 to 100, not 0"),
        ("routing.iterations", 101, "a whole number from 1 to 100, not 101"),
        ("train.epochs", -1, "a whole number of at least 1, not -1"),
        ("loss.m_plus", 1.5, "a number from 0 to 1, not 1.5"),
        ("loss.m_plus", True, "a number from 0 to 1, not True"),
        ("train.learning_rate", math.nan, "a number of at least 0, not nan"),
        ("train.learning_rate", math.inf, "a number of at least 0, not inf"),
        ("train.learning_rate", -1e-9, "a number of at least 0, not -1e-09"),
        ("train.learning_rate", 1e39, f"a number of at least 0, not 1e+39; {FLOAT32}"),
        ("train.learning_rate", 10**400, f"a number of at least 0, not {10**400}; {FLOAT32}"),
        ("train.learning_rate", 1e-46, f"a number of at least 0, not 1e-46; {FLOAT32}"),
        ("train.epochs", 2**31, f"a whole number of at least 1, not 2147483648; {INT32}"),
        ("model.channels", 2**63, f"a whole number of at least 1, not {2**63}; {INT32}"),
        ("model.decoder", [5, 2**31], f"whole numbers as 512x1024 of at least 1, not [5, 2147483648]; {INT32}"),
        ("loss.reconstruction", 1, "true or false, not 1"),
        ("routing.gradient", "half", "one of full, stop, not 'half'"),
        ("data.dataset", 5, "a word, not 5"),
        ("model.decoder", 512, "whole numbers as 512x1024 of at least 1, not 512"),
        ("model.decoder", None, "whole numbers as 512x1024 of at least 1, not None"),
        ("model.decoder", [512, 0], "whole numbers as 512x1024 of at least 1, not [512, 0]"),
        ("model.decoder", [512.0], "whole numbers as 512x1024 of at least 1, not [512.0]"),
    ],
)
def test_wrong_value(path, value, takes):
    with pytest.raises(ConfigError) as error:
        check_value(path, FIELDS[path], value)
    assert str(error.value) == f"{path} takes {takes}"
    with pytest.raises(ConfigError) as error:
        overrides.build({path: value})
    assert str(error.value) == f"{path} takes {takes}"


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("routing.iterations", "3", 3),
        ("train.learning_rate", "2e-3", 0.002),
        ("train.decay_steps", "100", 100.0),
        ("loss.reconstruction", "False", False),
        ("loss.reconstruction", "true", True),
        ("data.dataset", "mnist", "mnist"),
        ("data.label", "none", "none"),
        ("routing.gradient", "stop", "stop"),
        ("model.decoder", "512x1024", (512, 1024)),
        ("model.decoder", "64", (64,)),
        ("model.kernel", "5", 5),
        ("train.epochs", "2147483647", 2**31 - 1),
        ("train.learning_rate", "3.4e38", 3.4e38),
        ("train.learning_rate", "1.2e-38", 1.2e-38),
    ],
)
def test_text_is_read_in_the_fields_type(path, text, value):
    parsed = check_value(path, FIELDS[path], text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("routing.iterations", "three"),
        ("routing.iterations", "3.0"),
        ("routing.iterations", "none"),
        ("routing.iterations", ""),
        ("routing.iterations", "1e1"),
        ("routing.iterations", "0x10"),
        ("train.learning_rate", "fast"),
        ("train.learning_rate", "inf"),
        ("train.learning_rate", "nan"),
        ("train.learning_rate", "1e999"),
        ("loss.reconstruction", "1"),
        ("loss.reconstruction", "yes"),
        ("routing.gradient", "Full"),
        ("routing.gradient", ""),
        ("model.decoder", "512,1024"),
        ("model.decoder", "512x"),
        ("model.decoder", "0x5"),
        ("model.decoder", ""),
        ("model.decoder", "none"),
    ],
)
def test_text_that_cannot_be_read_says_what_the_path_takes(path, text):
    with pytest.raises(ConfigError, match=f"^{path} takes .*not {text!r}$") as error:
        check_value(path, FIELDS[path], text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [int | None, None | int, typing.Optional[int], "int | None"], ids=str)  # noqa: UP045
def test_a_field_may_be_none_where_its_type_says_so(kind):
    @pytree_dataclass
    class Own:
        width: kind = static(None, low=1, doc="hidden units")

    (field,) = dataclasses.fields(Own)
    assert [check_value("own.width", field, value) for value in (None, "none", "None", 5, "5")] == [None] * 3 + [5, 5]
    with pytest.raises(ConfigError, match=r"^own\.width takes a whole number of at least 1, or none, not 0$"):
        check_value("own.width", field, 0)


def test_types_may_be_written_as_text():
    """As they are in a file that begins with `from __future__ import annotations`."""

    @pytree_dataclass
    class Own:
        width: "int" = static(3, doc="hidden units")
        sizes: "tuple[int, ...]" = static((3,), doc="hidden units")
        rate: "float" = traced(0.5, doc="of learning")

    fields = dataclasses.fields(Own)
    assert [check_value("own", f, text) for f, text in zip(fields, ("5", "5x6", "5"), strict=True)] == [5, (5, 6), 5.0]


def test_choices_may_be_a_registry_that_grows():
    registry = {"one": 1}

    @pytree_dataclass
    class Own:
        which: str = static("one", choices=registry, doc="a key")

    (field,) = dataclasses.fields(Own)
    with pytest.raises(ConfigError, match="takes one of one, not 'two'"):
        check_value("own.which", field, "two")
    registry["two"] = 2
    assert check_value("own.which", field, "two") == "two"
    assert describe_domain(field) == "one of one, two"


def test_a_field_may_make_no_difference_beside_others():
    beta, steps = dataclasses.fields(Guest)
    assert makes_difference(Guest(), beta)
    assert makes_difference(Guest(steps=1), steps)
    assert not makes_difference(Guest(steps=1), beta)


def test_a_word_that_is_not_there_names_the_nearest():
    check_word("routing.name", "random", ["dynamic", "random"])
    for word in ("randon", "", 3):
        with pytest.raises(ConfigError) as error:
            check_word("routing.name", word, ["dynamic", "random"])
        text = str(error.value)
        assert text.startswith(f"routing.name has no {word!r}; did you mean ")
        assert text.endswith("? There are: dynamic, random")
        assert word != "randon" or "did you mean 'random'?" in text


def test_case_and_hyphens_make_no_word_farther():
    assert nearest("Fashion-MNIST", ["mnist", "fashion_mnist", "kmnist"]) == "fashion_mnist"
    assert nearest("VGG_A", ["capsnet", "vgg_a", "vgg_b"]) == "vgg_a"


def test_no_more_runs_than_can_be_meant():
    """At once: nothing of their number is made."""
    check_runs(2**31 - 3, 3)
    check_runs(0, 20_000, settings=5)
    with pytest.raises(ConfigError, match=r"^2,000,000,000 runs are asked for, of 1 × 2,000,000,000 settings"):
        check_runs(0, 2_000_000_000)
    with pytest.raises(ConfigError, match=r"^100,005 runs are asked for, .* at most 100,000 can be: lower --seeds"):
        check_runs(0, 20_001, settings=5)
    with pytest.raises(ConfigError, match=r"^--first_seed=2147483646 leads to seed 2147483648; lower it"):
        check_runs(2**31 - 2, 3)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_known_by_name(name):
    settings = overrides.from_preset(name)
    assert settings.preset == name
    for path, value in PRESETS[name].items():
        assert flatten(settings)[path] == value
    assert settings == overrides.build(PRESETS[name] | {"preset": name})


def test_every_field_says_what_it_means():
    parts = (config.Data, config.Reconstruction, config.Train, config.Finetune, config.Eval)
    fields = [field for part in parts for field in dataclasses.fields(part)]
    assert all(field.metadata["doc"] and "\n" not in field.metadata["doc"] for field in fields)
    assert all(check_value(field.name, field, field.default) == field.default for field in fields)
