import numpy as np
import pytest

from capsnet_jax.figures.grouping import (
    Arms,
    best_settings,
    group,
    group_by_dataset,
    interval_reach,
    mean_curve,
    missing_arms,
    recorded_iterations,
    results,
    studies,
)
from tests.figures.synthetic import fake_record, probed


def test_groups_are_settings_with_numbers_in_order_and_names_as_they_come():
    records = [
        fake_record(seed, routing__name=name, routing__iterations=r)
        for name in ("static", "dynamic")
        for r in (10, 2)
        for seed in (1, 0)
    ]
    groups = group(records, ["routing.name", "routing.iterations"])
    assert list(groups) == [("static", 2), ("static", 10), ("dynamic", 2), ("dynamic", 10)]
    assert all([record.seed for record in members] == [1, 0] for members in groups.values())


def test_settings_read_back_as_lists_can_be_grouped():
    records = [fake_record(model__widths=[8, [16]]), fake_record(model__widths=[8, [32]])]
    assert list(group(records, ["model.widths"])) == [((8, (16,)),), ((8, (32,)),)]


def test_a_path_that_some_lack_is_none():
    records = [fake_record(routing__gradient="full"), fake_record()]
    assert list(group(records, ["routing.gradient"])) == [("full",), (None,)]


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
@pytest.mark.parametrize("other", [{"routing__iterations": 1}, {"train__sharpness": 0.05}], ids=["known", "unknown"])
def test_settings_never_count_as_seeds(seeds, other):
    records = [
        fake_record(seeds[0], routing__iterations=3),
        fake_record(seeds[1], **{"routing__iterations": 3} | other),
    ]
    path = next(iter(other)).replace("__", ".")
    with pytest.raises(ValueError, match=rf"one group mixes runs that differ in {path}, and counts them as seeds"):
        group(records, ["routing.name"])
    assert len(group(records, ["routing.name", path])) == 2


def test_a_run_counts_once():
    with pytest.raises(ValueError, match=r"seed 0 comes twice .*one run was given twice"):
        group([fake_record(0), fake_record(0)], ["routing.name"])


def arms():
    return [{"routing.iterations": 1}, {"routing.iterations": 3}, {"routing.name": "random"}]


def test_an_arm_has_one_number_whatever_else_was_run():
    one, two, three = (fake_record(routing__iterations=r) for r in (1, 2, 3))
    random = fake_record(routing__name="random")
    for records in ([one, two, three, random], [random, three, two, one], [three, two, random]):
        numbered = Arms(records, arms())
        assert numbered.number([three]) == 1
        assert numbered.number([random]) == 2
        assert numbered.number([two]) == (3 if one in records else 0)
        assert len(set(numbered.numbers.values())) == len(records)


def test_an_arm_has_one_number_for_every_data_set():
    records = [
        fake_record(routing__iterations=r, data__dataset=dataset, data__max_shift=shift)
        for dataset, shift in (("mnist", 2), ("fashion_mnist", 1))
        for r in (3, 1)
    ]
    numbered = Arms(records)
    assert [numbered.number([record]) for record in records] == [0, 1, 0, 1]


def test_missing_arms_are_named_or_counted():
    mnist = [fake_record(routing__iterations=1), fake_record(routing__iterations=3)]
    assert missing_arms(mnist, arms()[:2]) == ""
    assert missing_arms(mnist, arms()) == "no run of random routing"
    kmnist = [fake_record(data__dataset="kmnist", routing__iterations=1)]
    told = missing_arms(mnist + kmnist, arms())
    assert told == "no run of random routing (MNIST); no run of r = 3; random routing (KMNIST)"
    many = [{"routing.iterations": r} for r in range(1, 101)]
    named = [{"data.dataset": name} | arm for name in ("mnist", "kmnist") for arm in arms()[:2]]
    assert missing_arms(mnist, named) == ""
    assert missing_arms(mnist + kmnist[:1], named).endswith(" (KMNIST)")
    assert missing_arms(mnist, many) == "no run of 98 of the experiment's 100 arms"


def test_of_very_many_settings_those_of_least_validation_error_are_shown():
    records = [fake_record(train__warmup=number) for number in range(5)]
    for record, error in zip(records, (3.0, 1.0, np.nan, 2.0, 4.0), strict=True):
        record.result["validation_error"] = error
    shown, told = best_settings(records, ["train.warmup"], 3)
    assert [record.settings["train.warmup"] for record in shown] == [0, 1, 3]
    assert told == "3 of 5 settings are drawn, those of least validation error"
    shown, _ = best_settings(records, ["train.warmup"], 2, keep=(2,))
    assert [record.settings["train.warmup"] for record in shown] == [1, 2]
    assert best_settings(records, ["train.warmup"], 5) == (records, "")


def test_studies_of_records_that_lack_preset_or_optimizer():
    assert list(studies([fake_record(), fake_record(train__optimizer="muon")])) == ["", "muon"]
    paper = [fake_record(preset="paper"), fake_record(preset="paper"), fake_record(preset="small"), fake_record()]
    assert {name: len(runs) for name, runs in studies(paper).items()} == {"": 3, "small": 1}


def test_a_path_that_all_lack_tells_nothing_apart():
    records = [fake_record(), fake_record(routing__name="learned")]
    assert list(group(records, ["routing.name", "nothing"])) == [("dynamic", None), ("learned", None)]


def test_no_records():
    with pytest.raises(ValueError, match="no records to draw"):
        group_by_dataset([], [])


def test_groups_of_each_data_set():
    records = [fake_record(data__dataset=d, routing__iterations=r) for d in ("mnist", "cifar10") for r in (3, 1)]
    nested = group_by_dataset(records, ["routing.iterations"])
    assert {name: list(groups) for name, groups in nested.items()} == {
        "mnist": [(1,), (3,)],
        "cifar10": [(1,), (3,)],
    }


def test_mean_curve_of_runs_of_different_lengths():
    short, long = fake_record(0, epochs=2), fake_record(1, epochs=3)
    short.metrics["train_loss"] = np.array([1.0, 2.0])
    long.metrics["train_loss"] = np.array([3.0, np.nan, 5.0])
    curve = mean_curve([short, long], "train_loss")
    np.testing.assert_array_equal(curve.x, [1, 2, 3])
    np.testing.assert_allclose(curve.mean, [2.0, 2.0, 5.0])
    # t(0.975; 1) = 12.706, std = sqrt(2): the half width of {1, 3} is 12.706.
    np.testing.assert_allclose(curve.half_width, [12.706, np.nan, np.nan], atol=1e-3)


def test_mean_curve_names_what_there_is():
    with pytest.raises(ValueError, match=r"no record has the metric 'loss'; there are: .*train_loss"):
        mean_curve([fake_record()], "loss")


def test_mean_curve_refuses_a_metric_of_another_length():
    record = fake_record(4, epochs=3)
    record.metrics["train_loss"] = np.ones(2)
    with pytest.raises(ValueError, match="seed 4: 2 values of train_loss for 3 epochs"):
        mean_curve([record], "train_loss")


def test_results():
    records = [fake_record(0, test_error=0.5), fake_record(1, test_error=0.7)]
    del records[1].result["test_error"]
    np.testing.assert_array_equal(results(records, "test_error"), [0.5, np.nan])
    with pytest.raises(ValueError, match="no record has the result 'accuracy'; there are: images_per_second"):
        results(records, "accuracy")


def test_an_interval_ends_where_nothing_is_possible():
    np.testing.assert_allclose(interval_reach(0.5, 2.0, (0, 100)), [0.5, 2.0])
    np.testing.assert_allclose(interval_reach(99.0, 2.0, (0, 100)), [2.0, 1.0])
    np.testing.assert_allclose(interval_reach(1.0, 0.5, (-np.inf, np.inf)), [0.5, 0.5])
    assert [float(reach) for reach in interval_reach(-1.0, 0.5, (0, 100))] == [0, 1]  # a mean that cannot be
    mean, half_width = np.array([1.0, 50.0, 3.0]), np.array([2.0, 60.0, np.nan])
    np.testing.assert_allclose(interval_reach(mean, half_width, (0, 100)), [[1, 50, np.nan], [2, 50, np.nan]])


def test_the_iterations_that_all_records_have():
    few, many = probed(fake_record(routing__iterations=3), 2), probed(fake_record(routing__iterations=3), 4)
    assert recorded_iterations([many], "validation_error_at_{}") == [1, 2, 3, 4]
    assert recorded_iterations([few, many], "validation_error_at_{}") == [1, 2]
    assert recorded_iterations([many], "validation_flips_at_{}") == [2, 3, 4]
    assert recorded_iterations([many], "validation_dead_capsules") == []
