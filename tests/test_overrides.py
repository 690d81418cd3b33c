import dataclasses
import json
import math

import jax
import pytest

from capsnet_jax import config, overrides
from capsnet_jax.config import PRESETS, ConfigError, Eval, check_value
from capsnet_jax.losses import LOSSES
from capsnet_jax.models import MODELS
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.overrides import (
    RENAMED,
    all_paths,
    build,
    fields_of,
    flatten,
    format_value,
    from_preset,
    full_path,
    grid,
    identity,
    override,
    parse_setting,
    program_key,
    resolve,
    sweep_over,
)
from capsnet_jax.routing import ROUTERS

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
DEFAULT = build({})
FULL = build({"finetune.source": "kmnist"})  # every setting of this net makes a difference
# One config for every entry of a registry.
EVERY = (
    [{"model.name": name} for name in MODELS]
    + [{"routing.name": name} for name in ROUTERS]
    + [{"loss.name": name} for name in LOSSES]
)


def own_paths(settings: config.Config) -> set[str]:
    """The paths that a config has fields for, by walking over its dataclasses."""
    groups = {"data": settings.data, "model": settings.model.settings, "loss": settings.loss.settings}
    groups |= {"train": settings.train, "finetune": settings.finetune, "eval": config.Eval()}
    found = {"preset", "model.name", "loss.name"}
    if settings.routing is not None:
        groups["routing"] = settings.routing.settings
        found.add("routing.name")
    if settings.reconstruction is not None:
        found |= {f"loss.{field.name}" for field in dataclasses.fields(settings.reconstruction)}
    return found | {f"{group}.{field.name}" for group, own in groups.items() for field in dataclasses.fields(own)}


@pytest.mark.parametrize("changes", EVERY, ids=str)
def test_paths_name_every_field_once_and_lead_to_it(changes):
    settings = build(changes)
    fields, flat = fields_of(settings), flatten(settings)
    assert set(fields) == own_paths(settings)
    assert next(iter(fields)) == "preset"
    assert set(fields) <= set(all_paths())
    for path, field in fields.items():
        assert path.split(".")[-1] == field.name
        assert field.metadata["doc"]
        if path in flat:
            assert format_value(check_value(path, field, flat[path])) == format_value(flat[path])


def test_every_path_is_known_once():
    assert len(all_paths()) == len(set(all_paths()))
    assert all(full_path(path) == path for path in all_paths())


@pytest.mark.parametrize("changes", [{}, OTHER, *PRESETS.values(), *EVERY], ids=str)
def test_flatten_and_back_through_json(changes):
    settings = build(changes)
    flat = json.loads(json.dumps(flatten(settings)))
    assert build(flat) == settings
    for path, value in changes.items():
        assert flat[path] == (list(value) if isinstance(value, tuple) else value)


def test_override_changes_that_path_only_and_not_the_original():
    before = build({})
    after = override(before, {"routing.iterations": 5})
    assert before == DEFAULT
    assert flatten(after) == flatten(before) | {"routing.iterations": 5}
    assert override(before, {}) == before


def test_override_by_another_choice_drops_what_that_does_not_have():
    assert override(DEFAULT, {"routing.name": "uniform"}) == build({"routing.name": "uniform"})
    assert override(DEFAULT, {"routing.iterations": 1}) == build({"routing.iterations": 1})
    with pytest.raises(
        ConfigError, match=r"^uniform has no routing\.iterations; it has routing\.name, routing\.squash"
    ):
        override(DEFAULT, {"routing.name": "uniform", "iterations": 3})


@pytest.mark.parametrize("path", flatten(FULL))
def test_structure_changes_exactly_with_what_is_not_a_number(path, monkeypatch):
    monkeypatch.setitem(SQUASHES, "other", SQUASHES["sabour"])
    field, default = fields_of(FULL)[path], flatten(FULL)[path]
    names = {
        "preset": "paper",
        "model.name": "capsnet",
        "routing.name": "uniform",
        "loss.name": "cross_entropy",
        "train.optimizer": "muon",
        "train.schedule": "cosine",
    }
    if len(choices := list(field.metadata.get("choices") or ())) > 1:
        other = next(word for word in choices if word != default)
    elif path in names:
        other = names[path]
    elif isinstance(default, bool):
        other = not default
    elif isinstance(default, int | float):
        other = default / 2 or 0.5 if field.metadata["high"] < math.inf and isinstance(default, float) else default + 1
    else:
        other = {"model.decoder": (7,)}.get(path, "other")
    changed = override(FULL, {path: other})
    assert changed != FULL
    same = jax.tree.structure(changed) == jax.tree.structure(FULL)
    assert same == field.metadata["traced"]
    assert (program_key(changed) == program_key(FULL)) == same


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("routing.iteration", "routing.iterations"),
        ("rooting.iterations", "routing.iterations"),
        ("train.learning_rates", "train.learning_rate"),
        ("model.iterations", "routing.iterations"),
        ("datasets", "data.dataset"),
        ("LR", "train.learning_rate"),
        ("train.lr", "train.learning_rate"),
        ("Train.Batch-Size", "train.batch_size"),
        ("routin", "routing."),
        ("", ""),
    ],
)
def test_unknown_path_names_the_nearest(path, nearest):
    for use in (lambda: build({path: 1}), lambda: override(DEFAULT, {path: 1}), lambda: full_path(path)):
        with pytest.raises(ConfigError) as error:
            use()
        text = str(error.value)
        assert text.startswith(f"unknown setting {path!r}; did you mean '{nearest}")
        assert text[len(f"unknown setting {path!r}; did you mean '") : -2] in all_paths()


@pytest.mark.parametrize(
    ("short", "path"),
    [
        ("lr", "train.learning_rate"),
        ("learning_rate", "train.learning_rate"),
        ("epochs", "train.epochs"),
        ("batch_size", "train.batch_size"),
        ("iterations", "routing.iterations"),
        ("dataset", "data.dataset"),
        ("model", "model.name"),
        ("routing", "routing.name"),
        ("loss", "loss.name"),
        ("source", "finetune.source"),
        ("max_routing_iterations", "eval.max_routing_iterations"),
    ],
)
def test_short_names(short, path):
    assert full_path(short) == path
    assert parse_setting(f"{short}=7") == (path, ["7"])


@pytest.mark.parametrize(
    ("short", "candidates"),
    [("name", "model.name, routing.name, loss.name"), ("squash", "model.squash, routing.squash")],
)
def test_a_short_name_of_several_settings_lists_them(short, candidates):
    with pytest.raises(ConfigError) as error:
        full_path(short)
    assert str(error.value) == f"{short} is the name of several settings: {candidates}"


@pytest.mark.parametrize("old", ["shift", "variant", "digit_dim", "probe", "floor", "average", "fresh", "rate"])
def test_an_old_short_name_is_answered_with_the_new_name(old):
    [new] = [new for path, new in RENAMED.items() if path.endswith(f".{old}")]
    with pytest.raises(ConfigError, match=rf"^{old} is now called {new}$"):
        full_path(old)


@pytest.mark.parametrize("old", RENAMED)
def test_old_names_answer_with_the_new_one(old):
    assert RENAMED[old] in all_paths()
    for use in (lambda: build({old: 1}), lambda: parse_setting(f"{old}=1")):
        with pytest.raises(ConfigError) as error:
            use()
        assert str(error.value) == f"{old} is now called {RENAMED[old]}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "resnet8", "routing.iterations": 2}, "resnet8 has no routing.iterations; it does not route"),
        (
            {"model.name": "resnet8", "loss.reconstruction": True},
            "resnet8 has no loss.reconstruction; it has no decoder",
        ),
        ({"model.name": "resnet8", "loss.m_plus": 0.8}, "cross_entropy has no loss.m_plus; it has loss.name"),
        (
            {"model.name": "resnet8", "model.channels": 8},
            "resnet8 has no model.channels; it has model.name, model.stem, model.precision, model.head",
        ),
        (
            {"routing.name": "uniform", "routing.gradient": "stop"},
            "uniform has no routing.gradient; it has routing.name, routing.squash",
        ),
        (
            {"routing.iterations": 1, "routing.gradient": "stop"},
            "routing.gradient (through all iterations, or the last only) makes no difference with routing.name,"
            " routing.iterations, routing.softmax_over, routing.leaky, routing.bias, routing.squash as they are;"
            " leave it out",
        ),
    ],
)
def test_what_a_net_does_not_have_is_one_clear_line(changes, message):
    with pytest.raises(ConfigError) as error:
        build(changes)
    assert str(error.value) == message
    *_, refused = changes
    assert resolve(changes).unused == [refused]


def test_unknown_names_are_refused_before_anything_else():
    for path in ("model.name", "routing.name", "loss.name", "train.optimizer", "train.schedule", "preset"):
        for value in ("nothing", 5):
            with pytest.raises(ConfigError, match=f"^{path} has no {value!r}; did you mean "):
                build({path: value})


def test_what_is_observed_and_what_makes_no_difference_is_no_part_of_a_config():
    resolved = resolve({"eval.max_routing_iterations": 7})
    assert resolved.observed.max_routing_iterations == 7
    assert (resolved.config, resolved.unused) == (DEFAULT, [])
    once = {"routing.iterations": 1}
    assert resolve(once | {"routing.temperature": 2.0}).config == resolve(once).config
    assert "routing.temperature" not in flatten(build(once))


def test_identity_is_names_and_what_is_not_as_its_choice_has_it():
    names = {"model.name": "capsnet_small", "routing.name": "dynamic", "loss.name": "margin"}
    assert identity(DEFAULT) == names
    assert identity(build({"routing.iterations": 3, "train.epochs": 7})) == names | {"train.epochs": 7}
    assert identity(build({"model.name": "resnet8"})) == {"model.name": "resnet8", "loss.name": "cross_entropy"}
    # A net's own default is no part of its identity, whatever another's is.
    assert "model.channels" not in identity(build({"model.name": "capsnet"}))
    assert identity(build({"model.channels": 256}))["model.channels"] == 256


def test_the_model_says_the_loss_unless_it_is_asked_for():
    assert build({"model.name": "resnet8"}).loss.name == "cross_entropy"
    assert build({"model.name": "capsnet"}).loss.name == "margin"
    chosen = build({"model.name": "resnet8", "loss.name": "margin", "loss.m_plus": 0.8})
    assert chosen.loss.settings.m_plus == 0.8


def test_a_preset_and_changes_on_top():
    settings = from_preset("paper", {"lr": "0.5", "model.kernel": 5})
    assert (settings.preset, settings.model.name) == ("paper", "capsnet")
    assert flatten(settings) == flatten(from_preset("paper")) | {"train.learning_rate": 0.5, "model.kernel": 5}


def test_settings_are_described_with_the_values_in_force():
    resolved = resolve(PRESETS["small"] | {"eval.max_routing_iterations": 4})
    lines = overrides.describe_settings(resolved.config, resolved.observed).splitlines()
    paths = [line.split("=")[0] for line in lines]
    assert paths == list(dict.fromkeys(paths))
    assert set(paths) == set(flatten(resolved.config)) | {f"eval.{field.name}" for field in dataclasses.fields(Eval)}
    told = dict(zip(paths, lines, strict=True))
    assert told["train.learning_rate"].startswith("train.learning_rate=0.003 ")
    assert told["eval.max_routing_iterations"].startswith("eval.max_routing_iterations=4 ")
    assert told["routing.name"].endswith(f"(one of {', '.join(ROUTERS)})")
    assert "train.decay_rate" not in told  # the schedule is cosine


def test_parse_setting():
    assert parse_setting("routing.iterations=1,2, 5") == ("routing.iterations", ["1", "2", "5"])
    assert parse_setting(" data.dataset = mnist ") == ("data.dataset", ["mnist"])
    assert parse_setting("model.decoder=8x16,8") == ("model.decoder", ["8x16", "8"])


@pytest.mark.parametrize("text", ["routing.iterations", "routing.iterations=", "", "="])
def test_what_is_not_a_setting(text):
    with pytest.raises(ConfigError) as error:
        parse_setting(text)
    assert str(error.value) == (f"{text!r} is not a setting; write path=value, for example routing.iterations=3")


@pytest.mark.parametrize("text", ["routing.iterations=1,,2", "routing.iterations=1,", "data.dataset= ", "model=,vgg_a"])
def test_an_empty_value_is_not_asked_for(text):
    with pytest.raises(ConfigError) as error:
        parse_setting(text)
    assert str(error.value) == f"{text!r} has an empty value; write path=value,value"


def test_one_bad_value_among_good_ones():
    path, texts = parse_setting("routing.iterations=1,x")
    with pytest.raises(ConfigError, match=r"^routing\.iterations takes a whole number"):
        [build({path: text}) for text in texts]
    with pytest.raises(ConfigError, match=r"^unknown setting 'nothing'"):
        parse_setting("nothing=1")


@pytest.mark.parametrize("value", [3, 0.5, 1e-30, True, False, "mnist", (512, 1024), [8]])
def test_format_value_is_what_is_read_back(value):
    kinds = {int: "train.epochs", float: "loss.m_plus", bool: "loss.reconstruction", str: "data.dataset"}
    path = kinds.get(type(value), "model.decoder")
    parsed = check_value(path, fields_of(DEFAULT)[path], format_value(value))
    assert parsed == (tuple(value) if isinstance(value, list) else value)


def test_none_is_spelled_none():
    assert format_value(None) == "none"


def test_grid_is_every_combination_with_the_last_path_fastest():
    assert grid({"routing.iterations": [1, 3], "routing.gradient": ["full", "stop"]}) == [
        {"routing.iterations": 1, "routing.gradient": "full"},
        {"routing.iterations": 1, "routing.gradient": "stop"},
        {"routing.iterations": 3, "routing.gradient": "full"},
        {"routing.iterations": 3, "routing.gradient": "stop"},
    ]
    assert grid({}) == [{}]
    with pytest.raises(ConfigError, match=r"^1,000,000,000 runs are asked for"):
        grid(dict.fromkeys("abc", range(1000)))


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
