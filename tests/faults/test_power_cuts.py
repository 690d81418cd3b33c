"""After a power cut the same command ends with the same bits, and what was told to be finished is there.

`disk.Disk` says at every call what may be on the disk if the power is cut right before it.
"""

import pickle
import random
import signal

import pytest

from tests.faults.disk import Disk, State, remains
from tests.faults.work import assert_goes_on, assert_same, finished, moments, once, records, rows, sweep, trials

pytestmark = pytest.mark.slow

# How names and data are left: each is a kind of disk. The last two are drawn anew for each folder and file.
KINDS = [("early", "late"), ("late", "late"), ("late", "early"), ("mixed", "late"), ("mixed", "mixed")]


@pytest.fixture(scope="module")
def states() -> list[State]:
    """The disk before each call of an undisturbed sweep, and at its end."""

    def make(folder):
        folder.mkdir()
        (folder / "seen").mkdir()
        work, record = folder / "seen" / "work", folder / "seen.disk"
        done = sweep(work, record=str(record), fault={"folder": str(folder / "seen")})
        assert (done.code, done.err) == (0, "")

    finished()
    return pickle.loads((once("recorded", make) / "seen.disk").read_bytes()).states


def durable_lines(state: State) -> list[bytes]:
    """The records that are on the disk whatever happens."""
    folder = 0
    for name in ("work", "runs.jsonl"):
        if name not in state.safe_names.get(folder, {}):
            return []
        folder = state.safe_names[folder][name]
    return [line for line in state.safe_data.get(folder, b"").splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize("trial", trials(5))
def test_the_same_command_goes_on_after_a_power_cut(trial, states, tmp_path):
    names, data = KINDS[trial % len(KINDS)]
    at = moments(trial + 1, 2, [state.what for state in states])[trial] - 1
    print(f"power cut before call {at}: {states[at].what}; names {names}, data {data}")
    remains(states[at], names, data, random.Random(trial), tmp_path / "disk")
    assert_goes_on(tmp_path / "disk" / "work", names=False)
    lines = (tmp_path / "disk" / "work" / "runs.jsonl").read_bytes()
    assert all(line in lines for line in durable_lines(states[at])), "a finished run was trained again"


@pytest.mark.parametrize(("names", "data"), KINDS)
def test_what_a_command_has_ended_with_is_on_the_disk(names, data, states, tmp_path):
    """Nothing is done after the cut: all is there."""
    remains(states[-1], names, data, random.Random(0), tmp_path / "disk")
    assert_same(tmp_path / "disk" / "work", names=False)
    whole = tmp_path / "whole"
    remains(states[-1], "early", "early", random.Random(0), whole)
    for pattern in ("*.jsonl", "*.csv", "runs/*/*.safetensors", "figures/*"):
        for path in (whole / "work").glob(pattern):
            assert (tmp_path / "disk" / path.relative_to(whole)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("trial", trials(1))
def test_what_a_killed_command_wrote_is_made_durable_by_the_next(trial, states, tmp_path):
    """A kill between a write and its fsync leaves bytes that look whole, and are on no disk yet."""
    work, record = tmp_path / "seen" / "work", tmp_path / "seen.disk"
    work.parent.mkdir()
    syncs = [number for number, state in enumerate(states) if state.what.startswith("fsync")]
    at = syncs[moments(trial + 1, 3, [states[number].what for number in syncs])[trial] - 1]
    print(f"killed before call {at}: {states[at].what}")
    watched = {"folder": str(work.parent)}
    done = sweep(work, record=str(record), fault=watched | {"at": at, "do": "kill"})
    assert done.code == -signal.SIGKILL
    assert sweep(work, record=str(record), fault=watched).code == 0
    remains(Disk.continued(str(record)).states[-1], "late", "late", random.Random(trial), tmp_path / "disk")
    assert records(tmp_path / "disk" / "work") == records(finished())
    assert rows(tmp_path / "disk" / "work") == rows(finished())
