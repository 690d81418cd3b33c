import numpy as np
import pytest

from experiments import routing_vs_backprop
from tests.figures.synthetic import fake_record


def records(arms=routing_vs_backprop.SWEEP, dataset="fashion_mnist", seeds=2, **more):
    return [
        fake_record(
            seed,
            4,
            5.0 + number,
            data__dataset=dataset,
            **{path.replace(".", "__"): value for path, value in arm.items()},
            **more,
        )
        for number, arm in enumerate(arms)
        for seed in range(seeds)
    ]


def test_the_arms():
    assert [tuple(arm.values()) for arm in routing_vs_backprop.SWEEP] == [
        ("dynamic", 3, "full", "none"),
        ("dynamic", 3, "stop", "none"),
        ("dynamic", 1, "full", "none"),
        ("learned", 3, "full", "none"),
        ("random", 3, "full", "none"),
        ("dynamic", 3, "full", "digit"),
        ("dynamic", 3, "full", "conv1+primary+digit"),
    ]


def test_all_figures_are_drawn():
    drawn = routing_vs_backprop.figures(records())
    assert list(drawn) == ["error_by_arm", "learning_curves", "paired", "slide_fashion_mnist"]


def test_a_slide_for_each_data_set_but_its_points_for_its_own_alone():
    drawn = routing_vs_backprop.figures(records() + records(dataset="mnist"))
    assert list(drawn) == ["error_by_arm", "learning_curves", "paired", "slide_fashion_mnist", "slide_mnist"]
    told = {name: "read off the slide" in figure.get_supxlabel().replace("\n", " ") for name, figure in drawn.items()}
    assert told["slide_fashion_mnist"]
    assert not told["slide_mnist"]


@pytest.mark.parametrize("kept", [0, 1])
def test_no_slide_without_both_of_its_arms(kept):
    found = records([routing_vs_backprop.SWEEP[kept], *routing_vs_backprop.SWEEP[2:]])
    assert list(routing_vs_backprop.figures(found)) == ["error_by_arm", "learning_curves", "paired"]


def test_the_slides_left_column_is_the_stopped_gradient():
    found = records()
    slide = routing_vs_backprop.figures(found)["slide_fashion_mnist"]
    for column, gradient in enumerate(("stop", "full")):
        own = [
            r.metrics["train_loss"]
            for r in found
            if tuple(r.settings[path] for path in routing_vs_backprop.SWEEP[0]) == ("dynamic", 3, gradient, "none")
        ]
        [line] = [line for line in slide.axes[column].lines if line.get_label().startswith("loss")]
        np.testing.assert_allclose(line.get_ydata(), np.mean(own, axis=0))


def test_another_swept_path_does_not_mix_the_arms():
    found = records(train__learning_rate=0.1) + records(train__learning_rate=0.2)
    drawn = routing_vs_backprop.figures(found)
    assert list(drawn)[:2] == ["error_by_arm", "learning_curves"]
