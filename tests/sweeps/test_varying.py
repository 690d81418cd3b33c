import dataclasses

from capsnet_jax import overrides
from capsnet_jax.sweeps import records, varying
from tests.figures.synthetic import fake_record


def test_a_setting_that_some_lack_varies_where_nothing_else_tells_their_runs_apart():
    plain, other = fake_record(routing__iterations=3), fake_record(routing__iterations=3, train__sharpness=0.05)
    assert varying.varying_paths([plain, other]) == ["train.sharpness"]
    assert varying.compared_paths([plain, other]) == ["train.sharpness"]
    assert varying.varying_paths([other, other]) == []
    one = fake_record(routing__iterations=1, train__sharpness=0.05)
    assert varying.varying_paths([plain, one]) == ["routing.iterations"]
    assert varying.varying_paths([plain, one, other]) == ["routing.iterations", "train.sharpness"]


def test_between_data_sets_it_does_not():
    plain, other = fake_record(), fake_record(train__sharpness=0.05, data__dataset="kmnist")
    assert varying.compared_paths([plain, other]) == []


def full_record(seed=0, **settings):
    """A record of all settings there are."""
    flat = overrides.flatten(overrides.build({})) | {n.replace("__", "."): value for n, value in settings.items()}
    return dataclasses.replace(fake_record(seed), settings=flat)


def test_varying_paths():
    assert varying.varying_paths([]) == []
    assert varying.varying_paths([full_record(), full_record(1)]) == []
    assert varying.varying_paths([full_record(), full_record(1)], ["routing.iterations"]) == ["routing.iterations"]
    group = [
        full_record(train__warmup=0.1),
        full_record(train__warmup=0.2, routing__iterations=1, data__dataset="mnist"),
    ]
    assert varying.varying_paths(group) == ["routing.iterations", "train.warmup"]
    assert varying.varying_paths(group, ["train.warmup"]) == ["train.warmup", "routing.iterations"]


def test_a_setting_that_some_runs_lack_varies_only_among_those_that_have_it():
    capsnet = full_record()
    settings = overrides.flatten(overrides.build({"model.name": "cnn_small"}))
    cnn = dataclasses.replace(capsnet, settings=settings)
    assert varying.varying_paths([capsnet, cnn]) == ["model.name", "loss.name"]
    five = full_record(routing__iterations=5)
    assert "routing.iterations" in varying.varying_paths([capsnet, cnn, five])
    assert records.format_setting(cnn, "routing.iterations") == ""


def test_settings_of_one_data_set_are_compared():
    group = [
        full_record(routing__iterations=r, data__max_shift=shift, train__epochs=epochs, data__dataset=dataset)
        for dataset, shift, epochs in (("mnist", 2, 10), ("kmnist", 1, 10), ("kmnist", 1, 20))
        for r in (1, 3)
    ]
    assert varying.varying_paths(group) == ["data.max_shift", "routing.iterations", "train.epochs"]
    assert varying.compared_paths(group) == ["routing.iterations", "train.epochs"]
    always = varying.compared_paths(group, ["data.max_shift"])
    assert always == ["data.max_shift", "routing.iterations", "train.epochs"]
    assert varying.compared_paths([]) == []
