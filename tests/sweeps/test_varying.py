from capsnet_jax.sweeps import varying
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
