import numpy as np

from experiments import invariance
from tests.figures.synthetic import fake_record


def test_the_curves_are_drawn():
    kinds = list(invariance.AMOUNTS)
    runs = {"capsnet_small": [], "cnn_small": []}
    for members in runs.values():
        for seed in range(2):
            arrays = {}
            for kind in kinds:
                amounts = np.array(invariance.AMOUNTS[kind])
                arrays |= {f"{kind}/amounts": amounts, f"{kind}/read": np.array(0.5)}
                arrays |= {f"{kind}/error": amounts + seed, f"{kind}/change": amounts / 10}
            members.append(arrays)
    figure = invariance.distortion_curves(runs, kinds, dataset="mnist")
    panels = np.array(figure.axes).reshape(3, 5)
    assert [axes.get_xlabel() for axes in panels[1]][:2] == ["shift [pixels]", "rotation [degrees]"]
    np.testing.assert_allclose(panels[0, 0].lines[0].get_ydata(), np.array(invariance.AMOUNTS["shift"]) + 0.5)
    assert [float(y) for line in panels[2, 0].lines[:1] for y in line.get_ydata()] == [0.5]
    assert panels[0, 2].xaxis_inverted()  # smaller is further from what was seen
    assert "n = 2 seeds" in figure.get_supxlabel()


def test_each_run_has_a_row_for_each_amount(monkeypatch):
    arrays = {}
    for kind, amounts in invariance.AMOUNTS.items():
        amounts = np.array(amounts)
        arrays |= {f"{kind}/amounts": amounts, f"{kind}/error": 2 * amounts, f"{kind}/change": amounts / 8}
    monkeypatch.setattr(invariance, "load_observation", lambda record, name: arrays if record.seed else None)
    rows = invariance.observed_rows([fake_record(seed, model__name="cnn_small") for seed in range(3)])
    assert len(rows) == 2 * sum(map(len, invariance.AMOUNTS.values()))
    assert rows[1] | {"network": ""} == {
        **{"dataset": "mnist", "network": "", "seed": 1, "kind": "shift", "amount": "1", "error": 2.0, "change": 0.125}
    }


def test_a_network_has_one_colour_whichever_networks_a_data_set_has(monkeypatch):
    arrays = {}
    for kind, amounts in invariance.AMOUNTS.items():
        arrays |= {f"{kind}/amounts": np.array(amounts), f"{kind}/read": np.array(0.5)}
        arrays |= {f"{kind}/error": np.array(amounts), f"{kind}/change": np.array(amounts)}
    monkeypatch.setattr(invariance, "load_observation", lambda record, name: arrays)
    records = [fake_record(model__name=name) for name in ("capsnet_small", "cnn_small")]
    records += [fake_record(model__name="cnn_small", data__dataset="fashion_mnist")]
    drawn = invariance.figures(records)
    both, one = ({line.get_label(): line.get_color() for line in figure.axes[0].lines} for figure in drawn.values())
    assert list(both) == ["capsnet_small", "cnn_small"]
    assert one == {"cnn_small": both["cnn_small"]}
    assert list(drawn) == ["curves-mnist", "curves-fashion_mnist"]


def test_settings_of_one_network_are_not_pooled(monkeypatch):
    def observed(record, name):
        error = 10.0 * record.settings["data.max_shift"]
        arrays = {}
        for kind, amounts in invariance.AMOUNTS.items():
            arrays |= {f"{kind}/amounts": np.array(amounts), f"{kind}/read": np.array(np.nan)}
            arrays |= {f"{kind}/{what}": np.full(len(amounts), error) for what in ("error", "change")}
        return arrays if error else None  # one setting was not observed

    monkeypatch.setattr(invariance, "load_observation", observed)
    found = [fake_record(model__name="resnet8", data__max_shift=shift) for shift in (0, 1, 2)]
    [figure] = invariance.figures(found).values()
    lines = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert lines == {"resnet8, max shift = 1": 10.0, "resnet8, max shift = 2": 20.0}
    assert figure.axes[-1].texts[0].get_text() == "no class has two test images"
    assert invariance.figures(found[:1]) == {}
