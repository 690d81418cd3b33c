"""Subjects that only pretend, at known speeds: in this process, with a log of what was asked, and in a spawned one."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path

from capsnet_jax.bench import process

STEP = {"capsnet_jax": 0.5, "plain_jax": 2.0, "pytorch": 1.0, "torchvision": 1.0, "torchvision_channels_last": 0.75}
COMPILED = ("capsnet_jax", "plain_jax")
LOG: list[tuple] = []
DEAD: set[tuple] = set()  # (function, subject): these asks fail


class FakeProcess:
    """Answers as a process, and notes what was asked."""

    def __init__(self, name, stop, cache, failures):
        self.name, self.cache, self.failures, self.subject, self.failed = name, Path(cache), failures, None, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        LOG.append(("close", self.subject))

    def send(self, function, *arguments):
        self.pending = self.ask(function, *arguments)

    def receive(self):
        LOG.append(("receive", self.subject))
        return self.pending

    def ask(self, function, *arguments):
        name = function.__name__
        if name == "open_subject":
            self.subject = arguments[0].subject
            peers = ("plain_jax", "pytorch", "pytorch_compiled")
            assert arguments[1] == ({"W": 1} if self.subject in peers else None)
        LOG.append((name, self.subject, *(a for a in arguments if isinstance(a, int | list))))
        if (name, self.subject) in DEAD and not self.failed:
            self.failed = True
            self.failures.append(f"{self.subject}: no memory left")
        return None if self.failed else getattr(self, name)(*arguments)

    def environment(self):
        return {"machine": "here", "backend": "cpu", "devices": "2", "revision": "abc"}

    def torch_device(self):
        return "cpu"

    def initial_weights(self, _workload):
        return {"W": 1}

    def fit(self, _workload, seeds):
        return 3.0 + 10 * len(seeds)

    def open_subject(self, _workload, _weights):
        return None

    def compile_subject(self):
        warm = (self.cache / "program").exists()
        (self.cache / "program").touch()
        return (0.25 if warm else 8.0) if self.subject in COMPILED else None

    def run_steps(self, steps):
        return steps * STEP[self.subject]

    def peak_memory(self):
        return int(1e9 * STEP[self.subject])


def asked(name):
    return [entry[1:] for entry in LOG if entry[0] == name]


class Sleeper:
    """A subject in a spawned process: a step takes a millisecond."""

    def __init__(self, subject):
        self.calls = []

    def compile(self):
        return 1.5

    def run(self, start, stop):
        self.calls.append((start, stop))
        time.sleep(0.001 * (stop - start))

    def device_peak(self):
        return 0


def open_subject(workload, _weights):
    process._subject = Sleeper(workload)


def calls():
    return process._subject.calls


def inherited(*names):
    return [os.environ.get(name) for name in names], "jax" in sys.modules


def imported(subject):
    """What a subject's module brings."""
    importlib.import_module(process.SUBJECTS[subject])
    return {name.split(".")[0] for name in sys.modules}


def fail():
    raise ValueError("two\nlines")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds):
    time.sleep(seconds)
