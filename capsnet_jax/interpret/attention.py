"""What a trained memory network reads in single stories, hop by hop."""

import numpy as np

from capsnet_jax.config import ConfigError
from capsnet_jax.data import babi
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.interpret.targets import scores_of

STORIES = 500  # test questions of which one is shown
MOST = 12  # sentences of a story that is shown, if there is one as short


def observe_attention(net: Network) -> Observation:
    """Observe the attention to the sentences of one test question, the first that is answered rightly.

    Of questions with at most `MOST` sentences if there are any, else of all: the first with the fewest.

    Args:
        net: a memory network.

    Returns:
        "sentences", the oldest first, "question", "truth" and "answer" as text, and "attention" float32[hops,
        sentences], of networks with a question of each answer that of the answer given.

    Raises:
        ConfigError: the network has no attention.
    """
    images = np.asarray(net.data.test.images[:STORIES])
    labels = np.asarray(net.data.test.labels[:STORIES])
    out = net.outputs(images)
    if "attention" not in out:
        raise ConfigError(f"{net.config.model.name} has no attention; take a memory_network")
    answers = np.argmax(np.asarray(scores_of(out)), axis=-1)
    counts = (images[:, 1:].max(axis=(2, 3)) > 0).sum(axis=1)
    # Right ones first, then short ones (all up to MOST count as short), then the first.
    shown = np.lexsort((np.arange(len(labels)), np.maximum(counts, MOST), answers != labels))[0]
    attention = np.asarray(out["attention"][shown], np.float32)
    if attention.ndim == 3:
        attention = attention[..., answers[shown]]
    count = counts[shown]
    return {
        "sentences": np.array([_text(row) for row in images[shown, 1 : count + 1][::-1]]),
        "question": np.array(_text(images[shown, 0])),
        "truth": np.array(net.data.label_names[labels[shown]]),
        "answer": np.array(net.data.label_names[answers[shown]]),
        "attention": attention[:, :count][:, ::-1],
    }


def _text(row: np.ndarray) -> str:
    """Return the words of a sentence."""
    return " ".join(babi.VOCABULARY[number] for number in row.ravel() if 0 < number < len(babi.VOCABULARY))
