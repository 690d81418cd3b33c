import pytest
from scipy import stats

from capsnet_jax.report import pairing, tables
from capsnet_jax.report.grouping import group
from tests.report.finished import ITERATIONS, column, run, runs


def compared(records, swept=(), baseline=None) -> list[tuple[str, str]]:
    """The swept values of each setting that is compared, and those of its reference."""
    found = pairing.compare(group(records, swept), baseline or {})
    return [(" ".join(c.setting.cells(swept)), " ".join(c.reference.cells(swept))) for c in found]


def test_nets_of_different_sizes_are_compared_net_with_net():
    finished = runs((1, 2), model__name="capsnet_small") + runs((1.5, 2), model__name="capsnet")
    [comparison] = pairing.compare(group(finished, ["model.name"]), {})
    assert comparison.paths == ["model.name"]


def test_settings_are_paired_by_seed():
    first = runs((1.0, 2.0, 4.0), routing__iterations=1)
    third = [run(seed, error, routing__iterations=3) for seed, error in ((2, 3.5), (1, 1.0), (7, 9.0))]
    other = runs((50.0,), routing__iterations=3, data__dataset="kmnist")
    table = pairing.paired([*first, *third, *other], ITERATIONS, {})
    assert table.title == "test error less that of routing.iterations=1"
    # Seeds 1 and 2: differences -1 and -0.5, mean -0.75, t(0.975; 1) = 12.7062, so ± 12.7062 · 0.25; p of t = 3.
    assert table.rows == [["mnist_5k", "3", "-0.75 ± 3.18 (n = 2)", "0.2", "0.2", ""]]
    assert pairing.paired([*first, *other], ITERATIONS, {}).rows == []


def test_p_values_are_corrected_by_holms_method_over_the_table():
    """The least of three is tripled, the next doubled, none is less than one before it; one without p counts not."""
    errors = {1: (1.0, 2.0, 3.0), 2: (2.0, 3.1, 3.9), 3: (1.5, 2.0, 3.6), 5: (1.2, 2.5, 2.9), 7: (9.0,)}
    finished = [one for r, values in errors.items() for one in runs(values, routing__iterations=r)]
    table = pairing.paired(finished, ITERATIONS, {})
    p = [stats.ttest_rel(errors[r], errors[1]).pvalue for r in (2, 3, 5)]
    assert p[0] < p[1] < p[2]
    corrected = [3 * p[0], max(3 * p[0], 2 * p[1]), max(2 * p[1], p[2])]
    assert column(table, "p (paired t)") == [*(f"{value:.2g}" for value in p), ""]
    assert column(table, "p (Holm)") == [*(f"{value:.2g}" for value in corrected), ""]
    assert "for the 3 tests" in table.notes[0]
    assert column(table, "difference %")[-1] == "+8.00 (n = 1)"


def test_mcnemar_counts_an_image_once_whatever_the_number_of_seeds():
    first = [[0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1, 0]]
    third = [[1, 1, 1, 1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0, 0]]
    finished = [run(seed, wrong=wrong, routing__iterations=1) for seed, wrong in enumerate(first)]
    finished += [run(seed, wrong=wrong, routing__iterations=3) for seed, wrong in enumerate(third)]
    # Wrong answers of both seeds: the third has more on images 0 to 6, fewer on image 7, as many on image 8.
    [p] = column(pairing.paired(finished, ITERATIONS, {}), "p (McNemar)")
    assert p == f"{stats.binomtest(7, 8).pvalue:.2g}" == "0.07"
    # One seed: 6 against 1 image.
    [p] = column(pairing.paired(finished[::2], ITERATIONS, {}), "p (McNemar)")
    assert p == f"{stats.binomtest(6, 7).pvalue:.2g}"


def test_mcnemar_is_left_empty_where_the_images_are_not_known():
    first, third = run(wrong=[0, 1], routing__iterations=1), run(wrong=[0, 1, 1], routing__iterations=3)
    fifth = run(routing__iterations=5)
    assert column(pairing.paired([first, third, fifth], ITERATIONS, {}), "p (McNemar)") == ["", ""]
    # A seed whose images are not known does not count.
    more = [run(1, wrong=[0, 0, 1], routing__iterations=1), run(1, wrong=[0, 0, 1], routing__iterations=5)]
    assert column(pairing.paired([first, fifth, *more], ITERATIONS, {}), "p (McNemar)") == ["1"]


def test_of_several_partners_the_one_with_most_seeds_is_taken_and_named():
    """The third lacks the temperature, so it differs from both in its iterations alone."""
    few = [run(0, 2.0, routing__iterations=3, routing__temperature=1.0)]
    many = runs((1.0, 1.5), routing__iterations=3, routing__temperature=0.5)
    other_data = runs((1.0, 1.5), routing__iterations=1, data__validation_fraction=0.5)
    swept = ["routing.iterations", "routing.temperature"]
    table = pairing.paired([*other_data, *few, *many, *runs((2.0, 3.0), routing__iterations=1)], swept, {})
    last = dict(zip(table.header, table.rows[-1], strict=True))
    assert last["compared with"] == "routing.iterations=3 routing.temperature=0.5"
    assert last["difference %"].startswith("+1.25 ± ")
    assert last["difference %"].endswith("(n = 2)")


def test_pairs_differ_in_one_setting_alone():
    swept = ["routing.iterations", "train.learning_rate"]
    finished = [
        run(routing__iterations=r, train__learning_rate=rate) for r in (1, 3, 5) for rate in (0.001, 0.01) if r < 5
    ]
    finished.append(run(routing__iterations=5, train__learning_rate=0.1))  # differs from each in both
    assert compared(finished, swept) == [("1 0.01", "1 0.001"), ("3 0.001", "1 0.001"), ("3 0.01", "1 0.01")]
    table = pairing.paired(finished, swept, {})
    assert table.title == "test error less that of the setting compared with"
    assert column(table, "compared with") == [
        "train.learning_rate=0.001",
        "routing.iterations=1",
        "routing.iterations=1",
    ]


def test_routers_are_compared_at_equal_other_settings():
    """What a router alone has is no other setting, nor is what has no meaning with one iteration."""
    swept = ["routing.name", "routing.iterations", "routing.gradient", "train.epochs"]
    finished = [run(routing__iterations=3), run(routing__iterations=3, routing__gradient="stop")]
    finished += [
        run(routing__iterations=1),
        run(routing__name="learned"),
        run(routing__name="learned", train__epochs=2),
    ]
    assert compared(finished, swept) == [
        ("dynamic 3 stop 10", "dynamic 3 full 10"),
        ("dynamic 1  10", "dynamic 3 full 10"),
        ("learned   10", "dynamic 3 full 10"),
        ("learned   2", "learned   10"),
    ]


@pytest.mark.parametrize(
    ("path", "names"), [("routing__name", ("dynamic", "uniform")), ("model__name", ("cnn_small", "cnn_small_strided"))]
)
def test_in_a_sweep_of_names_each_setting_is_compared_with_the_first_name(path, names):
    """Another number is looked at only where the name is the first."""
    swept = [path.replace("__", "."), "train.learning_rate"]
    finished = [run(train__learning_rate=rate, **{path: name}) for rate in (0.001, 0.003) for name in names]
    first, second = names
    assert compared(finished, swept) == [
        (f"{second} 0.001", f"{first} 0.001"),
        (f"{first} 0.003", f"{first} 0.001"),
        (f"{second} 0.003", f"{first} 0.003"),
    ]


def test_what_either_of_two_settings_lacks_is_no_difference():
    swept = ["routing.iterations", "routing.gradient"]
    finished = [
        run(routing__iterations=1),
        run(routing__iterations=3),
        run(routing__iterations=3, routing__gradient="stop"),
    ]
    assert compared(finished, swept) == [("3 full", "1 "), ("3 stop", "1 ")]


def test_a_presets_name_is_no_setting():
    small, paper = run(routing__iterations=1), run(routing__iterations=3)
    paper.settings["preset"] = "paper"
    assert compared([small, paper], ITERATIONS) == [("3", "1")]


def test_the_loss_that_comes_with_a_net_is_no_other_setting():
    capsnet, cnn = run(), run(model__name="cnn_small")
    swept = ["model.name", "loss.name"]
    assert compared([capsnet, cnn], swept) == [("cnn_small cross_entropy", "capsnet_small margin")]
    margin = run(model__name="cnn_small", loss__name="margin")
    assert compared([run(loss__name="cross_entropy"), margin], swept) == []
    assert compared([capsnet, margin], swept) == [("cnn_small margin", "capsnet_small margin")]


def test_a_baseline_is_compared_with_every_other_setting_on_the_same_data():
    swept = ["routing.iterations", "routing.gradient"]
    finished = [run(routing__iterations=r) for r in (1, 2, 3)]
    finished += [run(routing__iterations=r, routing__gradient="stop") for r in (2, 3)]
    finished += [run(data__dataset="kmnist", routing__iterations=r) for r in (1, 3)]
    finished += [run(data__dataset="kmnist", data__transform="rotated", routing__iterations=1)]
    pairs = [("1 ", "3 full"), ("2 full", "3 full"), ("2 stop", "3 stop"), ("1 ", "3 full")]
    assert compared(finished, swept, {"routing.iterations": "3"}) == pairs
    assert compared(finished, swept, {"routing.iterations": 3}) == pairs
    table = pairing.paired(finished, swept, {"routing.iterations": 3})
    assert column(table, "compared with") == ["routing.iterations=3"] * 4


@pytest.mark.parametrize("value", [0.003, "0.003", "3e-3"])
def test_a_baselines_value_may_be_given_as_people_type_it(value):
    finished = [run(train__learning_rate=rate) for rate in (0.001, 0.003)]
    assert compared(finished, ["train.learning_rate"], {"train.learning_rate": value}) == [("0.001", "0.003")]


def test_a_baseline_that_no_setting_has_is_told():
    finished = [run(routing__iterations=r) for r in (1, 3)]
    table = pairing.paired(finished, ITERATIONS, {"routing.iterations": "9"})
    assert (table.rows, len(table.notes)) == ([], 1)
    assert "Nothing is compared with routing.iterations=9" in tables.as_text(finished, [], {"routing.iterations": "9"})


def test_what_differs_between_data_sets_alone_is_no_other_setting():
    finished = [
        run(seed, r + seed / 10 + shift, routing__iterations=r, data__max_shift=shift, data__dataset=dataset)
        for dataset, shift in (("mnist", 2), ("kmnist", 1))
        for r in (1, 3)
        for seed in range(3)
    ]
    table = pairing.paired(finished, ITERATIONS, {})
    assert table.header[:2] == ["dataset", "routing.iterations"]
    assert [row[:3] for row in table.rows] == [
        ["mnist", "3", "+2.00 ± 0.00 (n = 3)"],
        ["kmnist", "3", "+2.00 ± 0.00 (n = 3)"],
    ]


def test_other_images_or_more_of_them_are_other_data():
    finished = [
        run(seed, error + seed / 10, data__train_size=size, train__epochs=epochs, finetune__source=source)
        for size, epochs, errors in ((100, 9, (5.0, 4.0)), (1000, 2, (2.0, 2.5)))
        for source, error in zip(("none", "mnist"), errors, strict=True)
        for seed in range(3)
    ]
    table = pairing.paired(finished, ["data.train_size", "train.epochs", "finetune.source"], {})
    assert column(table, "data.train_size") == ["100", "1000"]
    assert column(table, "compared with") == ["finetune.source=none"] * 2
    assert column(table, "difference %") == ["-1.00 ± 0.00 (n = 3)", "+0.50 ± 0.00 (n = 3)"]
