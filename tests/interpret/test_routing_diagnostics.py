"""Every number of `routing_diagnostics` against loops over images and the plain routing of `tests/routing/loops.py`."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.data import Examples
from capsnet_jax.interpret import routing_diagnostics as diagnostics
from capsnet_jax.overrides import build, override
from tests.routing.loops import loop_routing
from tests.training.test_step import CLASSES, TINY, make_examples

T = 3
SETTINGS = override(TINY, {"routing.iterations": 2, "model.weight_scale": 1.0})
EXAMPLES = make_examples(7, 3)
TARGETS = np.eye(CLASSES)[EXAMPLES.labels]


@cache
def net():
    model = models.build(SETTINGS, CLASSES)
    params, _ = models.init(model, jax.random.key(0), (8, 9, 1))
    # Untrained biases are 0 and a bias of its own gives capsules that never live.
    params["primary"]["bias"] = jnp.linspace(-0.5, 0.5, params["primary"]["bias"].size)
    return model, params


def observed(settings=SETTINGS, examples=EXAMPLES, iterations=T):
    observe = diagnostics.observe_routing(iterations)
    run = jax.jit(lambda params, examples: observe(settings, params, {}, examples, CLASSES))
    return {name: float(value) for name, value in run(net()[1], jax.device_put(examples)).items()}


def looped(targets=TARGETS) -> dict[str, float]:
    model, params = net()
    primary = np.asarray(model.apply({"params": params}, jnp.asarray(EXAMPLES.images) / 255)["primary"], np.float64)
    weights = np.asarray(params["class_capsules"]["W"], np.float64)
    rows = []
    for u, present in zip(primary, targets, strict=True):
        votes = np.einsum("ik,iokd->iod", u, weights)
        row, before = {}, None
        for t in range(1, T + 1):
            capsules, couplings, logits = loop_routing(votes, t)
            lengths = np.sqrt(np.sum(capsules**2, axis=1))
            guess = int(np.argmax(lengths))
            longest = set(np.argsort(-lengths)[: int(present.sum())])
            row[f"error_at_{t}"] = 100.0 * (longest != set(np.flatnonzero(present)))
            row[f"entropy_at_{t}"] = -np.mean(np.sum(couplings * np.log(couplings), axis=1)) / np.log(CLASSES)
            if before is not None:
                agreement = np.einsum("iod,od->io", votes, before[0])
                row[f"logit_change_at_{t}"] = np.mean(np.abs(logits - before[2]))
                row[f"logit_drift_at_{t}"] = np.mean(logits - before[2])
                row[f"coupling_change_at_{t}"] = np.mean(np.abs(couplings - before[3]))
                row[f"capsule_change_at_{t}"] = np.mean(np.linalg.norm(capsules - before[0], axis=1))
                row[f"flips_at_{t}"] = 100.0 * (guess != before[1])
                row[f"agreement_at_{t - 1}"] = np.mean(agreement[:, before[1]] - np.mean(agreement, axis=1))
            before = capsules, guess, logits, couplings
        rows.append(row)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    longest = np.max(np.linalg.norm(primary, axis=-1), axis=0)
    return means | {"dead_capsules": 100 * float(np.mean(longest < 0.1))}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [pytest.param(3, marks=pytest.mark.slow), 250])
def test_is_what_the_loops_say(batch, monkeypatch):
    monkeypatch.setattr(diagnostics, "BATCH", batch)
    expected = looped()
    assert len({round(value, 4) for value in expected.values()}) > 8  # numbers that could be told apart
    got = observed()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_the_error_is_of_all_classes_that_are_present():
    targets = np.array([np.roll([1, 1, 0], n) for n in range(len(EXAMPLES.labels))])
    expected = looped(targets)
    got = observed(examples=Examples(EXAMPLES.images, targets.astype(np.uint8)))
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert 0 < got["error_at_1"] < 100


def test_every_image_is_routed_once(monkeypatch):
    calls = []

    def count(*arguments, **keywords):
        calls.append(arguments[3].settings.iterations)
        return route_again(*arguments, **keywords)

    route_again = diagnostics.route_again
    monkeypatch.setattr(diagnostics, "route_again", count)
    observed(iterations=7)
    assert calls == [7]


def test_one_iteration_has_no_before():
    assert set(observed(iterations=1)) == {"error_at_1", "entropy_at_1", "dead_capsules"}


def test_agreement_is_told_of_routers_by_agreement_alone():
    attention = {"routing.name": "inverted_attention", "routing.squash": "sabour"}
    found = observed(override(SETTINGS, attention))
    assert "logit_change_at_3" in found
    assert not [name for name in found if name.startswith("agreement")]


def test_nothing_is_observed_unless_it_is_asked_for():
    assert diagnostics.observe_routing(0) is None


@pytest.mark.parametrize("changes", [{"routing.name": "uniform"}, {"routing.name": "learned"}], ids=str)
def test_nothing_where_nothing_iterates(changes):
    assert observed(override(SETTINGS, changes)) == {}


def test_nothing_of_a_net_that_does_not_route():
    assert observed(build({"model.name": "cnn_small"})) == {}


def test_nothing_of_a_net_that_routes_under_other_names():
    renamed = {name.replace("class_capsules", "capsules"): leaves for name, leaves in net()[1].items()}
    assert diagnostics.observe_routing(T)(SETTINGS, renamed, {}, jax.device_put(EXAMPLES), CLASSES) == {}


def test_nothing_of_no_examples():
    assert observed(examples=make_examples(0, 0)) == {}
