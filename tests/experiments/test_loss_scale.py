from experiments import loss_scale
from tests.figures.synthetic import fake_record


def records(arms):
    return [
        fake_record(seed, 4, 0.5 + 0.1 * number, **{path.replace(".", "__"): value for path, value in arm.items()})
        for number, arm in enumerate(arms)
        for seed in range(2)
    ]


def test_each_question_has_its_figure_and_its_own_arms():
    drawn = loss_scale.figures(records(loss_scale.SWEEP))
    assert list(drawn) == ["loss_forms", "softmax_and_scale"]
    forms, scales = drawn.values()
    assert len(forms.axes[0].get_yticks()) == 3
    assert [tick.get_text() for tick in scales.axes[0].get_xticklabels()] == ["0.01", "0.1", "1"]
    assert sum(len(axes.containers) for axes in scales.axes) == 2  # softmax over parents, over inputs


def test_one_question_alone():
    assert list(loss_scale.figures(records(loss_scale.SWEEP[:3]))) == ["loss_forms"]
    assert list(loss_scale.figures(records([loss_scale.SWEEP[0], *loss_scale.SWEEP[3:]]))) == ["softmax_and_scale"]
