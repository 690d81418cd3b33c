import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.capsule_maps import trace_routing
from capsnet_jax.interpret.routing_diagnostics import with_iterations
from capsnet_jax.models.capsnet import route_again


@pytest.mark.slow
def test_the_shares_of_the_votes_are_coupled_lengths(net):
    observed = OBSERVATIONS["couplings"](net)
    assert observed["shares"].shape == (3, 3, 6, 6, 10)
    assert observed["labels"].tolist() == [0, 1, 2]
    primary = net.model.apply({"params": net.params}, jnp.asarray(observed["images"]) / 255)["primary"]
    votes = np.einsum("bik,iokd->biod", primary, net.params["class_capsules"]["W"])
    # With one iteration every parent gets a tenth; one type, so an input is a position.
    lengths = np.linalg.norm(votes, axis=-1).reshape(3, 6, 6, 10)
    np.testing.assert_allclose(observed["shares"][:, 0], lengths / 10, rtol=1e-4, atol=1e-7)
    assert np.abs(observed["shares"][:, 2] - observed["shares"][:, 0]).max() > 0
    assert observed["receptive"].tolist() == [2, 17]
    assert observed["lengths"].shape == (3, 3, 10)


@pytest.mark.slow
def test_each_iteration_of_the_trace_is_a_routing_with_so_many(net):
    images = net.data.test.images[:2]
    trace = trace_routing(net, images, 4)
    primary = net.outputs(images)["primary"]
    for t in range(1, 5):
        once = route_again(net.model, net.params, primary, with_iterations(net.config.routing, t))
        np.testing.assert_allclose(trace.couplings[:, t - 1], once.couplings, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(trace.capsules[:, t - 1], once.capsules, rtol=1e-4, atol=1e-6)
    # The network was trained with two.
    np.testing.assert_allclose(trace.couplings[:, 1], net.couplings(images), rtol=1e-4, atol=1e-6)


def test_couplings_that_do_not_iterate_are_one_iteration(net):
    config = overrides.override(net.config, {"routing.name": "uniform"})
    uniform = dataclasses.replace(net, config=config, model=models.build(config, 10))
    observed = OBSERVATIONS["couplings"](uniform)
    assert observed["shares"].shape == (3, 1, 6, 6, 10)
    np.testing.assert_allclose(trace_routing(uniform, net.data.test.images[:2], 3).couplings, 0.1, rtol=1e-6)


def test_what_does_not_route(net):
    other = dataclasses.replace(net, config=overrides.build({"model.name": "cnn_small"}))
    with pytest.raises(ConfigError, match=r"cnn_small does not route; use --set model\.name=capsnet_small"):
        trace_routing(other, net.data.test.images[:1], 3)
