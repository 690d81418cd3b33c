import numpy as np
import pytest

from capsnet_jax import overrides
from experiments import hops
from experiments.hops import attention_over_sentences
from tests.figures.synthetic import fake_record


def observed(sentences):
    attention = np.full((2, sentences), 0.01, np.float32)
    attention[0, 1], attention[1, -1] = 0.9, 0.7
    return {
        "sentences": np.array([f"sentence {n}" for n in range(sentences)]),
        "question": np.array("where is mary"),
        "truth": np.array("garden"),
        "answer": np.array("office"),
        "attention": attention,
    }


def test_a_row_is_a_sentence_and_a_column_a_hop():
    figure = attention_over_sentences(observed(4), note="bAbI")
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [f"sentence {n}" for n in range(4)]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["hop 1", "hop 2"]
    shares = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert (shares[0, 1], shares[1, 3], shares[0, 0]) == ("0.90", "0.70", "0.01")
    assert axes.get_xlabel() == "where is mary? office (it is garden)"


def test_of_a_long_story_the_sentences_that_are_looked_at_are_shown():
    figure = attention_over_sentences(observed(40), most=5)
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == [f"sentence {n}" for n in (0, 1, 2, 3, 39)]
    assert "35 sentences with less attention are left out" in figure.get_supxlabel()


def test_every_arm_has_a_row(monkeypatch):
    records = []
    for number, arm in enumerate(hops.SWEEP):
        settings = overrides.flatten(overrides.from_preset("small", hops.CONFIG | arm))
        for seed in range(2):
            record = fake_record(seed, 3, 0.5 + 0.1 * number)
            record.settings = settings
            records.append(record)
    monkeypatch.setattr(hops, "load_observation", lambda record, name: observed(3))
    drawn = hops.figures(records)
    attention = [title for title in drawn if title.startswith("attention")]
    assert attention == ["attention-babi_1", "attention-babi_2", "attention-babi_3"]
    assert [*drawn][0::4] == ["test_error", "learning_curves"]
    assert [len(axes.get_yticks()) for axes in drawn["test_error"].axes] == [5, 5, 5]


@pytest.mark.parametrize(("model", "lacks"), [("memory_network", False), ("cnn_small", True)])
def test_other_nets_have_no_attention(model, lacks):
    told = hops.requires(overrides.build({"model.name": model}), None)
    assert (told is not None) == lacks
    assert not lacks or told == "hops looks at attention, and cnn_small has none; leave out model.name"
