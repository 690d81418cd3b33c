from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.data import Examples, babi
from capsnet_jax.interpret.attention import observe_attention
from capsnet_jax.interpret.network import Network

WENT = [["mary", "went", "to", "the", room] for room in babi.ROOMS]
ASKED = [
    babi.Question(WENT * 3, ["where", "is", "mary"], "office"),  # long
    babi.Question(WENT[:2], ["where", "is", "mary"], "garden"),  # answered wrongly
    babi.Question(WENT[:3], ["where", "is", "john"], "kitchen"),
    babi.Question(WENT[:1], ["where", "is", "sandra"], "kitchen"),
]
GIVEN = [5, 0, 4, 4]  # answers


def network(answers=1):
    attention = np.zeros((4, 2, 50, answers), np.float32)
    attention[2, 0, 0, answers - 2], attention[2, 1, 2, answers - 2] = 0.25, 0.5
    outputs = {"logits": jnp.eye(6)[jnp.array(GIVEN)], "attention": attention if answers > 1 else attention[..., 0]}
    return fake(outputs, "memory_network")


def fake(outputs, model):
    """A network that gives these outputs, whatever it is asked."""
    examples = babi.encode(ASKED)
    net = object.__new__(Network)
    vars(net).update(
        data=SimpleNamespace(test=Examples(examples.images, examples.labels), label_names=babi.ROOMS),
        outputs=lambda images: outputs,
        config=SimpleNamespace(model=SimpleNamespace(name=model)),
    )
    return net


@pytest.mark.parametrize("answers", [1, 6])
def test_the_first_short_story_that_is_understood_is_shown(answers):
    """Of each answer's questions the one of the answer given: kitchen, number 4 of 6."""
    seen = observe_attention(network(answers))
    assert seen["sentences"].tolist() == [" ".join(sentence) for sentence in WENT[:3]]
    assert (str(seen["question"]), str(seen["truth"]), str(seen["answer"])) == ("where is john", "kitchen", "kitchen")
    # The newest sentence is the network's first memory, and stands last here.
    np.testing.assert_array_equal(seen["attention"], [[0, 0, 0.25], [0.5, 0, 0]])


def test_a_net_without_attention_is_told():
    net = fake({"logits": np.eye(6)[GIVEN]}, "cnn_small")
    with pytest.raises(ConfigError, match="cnn_small has no attention; take a memory_network"):
        observe_attention(net)
