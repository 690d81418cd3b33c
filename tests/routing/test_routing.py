import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import config
from capsnet_jax.routing import PRIORS, ROUTERS, matters, settings_of


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_couplings_are_shares_among_the_parents(name, scale):
    settings = settings_of(config.Routing(name=name))
    votes = scale * jax.random.normal(jax.random.key(0), (7, 3, 4))
    if name in PRIORS:
        settings["prior"] = PRIORS[name](jax.random.key(1), (7, 3))
    routing = jax.jit(lambda votes: ROUTERS[name](votes, **settings))(votes)
    assert routing.couplings.shape == routing.logits.shape == (7, 3)
    assert float(routing.couplings.min()) >= 0
    np.testing.assert_allclose(jnp.sum(routing.couplings, axis=1), np.ones(7), atol=1e-6)
    assert float(jnp.linalg.norm(routing.capsules, axis=-1).max()) < 1 + 1e-6
    assert jnp.isfinite(routing.capsules).all()
    # The couplings are the softmax of the logits, at temperature 1.
    np.testing.assert_allclose(routing.couplings, jax.nn.softmax(routing.logits, axis=1), atol=1e-6)


def test_settings_are_those_that_the_signature_names():
    own = {"iterations": 2, "gradient": "stop", "temperature": 0.5, "softmax_over": "inputs"}
    assert settings_of(config.Routing(name="dynamic", **own)) == own
    for name in ("uniform", "learned", "random"):
        assert settings_of(config.Routing(name=name, **own)) == {}


def test_a_new_router_gets_what_it_names(monkeypatch):
    monkeypatch.setitem(ROUTERS, "mine", lambda votes, *, temperature, unrelated=0: None)
    assert settings_of(config.Routing(name="mine", temperature=2.0)) == {"temperature": 2.0}
    assert matters("routing.temperature", {"routing.name": "mine"})
    assert not matters("routing.iterations", {"routing.name": "mine"})


@pytest.mark.parametrize(
    ("path", "settings", "does"),
    [
        ("train.epochs", {"routing.name": "learned"}, True),
        ("routing.iterations", {"routing.name": "dynamic"}, True),
        ("routing.iterations", {}, True),
        ("routing.iterations", {"routing.name": "learned"}, False),
        ("routing.name", {"routing.name": "learned"}, True),
        ("routing.iterations", {"routing.name": "removed since"}, True),
        ("routing.iterations", {"routing.name": "dynamic", "model.name": "resnet8"}, False),
        ("routing.iterations", {"routing.name": "dynamic", "model.name": "capsnet_small"}, True),
    ],
)
def test_what_matters_beside_other_settings(path, settings, does):
    assert matters(path, settings) is does


def test_priors_begin_as_their_routers_say():
    assert not PRIORS["learned"](jax.random.key(0), (40, 10)).any()
    drawn = np.asarray(PRIORS["random"](jax.random.key(0), (400, 10)))
    # Standard normal; 4,000 draws know mean and deviation to 0.016 and 0.011.
    assert abs(drawn.mean()) < 0.08
    assert abs(drawn.std() - 1) < 0.06
