import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.report.answers import read_scores, scores_of

NAMES = tuple("abcdefg")


def said(*scores, shown=1):
    return read_scores(np.array(scores), NAMES[: len(scores)], shown)


@pytest.mark.parametrize(
    ("scores", "unsure"),
    [
        ((0.9, 0.1, 0.1), ""),
        ((0.51, 0.40, 0.0), ""),
        ((0.49, 0.0, 0.0), "its score is below 0.5"),
        ((0.9, 0.2, 0.81), "its score is less than 0.1 above that of c"),
        ((np.nan, np.nan, np.nan), "its score is below 0.5"),
        ((0.7,), ""),
    ],
)
def test_an_answer_is_unsure_below_a_half_or_close_to_the_next(scores, unsure):
    assert said(*scores).unsure == unsure


def test_the_five_best_classes_are_told_in_their_order():
    answer = said(0.1, 0.6, 0.2, 0.0, 0.3, 0.05, 0.4)
    assert (answer.label, answer.confidence) == ("b", 0.6)
    assert answer.top == [("b", 0.6), ("g", 0.4), ("e", 0.3), ("c", 0.2), ("a", 0.1)]


def test_of_images_of_two_the_lesser_counts():
    answer = said(0.9, 0.1, 0.88, shown=2)
    assert (answer.label, answer.confidence, answer.unsure) == ("a and c", 0.88, "")
    assert said(0.9, 0.6, 0.55, shown=2).unsure == "its score is less than 0.1 above that of c"


def test_scores_are_lengths_or_probabilities():
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    np.testing.assert_allclose(scores_of({"logits": logits}), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)
    assert scores_of({"logits": logits, "lengths": "as they are"}) == "as they are"
