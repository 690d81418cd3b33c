"""Measure groups of workloads: each subject in a process of its own, block after block in turn."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from capsnet_jax.bench import ours, process, records
from capsnet_jax.bench.process import Process, WorkerError, run_steps
from capsnet_jax.bench.workload import OURS, Workload
from capsnet_jax.sweeps import records as run_records  # not in `ours`: it may import torch, whose memory would count

_SLOW, _SLOW_ROUNDS = 5, 2  # a subject whose one step takes more than five blocks' time gets two rounds

Stop = Callable[[], int | None]  # returns the signal that asked to stop, or None
Measured = Iterator[tuple[Workload, str, int, float]]  # quantity, round and value, infinite if the subject failed


class Group(NamedTuple):
    """Workloads that are measured in turns."""

    name: str
    kind: str  # "blocks" of steps, "compile" times, or the fits of "seeds"
    workloads: tuple[Workload, ...]  # for "seeds" one, whose runs are trained together and alone
    rounds: int
    seconds: float = 0.0  # that a block takes
    starts: int = 1  # how often, by new processes: the memory that a process gets may decide its speed for good

    @property
    def digest(self) -> str:
        """Return a name for exactly these measurements."""
        asked = [self.kind, [dataclasses.asdict(workload) for workload in self.workloads], *self[3:]]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def measure(path: Path, cases: Mapping[str, Sequence[Group]], stop: Stop) -> None:
    """Measure the groups of {case: groups} that the file of records has not, and append them one by one.

    Raises:
        WorkerError: a subject failed. The others were measured; the same command measures its group again.
        Interrupted: a signal asked to stop. Finished groups are in the file.
    """
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="capsnet_jax-bench-") as scratch:
        bench = _Bench(scratch, stop)
        about, absent = bench.environment({w.subject for groups in cases.values() for g in groups for w in g.workloads})
        for case, asked in cases.items():
            print(case, flush=True)
            groups = [group for group in asked if bench.devices > 1 or group.name != "devices"]
            for number, group in enumerate(groups, 1):
                able = (w for w in group.workloads if w.subject not in absent and w.devices <= bench.devices)
                group = group._replace(workloads=tuple(able))
                key = {"machine": about["machine"], "case": case, "group": group.name, "digest": group.digest}
                done = [row["revision"] for row in records.load(path).to_dict("records") if key.items() <= row.items()]
                todo = f"{len(group.workloads)} in turn, {group.rounds * group.starts} rounds"
                todo = f"measured already (code of revision {done[-1] or 'unknown'})" if done else todo
                print(f"[{number}/{len(groups)}] {group.name}: {todo}", flush=True)
                if done:
                    continue
                rows, failed = bench.measure(group)
                failures += failed
                key |= {"digest": "" if failed else group.digest, "recorded": datetime.now(UTC).isoformat()}
                records.append(path, [about | key | row for row in rows])
                if OURS not in {row["subject"] for row in rows}:
                    break  # there is nothing to compare with
    if failures:
        raise WorkerError("; ".join(dict.fromkeys(failures)))


class _Bench:
    """Measures groups; `scratch` is a folder for compiled programs."""

    def __init__(self, scratch: str, stop: Stop):
        self._scratch, self._stop, self._failures = scratch, stop, list[str]()
        self._backend, self.devices, self._weights = "cpu", 1, dict[str, Any]()

    def environment(self, subjects: set[str]) -> tuple[dict[str, str], set[str]]:
        """Return what records say of machine and code, and the subjects that cannot be compared with here."""
        if (about := self._ask("environment", environment)) is None:
            raise WorkerError(self._failures[-1])
        self._backend, self.devices = about.pop("backend"), int(about.pop("devices"))
        peers = {name for name in subjects if name.startswith(("pytorch", "torchvision"))}
        packages = ["torch"] * bool(peers) + ["torchvision"] * ("torchvision" in peers)
        installed, why = [name for name in packages if importlib.util.find_spec(name)], ""
        if installed != packages:
            why = "is not installed: pip install -e '.[peers]' brings it"
        elif packages and self._ask("PyTorch", process.torch_device) == "cpu" and self._backend != "cpu":
            why = f"computes on the CPU and JAX on {self._backend}: install PyTorch for that device"
        if why:
            print(f"without {packages[-1]}, which {why}", flush=True)
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ["jax", *installed])
        return about | {"versions": versions}, peers if why else set()

    def measure(self, group: Group) -> tuple[list[dict[str, Any]], list[str]]:
        """Return a group's measurements, and a line for each subject that failed."""
        self._failures, rows = [], []
        measured = {"blocks": self._blocks, "compile": self._compile_times, "seeds": self._seeds}[group.kind]
        for workload, quantity, number, value in measured(group):
            unit = "images/s" if quantity == workload.phase else "MB" if quantity.endswith("memory") else "s"
            if value < math.inf:
                rows.append(workload.columns() | {"quantity": quantity, "round": number, "value": value, "unit": unit})
        return rows, self._failures

    def _blocks(self, group: Group) -> Measured:
        """Yield speeds by every start's processes, memory and compile times by the first start's."""
        caches = [tempfile.mkdtemp(dir=self._scratch) for _ in group.workloads]
        for start in range(group.starts):
            timed = start == 0 and group.name == "training"
            with contextlib.ExitStack() as stack:
                workers = [stack.enter_context(self._open(*pair)) for pair in zip(group.workloads, caches, strict=True)]
                compile_seconds = self._compile(workers, in_turn=timed)
                timers = [lambda n, worker=worker: worker.ask(run_steps, n) or math.inf for worker in workers]
                for index, number, steps, seconds in interleave(timers, group.rounds, group.seconds):
                    workload = group.workloads[index]
                    speed = steps * workload.batch * workload.runs / seconds
                    yield workload, workload.phase, start * group.rounds + number, speed
                for workload, worker, taken in zip(group.workloads, workers, compile_seconds, strict=True):
                    if start == 0 and (peak := worker.ask(process.peak_memory)):
                        yield workload, f"{workload.phase}_memory", 0, peak / 1e6
                    if timed and taken:
                        yield workload, "compile_cold", 0, taken

    def _compile_times(self, group: Group) -> Measured:
        """Yield the time of a new process, and of another with what that one compiled; training has cold round 0."""
        for number in range(group.rounds):
            for workload in group.workloads:
                cache = tempfile.mkdtemp(dir=self._scratch)
                for quantity in ("compile_cold", "compile_warm"):
                    with self._open(workload, cache) as worker:
                        seconds = self._compile([worker], in_turn=True)[0] or math.inf
                    yield workload, quantity, number + (quantity == "compile_cold"), seconds

    def _seeds(self, group: Group) -> Measured:
        """Yield the time of all runs in one program, and the sum of each one's own, which is compiled once as well."""
        [workload], seeds = group.workloads, list(range(group.workloads[0].runs))
        for number in range(group.rounds):
            for quantity, programs in (("fit_together", [seeds]), ("fit_alone", [[seed] for seed in seeds])):
                cache = tempfile.mkdtemp(dir=self._scratch)
                seconds = [self._ask("fit", ours.fit, workload, runs, cache=cache) or math.inf for runs in programs]
                yield workload, quantity, number, sum(seconds)

    def _open(self, workload: Workload, cache: str) -> Process:
        """Start a process that gets its subject, data and weights."""
        weights = None
        if workload.subject in ("plain_jax", "pytorch", "pytorch_compiled"):  # they start from our weights
            sizes = {path: value for path, value in workload.settings.items() if path.startswith(("model.", "loss."))}
            key = json.dumps([sizes, workload.classes, workload.side], sort_keys=True)
            if key not in self._weights:
                self._weights[key] = self._ask("initial weights", ours.initial_weights, workload)
            weights = self._weights[key]
        name = ", ".join(f"{name} {value}" for name, value in workload.columns().items() if name != "subject")
        worker = Process(f"{workload.subject} ({workload.phase}, {name})", self._stop, cache, self._failures)
        worker.send(process.open_subject, workload, weights)
        return worker

    def _compile(self, workers: Sequence[Process], *, in_turn: bool) -> list[float | None]:
        """Compile, one by one where that is timed or where kernels are tried out; return the seconds."""
        seconds = []
        for worker in workers:
            worker.receive()  # all import and get their data at once
        for batch in [[worker] for worker in workers] if in_turn or self._backend != "cpu" else [workers]:
            for worker in batch:
                worker.send(process.compile_subject)
            seconds += [worker.receive() for worker in batch]
        return seconds

    def _ask(self, name: str, function: Callable[..., Any], *arguments: Any, cache: str = "") -> Any:
        with Process(name, self._stop, cache or tempfile.mkdtemp(dir=self._scratch), self._failures) as worker:
            return worker.ask(function, *arguments)


def interleave(timers: Sequence[Callable[[int], float]], rounds: int, seconds: float) -> Iterator[tuple]:
    """Measure in turn: A B C, A B C, … Whatever slows the machine for a while then slows all alike.

    A timer does that many steps and returns the seconds that they took, infinity if it cannot. A block takes `seconds`,
    or one step. Before it there is a step that is not measured: after a pause memory that was freed must be got again,
    which costs a virtual machine seconds a gigabyte. Yields a block's timer (its index), round, steps and seconds.
    """
    speeds = [warm_up(timer, seconds) for timer in timers]
    for number in range(rounds):
        for index, (timer, speed) in enumerate(zip(timers, speeds, strict=True)):
            slow, steps = speed * _SLOW * seconds < 1, max(1, round(speed * seconds))
            if not slow:
                timer(1)
            if (not slow or number < _SLOW_ROUNDS) and (took := timer(steps)) < math.inf:
                yield index, number, steps, took


def warm_up(timer: Callable[[int], float], seconds: float) -> float:
    """Run a timer until its speed is known, and return that, steps a second."""
    steps, took = 1, timer(1)  # which allocates and loads: it counts only where it is so slow that this cannot matter
    if took <= _SLOW * seconds:
        took = timer(steps)
        while took < seconds / 4:
            steps *= 4
            took = timer(steps)
    return steps / took


def environment() -> dict[str, str]:
    """Return the backend, the devices, and what a record says of the machine and of this code."""
    about, cpu, devices = run_records.environment(), Path("/proc/cpuinfo"), jax.device_count()
    text = cpu.read_text() if cpu.exists() else ""
    lines = re.findall(r"^(cpu family|model|model name)\s*: (.+)$", text, re.MULTILINE)
    # "AMD EPYC" is many machines; the numbers of family and model say which.
    machine = [about["device"]] if about["device"] != "cpu" else [*dict(lines).values(), f"{about['cores']} cores"]
    name = "/".join([*machine, *[f"{devices} devices"] * (devices > 1)])
    revision = f"{about['git_revision']}{'+' if about['git_changes'] else ''}"
    return {"machine": name, "backend": about["backend"], "devices": str(devices), "revision": revision}
