import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from capsnet_jax import config
from capsnet_jax.config import (
    PRESETS,
    Config,
    ConfigError,
    check,
    check_word,
    flatten,
    override,
    paths,
    unflatten,
)

# Another valid value for every kind of field.
OTHER = {
    "preset": "paper",
    "data.dataset": "mnist",
    "data.validation_fraction": 0.25,
    "model.decoder": (512, 1024),
    "model.kernel": 5,
    "routing.gradient": "stop",
    "routing.temperature": 0.3,
    "loss.reconstruction": False,
    "train.epochs": 3,
}


def test_paths_name_every_field_once_and_lead_to_it():
    found = paths()
    leaves = sum(len(dataclasses.fields(part)) for part in (config.Data, config.Model, config.Routing))
    leaves += sum(len(dataclasses.fields(part)) for part in (config.Loss, config.Train, config.Transfer)) + 1  # preset
    assert len(found) == leaves
    assert next(iter(found)) == "preset"
    for path, field in found.items():
        assert path.split(".")[-1] == field.name
        assert field.metadata["doc"]
        assert check(path, flatten(Config())[path]) == field.default


def test_defaults_of_the_paper():
    flat = flatten(Config())
    assert [flat[f"loss.{name}"] for name in ("m_plus", "m_minus", "down_weight")] == [0.9, 0.1, 0.5]
    assert flat["loss.reconstruction_weight"] == 0.0005
    assert flat["train.batch_size"] == 128
    assert flat["data.shift"] == 2
    assert flat["routing.iterations"] == 3


@pytest.mark.parametrize("changes", [{}, OTHER, *PRESETS.values()])
def test_flatten_and_back_through_json(changes):
    settings = override(Config(), changes)
    flat = json.loads(json.dumps(flatten(settings)))
    assert unflatten(flat) == settings
    assert list(flat) == list(paths())
    for path, value in changes.items():
        assert flat[path] == (list(value) if isinstance(value, tuple) else value)


def test_override_changes_that_path_only_and_not_the_original():
    before = Config()
    after = override(before, {"routing.iterations": 5})
    assert before == Config()
    assert flatten(after) == flatten(before) | {"routing.iterations": 5}
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.preset = "paper"


@pytest.mark.parametrize("path", paths())
def test_structure_changes_exactly_with_what_is_not_a_number(path):
    field, default = paths()[path], flatten(Config())[path]
    if field.metadata.get("among"):
        other = next(word for word in field.metadata["among"] if word != default)
    elif isinstance(default, bool):
        other = not default
    elif isinstance(default, int | float):
        other = default / 2 or 0.5 if field.metadata["high"] < math.inf and isinstance(default, float) else default + 1
    else:
        other = {"model.decoder": (7,)}.get(path, 7 if default is None else "other")
    changed = override(Config(), {path: other})
    assert changed != Config()
    same = jax.tree.structure(changed) == jax.tree.structure(Config())
    assert same == field.metadata["traced"]


def test_numbers_are_the_leaves_and_can_be_traced():
    leaves = jax.tree.leaves(Config())
    assert len(leaves) == sum(field.metadata["traced"] for field in paths().values())
    assert all(type(leaf) is float for leaf in leaves)

    @jax.jit
    def product(settings):
        assert settings.train.batch_size == 128  # static inside
        return settings.train.learning_rate * settings.loss.m_plus

    settings = override(Config(), {"train.learning_rate": 0.25, "loss.m_plus": 0.5})
    assert float(product(settings)) == 0.125
    doubled = jax.tree.map(lambda leaf: jnp.asarray(leaf) * 2, settings)
    assert float(product(doubled)) == 0.5
    assert product._cache_size() <= 2  # one a kind of leaf, none a value
    assert float(product(override(settings, {"train.learning_rate": 0.5}))) == 0.25
    assert product._cache_size() <= 2


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("routing.iteration", "routing.iterations"),
        ("iterations", "routing.iterations"),
        ("rooting.iterations", "routing.iterations"),
        ("train.learning_rates", "train.learning_rate"),
        ("model.iterations", "routing.iterations"),
        ("dataset", "data.dataset"),
        ("routing", "routing."),
        ("", ""),
    ],
)
def test_unknown_path_names_the_nearest(path, nearest):
    for use in (lambda: override(Config(), {path: 1}), lambda: check(path, 1)):
        with pytest.raises(ConfigError) as error:
            use()
        text = str(error.value)
        start = f"unknown setting {path!r}; did you mean '{nearest}"
        assert text.startswith(start)
        assert text[len(f"unknown setting {path!r}; did you mean '") : -2] in paths()


@pytest.mark.parametrize(
    ("path", "value", "takes"),
    [
        ("routing.iterations", 2.0, "a whole number from 1 to 100, not 2.0"),
        ("routing.iterations", "3", "a whole number from 1 to 100, not '3'"),
        ("routing.iterations", True, "a whole number from 1 to 100, not True"),
        ("routing.iterations", None, "a whole number from 1 to 100, not None"),
        ("routing.iterations", 0, "a whole number from 1 to 100, not 0"),
        ("routing.iterations", 101, "a whole number from 1 to 100, not 101"),
        ("train.epochs", -1, "a whole number of at least 1, not -1"),
        ("loss.m_plus", 1.5, "a number from 0 to 1, not 1.5"),
        ("loss.m_plus", "0.9", "a number from 0 to 1, not '0.9'"),
        ("loss.m_plus", True, "a number from 0 to 1, not True"),
        ("train.learning_rate", math.nan, "a number of at least 0, not nan"),
        ("train.learning_rate", math.inf, "a number of at least 0, not inf"),
        ("train.learning_rate", -1e-9, "a number of at least 0, not -1e-09"),
        ("loss.reconstruction", 1, "true or false, not 1"),
        ("loss.reconstruction", "true", "true or false, not 'true'"),
        ("routing.gradient", "half", "one of full, stop, not 'half'"),
        ("data.dataset", 5, "a word, not 5"),
        ("model.decoder", 512, "whole numbers as 512x1024 of at least 1, or none, not 512"),
        ("model.decoder", [512, 0], "whole numbers as 512x1024 of at least 1, or none, not [512, 0]"),
        ("model.decoder", [512.0], "whole numbers as 512x1024 of at least 1, or none, not [512.0]"),
        ("model.decoder", "512x1024", "whole numbers as 512x1024 of at least 1, or none, not '512x1024'"),
    ],
)
def test_wrong_value(path, value, takes):
    with pytest.raises(ConfigError) as error:
        override(Config(), {path: value})
    assert str(error.value) == f"{path} takes {takes}"


def test_a_word_that_is_not_there_names_the_nearest():
    check_word("routing.name", "random", ["dynamic", "random"])
    for word in ("randon", ""):
        with pytest.raises(ConfigError) as error:
            check_word("routing.name", word, ["dynamic", "random"])
        text = str(error.value)
        assert text.startswith(f"routing.name has no {word!r}; did you mean ")
        assert text.endswith("? There are: dynamic, random")
        assert word == "" or "did you mean 'random'?" in text


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_known_by_name(name):
    settings = override(Config(), PRESETS[name] | {"preset": name})
    assert settings.preset == name
    for path, value in PRESETS[name].items():
        assert flatten(settings)[path] == value


def test_every_preset_can_be_the_preset():
    assert set(paths()["preset"].metadata["among"]) == set(PRESETS)
