"""MemN2N: Sukhbaatar et al. 2015, "End-To-End Memory Networks" (arXiv:1503.08895), and what routing has to do with it.

A question looks through memories in hops: it is compared with the key of each, and reads a weighted mean of their
values, which is added to it. With a question of each parent, keys and values that are the votes for it, and shares
among parents in place of shares among memories, a hop is an iteration of routing by agreement (`hops`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import normal
from jaxtyping import Array, Bool, Float, Int

from capsnet_jax.config import pytree_dataclass, static

WORD_NUMBERS = 255  # images in [0, 1] times this are numbers of words
START = normal(0.1)  # of all embeddings


@pytree_dataclass
class MemoryNetworkSettings:
    """Sizes of a memory network and what it does beside hopping; the defaults are the paper's of 1,000 questions."""

    dim: int = static(20, low=1, doc="d: of embeddings")
    hops: int = static(3, low=1, high=20, doc="times that memories are read")
    other_words: int = static(29, low=1, high=254, doc="words beside the answers; bAbI's first three tasks have 29")
    tying: str = static(
        "adjacent",
        choices=("adjacent", "layerwise"),
        doc="a hop's keys are the values of the one before; or all hops share keys, values and a matrix H",
    )
    positions: bool = static(True, doc="words weigh by their place in the sentence")
    time_noise: float = static(0.1, low=0, high=1, doc="part of memories by which ages are blurred in training")
    linear_start: float = static(0.2, low=0, high=1, doc="part of training in which attention has no softmax")
    questions: str = static("one", choices=("one", "answers"), doc="one question, or one of each possible answer")
    softmax_over: str = static(
        "memories",
        choices=("memories", "answers"),
        only_if=lambda settings: settings.questions == "answers",
        doc="what shares sum to 1 over: of a question, or, as in routing, of a memory",
    )


class Hop(NamedTuple):
    """What a hop reads, of one example.

    Attributes:
        read: o, of each question.
        shares: p, of each memory in each question.
        scores: what the shares came from.
    """

    read: Float[Array, "questions dim"]
    shares: Float[Array, "memories questions"]
    scores: Float[Array, "memories questions"]


def attend(
    questions: Float[Array, "questions dim"],
    keys: Float[Array, "memories questions dim"],
    values: Float[Array, "memories questions dim"],
    share: Callable[[Array], Array],
) -> Hop:
    """Read memories: o_q = Σ_i p_iq c_iq with p = share(u_q · m_iq).

    Args:
        questions: u.
        keys: m, what a question is compared with; each question may see its own.
        values: c, what it reads.
        share: from scores to shares, both [memories, questions].
    """
    scores = jnp.einsum("iqd,qd->iq", keys, questions)
    shares = share(scores)
    return Hop(jnp.einsum("iq,iqd->qd", shares, values), shares, scores)


def hops(
    questions: Float[Array, "questions dim"],
    memories: list[tuple[Array, Array]],
    share: Callable[[Array], Array],
    *,
    matrix: Float[Array, "dim dim"] | None = None,
    read: Callable[[Array], Array] = lambda o: o,
) -> tuple[Float[Array, "questions dim"], list[Hop]]:
    """Read memories hop by hop: u ← H u + read(o).

    Questions that start at 0, keys and values that are the votes û, one share of each vote among parents, and a `read`
    that squashes are routing by agreement: its logits b_io = û_io · Σ_t v_o^t are the scores, its parents what is read.

    Args:
        questions: u, before the first hop.
        memories: (keys, values) of each hop, as of `attend`.
        share: from scores to shares.
        matrix: H; None: the identity.
        read: of what is read.

    Returns:
        u after the last hop, and each hop with its `read`.
    """
    steps = []
    for keys, values in memories:
        step = attend(questions, keys, values, share)
        step = step._replace(read=read(step.read))
        questions = (questions if matrix is None else questions @ matrix.T) + step.read
        steps.append(step)
    return questions, steps


class MemoryNetwork(nn.Module):
    """Sentences and a question to an answer.

    `words` are tables of embeddings, float[tables, vocabulary, dim], and `ages` of how old a sentence is, float[tables,
    memories, dim]. With adjacent tying there are hops + 1 of both: table k holds the keys of hop k + 1 and the values
    of hop k, the first also embeds the question, and the last answers. With layer-wise tying `words` embed question,
    keys, values and answers, `ages` belong to keys and values, and H is float[1, dim, dim].

    Attributes:
        classes: number of answers; that of number k is word k + 1, and word 0 is none.
        dim: d, of embeddings.
        hops: times that memories are read.
        other_words: words with higher numbers; those above them count for nothing.
        tying: "adjacent" or "layerwise".
        positions: whether word j of J weighs l_kj = (1 − j/J) − (k/d)(1 − 2j/J) in dimension k; otherwise all weigh 1.
        time_noise: in training, the ages of n memories are those that n of them have among up to this part more.
        linear_start: in this part of training's steps, scores are shares as they are; if it is 1, for ever.
        questions: "one", or "answers": each answer asks for itself, by the question plus its own embedding.
        softmax_over: "memories" or "answers".
    """

    classes: int = 6
    dim: int = 20
    hops: int = 3
    other_words: int = 29
    tying: str = "adjacent"
    positions: bool = True
    time_noise: float = 0.1
    linear_start: float = 0.2
    questions: str = "one"
    softmax_over: str = "memories"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch rows words channels"],
        *,
        train: bool = False,
        progress: Float[Array, ""] | float = 1.0,
    ) -> dict[str, Any]:
        """Answer questions.

        Args:
            images: numbers of words over 255, as `to_float` makes them of `data.babi`'s: the question's row, then
                sentences, the newest first. Several channels are words behind one another.
            train: whether ages are blurred.
            progress: part of training's steps that are done.

        Returns:
            "question" [batch, dim], "attention" [batch, hops, memories], or with questions of answers [batch, hops,
            memories, answers], and "logits" [batch, classes].
        """
        words = jnp.round(images * WORD_NUMBERS).astype(jnp.int32).reshape(*images.shape[:2], -1)
        there = jnp.any(words[:, 1:] > 0, axis=-1)
        adjacent, vocabulary = self.tying == "adjacent", 1 + self.classes + self.other_words
        tables = Tables(self.hops + 1 if adjacent else 4, vocabulary, self.dim, name="words")()
        ages = Tables(self.hops + 1 if adjacent else 2, there.shape[1], self.dim, name="ages")()
        matrix = None if adjacent else Tables(1, self.dim, self.dim, name="H")()[0]

        one_hot = jax.nn.one_hot(words, vocabulary)[..., 1:]  # word 0 is none
        weights = word_weights(words, self.dim) if self.positions else jnp.ones((*words.shape, self.dim))
        embedded = jnp.einsum("bswv,tvd,bswd->tbsd", one_hot, tables[:, 1:], weights)
        question, sentences = embedded[0, :, 0], embedded[:, :, 1:] if adjacent else embedded[1:3, :, 1:]
        if train and self.time_noise:
            sentences += ages[:, blurred_ages(self.make_rng("dropout"), there, self.time_noise)]
        else:
            sentences += ages[:, None]

        answers = tables[-1, 1 : self.classes + 1]
        asked = question[:, None]
        if self.questions == "answers":
            asked = asked + answers[None]
        linear = self.linear_start == 1 or progress < self.linear_start
        share = partial(share_attention, over=self.softmax_over, linear=linear)
        read = [(k, k + 1) if adjacent else (0, 1) for k in range(self.hops)]

        def of_example(asked: Array, sentences: Array, there: Array) -> tuple[Array, list[Hop]]:
            each = jnp.broadcast_to(sentences[:, :, None], (*sentences.shape[:2], len(asked), self.dim))
            memories = [(each[keys], each[values]) for keys, values in read]
            return hops(asked, memories, partial(share, there=there), matrix=matrix)

        answered, steps = jax.vmap(of_example)(asked, sentences.transpose(1, 0, 2, 3), there)
        attention = jnp.stack([step.shares for step in steps], axis=1)
        if self.questions == "answers":
            logits = jnp.einsum("bcd,cd->bc", answered, answers)
        else:
            logits, attention = answered[:, 0] @ answers.T, attention[..., 0]
        return {"question": question, "attention": attention, "logits": logits}


class Tables(nn.Module):
    """Several tables; parameter `embedding` float[tables, rows, dim]."""

    tables: int
    rows: int
    dim: int

    @nn.compact
    def __call__(self) -> Float[Array, "tables rows dim"]:
        """Return the tables."""
        return self.param("embedding", START, (self.tables, self.rows, self.dim))


def share_attention(
    scores: Float[Array, "memories questions"],
    *,
    there: Bool[Array, "memories"],
    over: str = "memories",
    linear: bool | Bool[Array, ""] = False,
) -> Float[Array, "memories questions"]:
    """Return the softmax of scores, 0 where there is no memory.

    Args:
        scores: of each memory in each question.
        there: which memories there are.
        over: "memories", which share a question, or "answers", the questions that share a memory.
        linear: whether the scores are the shares, as at the start of training.
    """
    here = there[:, None]
    shares = jax.nn.softmax(jnp.where(here, scores, -1e9), axis=0 if over == "memories" else 1)
    return jnp.where(here, jnp.where(linear, scores, shares), 0)


def word_weights(words: Int[Array, "*batch words"], dim: int) -> Float[Array, "*batch words dim"]:
    """Return l_kj = (1 − j/J) − (k/d)(1 − 2j/J) for word j of J and dimension k of d, both counted from 1."""
    length = jnp.maximum(jnp.sum(words > 0, axis=-1), 1)[..., None, None]
    axes = tuple(range(words.ndim - 1))
    place = jnp.expand_dims(jnp.arange(words.shape[-1]) + 1, (*axes, words.ndim)) / length
    part = jnp.expand_dims((jnp.arange(dim) + 1) / dim, (*axes, words.ndim - 1))
    return (1 - place) - part * (1 - 2 * place)


def blurred_ages(key: Array, there: Bool[Array, "batch memories"], noise: float) -> Int[Array, "batch memories"]:
    """Draw the ages of memories, the newest first, as if some were left out between them.

    Of n memories and a random number of others, up to ⌈noise · n⌉, a random n are kept, and have the ages they had.
    """
    memories = there.shape[-1]
    most = memories + int(-(-noise * memories // 1))

    def of_example(key: Array, there: Array) -> Array:
        count_key, draw_key = jax.random.split(key)
        count = jnp.sum(there)
        extra = jax.random.randint(count_key, (), 0, jnp.ceil(noise * count).astype(jnp.int32) + 1)
        draws = jnp.where(jnp.arange(most) < count + extra, jax.random.uniform(draw_key, (most,)), jnp.inf)
        kept = jnp.argsort(jnp.argsort(draws)) < count
        ages = jnp.sort(jnp.where(kept, jnp.arange(most), most))[:memories]
        return jnp.minimum(ages, memories - 1)

    return jax.vmap(of_example)(jax.random.split(key, len(there)), there)
