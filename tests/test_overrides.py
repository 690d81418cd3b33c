import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.overrides import grid, parse, parse_setting, spell, sweep_over


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
        ("model.decoder", "none", None),
        ("model.kernel", "None", None),
        ("model.kernel", "5", 5),
    ],
)
def test_parse(path, text, value):
    parsed = parse(path, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("routing.iterations", "three"),
        ("routing.iterations", "3.0"),
        ("routing.iterations", "none"),
        ("routing.iterations", ""),
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
    ],
)
def test_parse_says_what_the_path_takes(path, text):
    with pytest.raises(ConfigError, match=f"^{path} takes ") as error:
        parse(path, text)
    assert "\n" not in str(error.value)


def test_parse_setting():
    assert parse_setting("routing.iterations=1,2, 5") == ("routing.iterations", [1, 2, 5])
    assert parse_setting(" data.dataset = mnist ") == ("data.dataset", ["mnist"])
    assert parse_setting("model.decoder=8x16,none") == ("model.decoder", [(8, 16), None])


@pytest.mark.parametrize("text", ["routing.iterations", "routing.iterations=", "", "="])
def test_what_is_not_a_setting(text):
    with pytest.raises(ConfigError) as error:
        parse_setting(text)
    assert str(error.value) == (f"{text!r} is not a setting; write path=value, for example routing.iterations=3")


@pytest.mark.parametrize("text", ["routing.iterations=1,,2", "routing.iterations=1,", "routing.iterations=x,1"])
def test_one_bad_value_among_good_ones(text):
    with pytest.raises(ConfigError, match=r"^routing\.iterations takes a whole number"):
        parse_setting(text)
    with pytest.raises(ConfigError, match=r"^unknown setting 'nothing'"):
        parse_setting("nothing=1")


@pytest.mark.parametrize("text", ["data.dataset= ", "data.dataset=mnist,", "data.dataset=,mnist"])
def test_a_dataset_without_a_name_is_not_asked_for(text):
    with pytest.raises(ConfigError):
        parse_setting(text)


@pytest.mark.parametrize("value", [3, 0.5, True, False, None, "mnist", (512, 1024), [8]])
def test_spell_is_what_parse_reads(value):
    kinds = {int: "train.epochs", float: "loss.m_plus", bool: "loss.reconstruction", str: "data.dataset"}
    path = kinds.get(type(value), "model.decoder")
    parsed = parse(path, spell(value))
    assert parsed == (tuple(value) if isinstance(value, list) else value)


def test_grid_is_every_combination_with_the_last_path_fastest():
    assert grid({"routing.iterations": [1, 3], "routing.gradient": ["full", "stop"]}) == [
        {"routing.iterations": 1, "routing.gradient": "full"},
        {"routing.iterations": 1, "routing.gradient": "stop"},
        {"routing.iterations": 3, "routing.gradient": "full"},
        {"routing.iterations": 3, "routing.gradient": "stop"},
    ]
    assert grid({}) == [{}]


def test_sweep_over_replaces_and_joins_arms():
    arms = grid({"routing.iterations": [1, 3], "routing.gradient": ["full", "stop"]})
    # Arms that differed only in what is swept become one.
    assert sweep_over(arms, {"routing.iterations": [2, 5]}) == [
        {"routing.gradient": "full", "routing.iterations": 2},
        {"routing.gradient": "full", "routing.iterations": 5},
        {"routing.gradient": "stop", "routing.iterations": 2},
        {"routing.gradient": "stop", "routing.iterations": 5},
    ]
    # A path that no arm has multiplies them.
    doubled = sweep_over(arms, {"train.learning_rate": [0.1, 0.2]})
    assert len(doubled) == 8
    assert doubled[1] == {"routing.iterations": 1, "routing.gradient": "full", "train.learning_rate": 0.2}
    assert sweep_over(arms, {}) == arms
    assert sweep_over([{}], {"loss.m_plus": [0.8], "loss.m_minus": [0.1, 0.2]}) == [
        {"loss.m_plus": 0.8, "loss.m_minus": 0.1},
        {"loss.m_plus": 0.8, "loss.m_minus": 0.2},
    ]
