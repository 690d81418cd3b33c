import json

import pytest

from capsnet_jax.bench import records
from tests import tiny
from tests.bench import rows

RESULTS = tiny.ROOT / "experiments" / "results"


def columns(frame, *names):
    return frame[list(names)].to_numpy().tolist()


def group(name="seeds", recorded="2026-01-01", **fields):
    return [row | {"group": name, "recorded": recorded} | fields for row in rows.seeds()]


def test_groups_are_appended_and_loaded(tmp_path):
    path = tmp_path / "new" / "throughput.jsonl"
    assert records.load(path).empty
    runs = [row for row in rows.curves() if row["group"] == "runs"]
    records.append(path, runs)
    records.append(path, rows.seeds())
    frame, wanted = records.load(path), runs + rows.seeds()
    assert list(frame.columns) == records.COLUMNS
    assert [{name: row[name] for name in wanted[0]} for row in frame.to_dict("records")] == wanted
    assert len(path.read_text().splitlines()) == len(wanted)


def test_a_group_measured_again_replaces_the_first(tmp_path):
    path = tmp_path / "t.jsonl"
    records.append(path, group(value=1.0))
    records.append(path, group("runs", value=2.0))
    records.append(path, group(recorded="2026-01-02", value=3.0))
    assert columns(records.load(path), "group", "value") == [["runs", 2.0]] * 4 + [["seeds", 3.0]] * 4


def test_machines_do_not_replace_each_other(tmp_path):
    path = tmp_path / "t.jsonl"
    records.append(path, group(machine="here"))
    records.append(path, group(machine="there", recorded="2026-01-02"))
    assert records.load(path)["machine"].value_counts().to_dict() == {"here": 4, "there": 4}


@pytest.mark.parametrize("cut", [0, 20])  # characters that are left of the last line
def test_a_group_that_was_cut_short_is_left_out(tmp_path, cut):
    path = tmp_path / "t.jsonl"
    records.append(path, group())
    whole = path.read_text()
    records.append(path, group("runs"))
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, last[:cut]]))
    assert set(records.load(path)["group"]) == {"seeds"}
    records.append(path, group("runs", "2026-01-02"))
    assert len(records.load(path)) == 8
    assert path.read_text().startswith(whole)


@pytest.mark.parametrize(
    ("name", "machines"),
    [
        ("throughput", {"zen5": 238, "zen4": 242, "zen3": 242, "h200": 38}),
        ("throughput_nets", {"zen4": 816, "zen3": 198, "h100": 62}),
    ],
)
def test_all_that_was_ever_measured_can_be_read(name, machines):
    path = RESULTS / f"{name}.jsonl"
    frame = records.load(path)
    found = frame["machine"].value_counts().to_dict()
    assert {machine: found[machine] for machine in machines} == machines
    first = json.loads(path.read_text().splitlines()[0])
    assert {name: frame.iloc[0][name] for name in ("subject", "value")} == {
        name: first[name] for name in ("subject", "value")
    }
