import dataclasses

import pytest

from capsnet_jax import config
from capsnet_jax.bench import plan
from capsnet_jax.bench.plan import PEERS
from capsnet_jax.config import Config, ConfigError


def setting(preset="paper", **changes) -> Config:
    base = config.override(Config(), config.PRESETS[preset] | {"preset": preset} | plan.USUAL)
    return config.override(base, {path.replace("__", "."): value for path, value in changes.items()})


def groups(given, peers=PEERS, **effort):
    return {group.name: group for group in plan.groups(given, peers, plan.Effort(**effort))}


def test_everything_is_in_the_plan():
    found = groups(setting())
    assert list(found) == [
        *("training", "inference", "compile", "iterations", "batch", "classes", "side", "runs", "seeds"),
    ]
    subjects = [(w.subject, w.preset) for w in found["training"].workloads]
    assert subjects == [("capsnet_jax", "paper"), ("capsnet_jax", "small"), *((peer, "paper") for peer in PEERS)]
    assert {w.phase for w in found["training"].workloads} == {"training"}
    assert [w.subject for w in found["inference"].workloads] == ["capsnet_jax", *PEERS]
    assert {w.phase for w in found["inference"].workloads} == {"inference"}
    assert [w.subject for w in found["compile"].workloads] == ["capsnet_jax", "plain_jax"]


def test_curves_vary_one_thing_each():
    effort = plan.Effort()
    values = {"iterations": effort.iterations, "batch": effort.batches, "classes": effort.classes, "side": effort.sides}
    found = groups(setting())
    for name, points in values.items():
        for subject in ("capsnet_jax", "pytorch"):
            own = [w for w in found[name].workloads if w.subject == subject]
            assert tuple(getattr(w, name) for w in own) == points
            others = {other: {getattr(w, other) for w in own} for other in values if other != name}
            assert all(len(seen) == 1 for seen in others.values())
    presets = {name: {w.preset for w in found[name].workloads} for name in values}
    assert presets == {"iterations": {"paper"}, "batch": {"paper"}, "classes": {"small"}, "side": {"small"}}


def test_runs_share_a_program_in_both_ways():
    found = [(w.runs, w.across) for w in groups(setting())["runs"].workloads]
    assert found == [(1, "map"), (2, "map"), (5, "map"), (10, "map"), (2, "vmap"), (5, "vmap"), (10, "vmap")]


def test_without_pytorch_its_rows_are_not_asked_for():
    found = groups(setting(), peers=["plain_jax"])
    assert {w.subject for group in found.values() for w in group.workloads} == {"capsnet_jax", "plain_jax"}


def test_an_empty_curve_is_no_group():
    found = groups(setting(), iterations=(), runs=(), compile_rounds=0, seeds=0)
    assert list(found) == ["training", "inference", "batch", "classes", "side"]


def test_changes_hold_for_both_presets():
    given = (
        setting(model__channels=12, model__precision="bfloat16")
        if "model.precision" in config.paths()
        else setting(model__channels=12)
    )
    for group in groups(given).values():
        assert all(w.settings["model.channels"] == 12 for w in group.workloads)
    small = plan.rebase(given, "small")
    assert (small.preset, small.model.name, small.train.schedule) == ("small", "capsnet_small", "cosine")
    assert (small.train.batch_size, plan.rebase(small, "paper").train.batch_size) == (128, 128)
    assert plan.rebase(small, "paper") == given
    assert plan.case(given).startswith("paper model.channels=12")


def test_the_digest_tells_what_was_asked():
    group = groups(setting())["training"]
    assert group.digest == groups(setting())["training"].digest
    others = [groups(setting(train__batch_size=64))["training"], groups(setting(), rounds=4)["training"]]
    others += [groups(setting(), peers=["plain_jax"])["training"], group._replace(seconds=2.0)]
    assert len({group.digest, *(other.digest for other in others)}) == 5


def test_seeds_are_trained_for_the_efforts_epochs():
    [together] = groups(setting(), seeds=3, epochs=7)["seeds"].workloads
    assert (together.runs, together.settings["train.epochs"], together.preset) == (3, 7, "small")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"routing__name": "uniform"}, "routing.name=dynamic"),
        ({"routing__gradient": "stop"}, "routing.gradient=full"),
        ({"loss__form": "official"}, "loss.form=paper"),
        ({"data__dataset": "kmnist"}, "images are synthetic"),
        ({"model__name": "sabour_cnn"}, "with a CapsNet"),
        ({"routing__temperature": 2.0}, "routing.temperature=1"),
        ({"train__batch_size": 9000}, "lower train.batch_size"),
    ],
)
def test_settings_that_peers_do_not_know(changes, told):
    with pytest.raises(ConfigError, match=told):
        plan.check(setting(**changes))


def test_the_presets_can_be_measured():
    for preset in config.PRESETS:
        plan.check(setting(preset))
        assert dataclasses.is_dataclass(plan.rebase(setting(preset), "small"))
