import io
import json
import sys
from types import SimpleNamespace

import pytest

from capsnet_jax.bench import worker, workload


class Fake:
    def __init__(self, given):
        self.given, self.steps = given, 0

    def prepare(self):
        return 1.5

    def run(self, steps):
        if steps < 0:
            raise ValueError("steps\nmust not be negative")
        self.steps += steps

    def peak(self):
        return 1000 + self.steps


@pytest.fixture(autouse=True)
def fake_subject(monkeypatch):
    monkeypatch.setitem(workload.SUBJECTS, "fake", "tests_bench_fake")
    monkeypatch.setitem(sys.modules, "tests_bench_fake", SimpleNamespace(build=Fake))


OPEN = {"do": "open", "workload": {"subject": "fake", "phase": "training", "settings": {}}}


def serve(*requests):
    lines = io.StringIO("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in requests))
    answers = io.StringIO()
    worker.serve(lines, answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_a_whole_conversation():
    opened, prepared, ran, peak = serve(OPEN, {"do": "prepare"}, {"do": "run", "steps": 7}, {"do": "peak"})
    assert (opened, prepared, peak) == ({}, {"seconds": 1.5}, {"bytes": 1007})
    assert list(ran) == ["seconds"]
    assert ran["seconds"] >= 0


def test_mistakes_are_one_line_each_and_the_worker_goes_on():
    answers = serve(
        "no json",
        {"do": "nothing"},
        {"do": "_opened"},
        {"steps": 3},
        {"do": "run", "steps": 3},
        {"do": "open", "workload": {"subject": "none", "phase": "training", "settings": {}}},
        OPEN,
        {"do": "run", "steps": -1},
        {"do": "run", "stps": 3},
        {"do": "run", "steps": 3},
    )
    told = [answer.get("error", "") for answer in answers]
    assert [text.split(":")[0] for text in told] == [
        *("JSONDecodeError", "ValueError", "ValueError", "KeyError", "RuntimeError", "KeyError"),
        *("", "ValueError", "TypeError", ""),
    ]
    assert not any("\n" in text for text in told)
    assert told[1].endswith("a worker cannot 'nothing'")
    assert told[4].endswith("no workload is open")
    assert told[7].endswith("steps must not be negative")
