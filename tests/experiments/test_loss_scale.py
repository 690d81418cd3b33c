import itertools

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
    assert sum(len(axes.containers) for axes in scales.axes) == 6
    names = [text.get_text() for text in scales.legends[0].get_texts()]
    assert names == ["softmax over parents", "softmax over inputs (wrong)"]


def test_one_question_alone():
    assert list(loss_scale.figures(records(loss_scale.SWEEP[:3]))) == ["loss_forms"]
    assert list(loss_scale.figures(records([loss_scale.SWEEP[0], *loss_scale.SWEEP[3:]]))) == ["softmax_and_scale"]


def test_every_part_of_the_arms_is_drawn_and_what_is_missing_is_said():
    for size in (1, 2, 7, 8):
        for arms in list(itertools.combinations(loss_scale.SWEEP, size))[::3]:
            drawn = loss_scale.figures(records(arms))
            assert drawn
            shown = sum(len(axes.containers) for figure in drawn.values() for axes in figure.axes)
            assert shown >= size
            for figure in drawn.values():
                assert ("no run of" in figure.get_supxlabel().replace("\n", " ")) == (size < 8)


def test_an_arm_has_one_colour_in_both_figures():
    forms, scales = loss_scale.figures(records(loss_scale.SWEEP)).values()
    first = forms.axes[0].containers[0].lines[0].get_color()  # the default: the paper's loss, over parents, 0.1
    at_its_scale = [c.lines[0].get_color() for c in scales.axes[0].containers if 0.5 < c.lines[0].get_xdata()[0] < 1]
    assert at_its_scale == [first]
    drawn = [c.lines[0].get_color() for figure in (forms, scales) for c in figure.axes[0].containers]
    assert len(set(drawn)) == 7  # of eight arms; there are seven colours
