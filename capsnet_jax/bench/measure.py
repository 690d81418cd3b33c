"""Carrying a plan out: worker processes, group after group, into the ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from capsnet_jax.bench import plan
from capsnet_jax.bench.interleave import interleave
from capsnet_jax.bench.ledger import Ledger, Row
from capsnet_jax.bench.plan import Group
from capsnet_jax.bench.process import Process, WorkerError
from capsnet_jax.bench.workload import FRESH, Workload
from capsnet_jax.config import Config
from capsnet_jax.sweeps import records


def measure(
    settings: Sequence[Config], workdir: Path, stop: Callable[[], int | None], study: ModuleType = plan
) -> None:
    """Measure every group of every setting that the workdir has not.

    Args:
        settings: each is measured for itself.
        workdir: held by this process alone; gets `EXPERIMENT.jsonl` and `environment.json`.
        stop: tells the signal that asked to stop, or None.
        study: says what there is to measure: `plan` for CapsNet, `nets` for those that torchvision has too.

    Raises:
        ConfigError: a setting that cannot be measured; before anything is.
        WorkerError: a worker failed, which ends its setting, but not the others; what was finished is kept.
        Interrupted: a signal asked to stop; what was finished is kept.
    """
    for setting in settings:
        study.check(setting)
    ledger = Ledger(workdir, study.EXPERIMENT)
    with tempfile.TemporaryDirectory(prefix="capsnet_jax-throughput-") as scratch:
        bench = Bench(Path(scratch), stop)
        about, peers = _look_around(bench, study)
        records.write_json(workdir / "environment.json", about)
        failed: list[str] = []
        for setting in settings:
            case = plan.case(setting)
            print(case, flush=True)
            try:
                _measure_groups(case, study.groups(setting, peers, study.EFFORT), bench, ledger)
            except WorkerError as failure:
                failed.append(str(failure))
                print("failed", flush=True)
    if failed:
        raise WorkerError("; ".join(failed))


def _measure_groups(case: str, groups: Sequence[Group], bench: Bench, ledger: Ledger) -> None:
    """Measure the groups of one case that the ledger has not."""
    for number, group in enumerate(groups, 1):
        title = f"[{number}/{len(groups)}] {group.name}"
        if ledger.finished(case, group.name, group.digest):
            print(f"{title}: measured already", flush=True)
            continue
        starts = f", by {group.starts} processes each" if group.starts > 1 else ""
        print(f"{title}: {len(group.workloads)} in turn, {group.rounds} rounds{starts}", flush=True)
        rows = [row._replace(case=case) for row in bench.measure(group)]
        ledger.add(case, group.name, group.digest, rows)


def _look_around(bench: Bench, study: ModuleType) -> tuple[dict[str, Any], list[str]]:
    """The environment, and a study's peers that can be compared with here."""
    with bench.process("environment") as worker:
        about = worker.ask("about")
    bench.backend = about["backend"]
    peers, missing = list(study.PEERS), None
    if any(importlib.util.find_spec(package) is None for package in study.PACKAGES):
        missing = "is not installed: pip install -e '.[peers]' brings it"
    else:
        with bench.process(f"environment of {study.LIBRARY}") as worker:
            for name in study.PACKAGES.values():
                about[name] = worker.ask(f"about_{name}")
        if about["backend"] != "cpu" and about["pytorch"]["device"] == "cpu":
            missing = f"computes on the CPU and JAX on {about['backend']}: install PyTorch for that device"
    if missing:
        peers = [peer for peer in peers if peer == "plain_jax"]
        print(f"without rows of {study.LIBRARY}, which {missing}", flush=True)
    return about, peers


class Bench:
    """Measures groups with worker processes of its own.

    Attributes:
        backend: JAX's. Only one process at a time can hold a TPU: there, every block has a process of its own, and
            those of a workload share compiled programs.
    """

    def __init__(self, scratch: Path, stop: Callable[[], int | None]):
        """Logs, caches and weights go to `scratch`; `stop` tells the signal that asked to stop."""
        self.backend = "cpu"
        self._scratch, self._stop = scratch, stop

    def measure(self, group: Group) -> Iterator[Row]:
        """The group's rows, their case left empty."""
        kinds = {"blocks": self._blocks, "compile": self._compilations, "fits": self._fits}
        for workload, quantity, number, value, unit in kinds[group.kind](group):
            yield Row(
                subject=workload.subject,
                preset=workload.preset,
                quantity=quantity,
                batch=workload.batch,
                iterations=workload.iterations,
                classes=workload.classes,
                side=workload.side,
                runs=workload.runs,
                across=workload.across,
                round=number,
                value=value,
                unit=unit,
                group=group.name,
                case="",
                model=workload.model,
            )

    def process(self, name: str, cache: Path | None = None) -> Process:
        """A new worker process."""
        return Process(name, self._scratch / "logs", self._stop, cache=cache)

    def _blocks(self, group: Group) -> Iterator[tuple[Workload, str, int, float, str]]:
        """Speed, block by block in turn, by every start's processes; more of the first start's by the way."""
        workloads = [self._with_weights(workload) for workload in group.workloads]
        folders = [self._folder() for _ in workloads]  # where later processes find what the first ones compiled
        for start in range(group.starts):
            with contextlib.ExitStack() as stack:
                pairs = zip(workloads, folders, strict=True)
                seats = [stack.enter_context(_Seat(self, workload, folder)) for workload, folder in pairs]
                if self.backend != "tpu":
                    self._settle(seats, timed=start == 0 and group.name == "training")
                timers = [seat.seconds for seat in seats]
                for block in interleave(timers, group.rounds, group.seconds, plan.EFFORT.slow_rounds):
                    workload = workloads[block.subject]
                    images = block.steps * workload.batch * workload.runs
                    number = start * group.rounds + block.round
                    yield workload, workload.phase, number, images / block.seconds, "images/s"
                if start == 0:
                    for workload, seat in zip(workloads, seats, strict=True):
                        yield from self._costs(workload, seat, timed=group.name == "training")

    def _costs(self, of: Workload, seat: _Seat, *, timed: bool) -> Iterator[tuple[Workload, str, int, float, str]]:
        """A process's peak memory, and the time that it took to compile."""
        yield of, f"{of.phase}_memory", 0, seat.peak() / 1e6, "MB"
        if timed and seat.compiled is not None:
            yield of, "compile_cold", 0, seat.compiled, "s"

    def _compilations(self, group: Group) -> Iterator[tuple[Workload, str, int, float, str]]:
        """Compilation by a new process without, then with what another one compiled."""
        for number in range(group.rounds):
            for workload in map(self._with_weights, group.workloads):
                cache = self._folder()
                for quantity in ("compile_cold", "compile_warm"):
                    with _Seat(self, workload, cache) as seat:
                        self._settle([seat], timed=True)
                        assert seat.compiled is not None, "only subjects that compile are asked"
                        # Round 0 of the cold ones was the training group's.
                        yield workload, quantity, number + (quantity == "compile_cold"), seat.compiled, "s"

    def _settle(self, seats: Sequence[_Seat], *, timed: bool) -> None:
        """Start the workers at once, and compile: one by one where that is timed, or where kernels are tried out."""
        for seat in seats:
            seat.start()
        for seat in seats:
            seat.opened()
        in_turn = timed or self.backend != "cpu"
        for few in [[seat] for seat in seats] if in_turn else [seats]:
            for seat in few:
                seat.compile()
            for seat in few:
                seat.ready()

    def _fits(self, group: Group) -> Iterator[tuple[Workload, str, int, float, str]]:
        """Whole trainings, compilation included: all seeds in one program, then each in a process of its own."""
        [together] = group.workloads
        alone = dataclasses.replace(together, runs=1)
        seeds = list(range(together.runs))
        for number in range(group.rounds):
            yield together, "fit_together", number, self._fit(together, seeds), "s"
            yield together, "fit_alone", number, sum(self._fit(alone, [seed]) for seed in seeds), "s"

    def _fit(self, workload: Workload, seeds: list[int]) -> float:
        with self.process("fit") as worker:
            return worker.ask("fit", workload=dataclasses.asdict(workload), seeds=seeds)["seconds"]

    def _with_weights(self, workload: Workload) -> Workload:
        """Give a peer the initial weights that this project starts from at the same setting."""
        if workload.subject in FRESH:
            return workload
        ours = dataclasses.replace(workload, subject="capsnet_jax", phase="training")
        sizes = {path: v for path, v in workload.settings.items() if path.startswith(("model.", "loss.reconstruction"))}
        key = json.dumps([sizes, workload.classes, workload.side], sort_keys=True)
        path = self._scratch / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        if not path.exists():
            with self.process("initial weights") as worker:
                worker.ask("weights", workload=dataclasses.asdict(ours), path=str(path))
        return dataclasses.replace(workload, weights=str(path))

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))


class _Seat:
    """A workload's worker process, started when needed."""

    def __init__(self, bench: Bench, workload: Workload, cache: Path):
        self.compiled: float | None = None
        self._bench, self._workload, self._cache = bench, workload, cache
        self._process: Process | None = None
        self._peak = 0

    def __enter__(self) -> _Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def start(self) -> None:
        """Start the process; it imports and gets its data while others do."""
        workload = self._workload
        at = f"batch {workload.batch}, r = {workload.iterations}, {workload.classes} classes, {workload.side} pixels"
        what = f"{workload.model}, {workload.preset}, {workload.phase}"
        name = f"{workload.subject} ({what}, {at}, {workload.runs} runs)"
        self._process = self._bench.process(name, self._cache)
        self._process.send("open", workload=dataclasses.asdict(workload))

    def opened(self) -> None:
        """Wait for imports and data."""
        self._running().receive()

    def compile(self) -> None:
        """Begin to compile."""
        self._running().send("prepare")

    def ready(self) -> None:
        """Wait until that is done; the seconds of the first time are kept."""
        seconds = self._running().receive()["seconds"]
        self.compiled = seconds if self.compiled is None else self.compiled

    def seconds(self, steps: int) -> float:
        """Do steps; the seconds they took."""
        if self._process is not None:
            return self._running().ask("run", steps=steps)["seconds"]
        self.start()
        self.opened()
        self.compile()
        self.ready()
        self._running().ask("run", steps=1)
        taken = self._running().ask("run", steps=steps)["seconds"]
        self._peak = self._running().ask("peak")["bytes"]
        self.leave()
        return taken

    def peak(self) -> int:
        """Peak memory, bytes."""
        return self._running().ask("peak")["bytes"] if self._process else self._peak

    def _running(self) -> Process:
        assert self._process is not None, "started before"
        return self._process

    def leave(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
        self._process = None
