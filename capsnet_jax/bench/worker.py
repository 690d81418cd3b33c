"""A worker process: does one workload's steps when told to; `python -m capsnet_jax.bench.worker`.

A request is a line of JSON on stdin, {"do": name, argument: value, …}; its answer is a line on stdout, an object, with
"error" in it if it failed. Between requests a worker sleeps. It ends with its stdin.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from capsnet_jax.bench.workload import SUBJECTS, Workload


class Worker:
    """The requests, one method each; answers are dictionaries."""

    def __init__(self) -> None:
        self._subject: Any = None

    def open(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """Import the subject and give it its data and weights."""
        given = Workload(**workload)
        self._subject = importlib.import_module(SUBJECTS[given.subject]).build(given)
        return {}

    def prepare(self) -> dict[str, Any]:
        """Compile; "seconds" is null for a subject that does not."""
        return {"seconds": self._opened().prepare()}

    def run(self, steps: int) -> dict[str, Any]:
        """Do steps, and tell the "seconds" they took."""
        clock = time.perf_counter()
        self._opened().run(steps)
        return {"seconds": time.perf_counter() - clock}

    def peak(self) -> dict[str, Any]:
        """Peak memory so far, "bytes"."""
        return {"bytes": self._opened().peak()}

    def fit(self, workload: Mapping[str, Any], seeds: list[int]) -> dict[str, Any]:
        """Train seeds in one program from nothing, and tell the "seconds"."""
        from capsnet_jax.bench import ours

        return {"seconds": ours.fit(Workload(**workload), seeds)}

    def weights(self, workload: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Write initial weights."""
        from capsnet_jax.bench import ours

        ours.save_weights(Workload(**workload), path)
        return {}

    def about(self) -> dict[str, Any]:
        """Versions and device, as a run's record has them."""
        from capsnet_jax.sweeps import records

        return records.environment()

    def about_pytorch(self) -> dict[str, Any]:
        """PyTorch's "version" and "device"."""
        from capsnet_jax.bench import pytorch

        return {"version": importlib.metadata.version("torch"), "device": pytorch.device()}

    def about_torchvision(self) -> dict[str, Any]:
        """Its "version"; fails where it is installed but cannot be used."""
        importlib.import_module("torchvision")
        return {"version": importlib.metadata.version("torchvision")}

    def _opened(self) -> Any:
        if self._subject is None:
            raise RuntimeError("no workload is open")
        return self._subject


def answer(worker: Worker, line: str) -> dict[str, Any]:
    """One request's answer; whatever goes wrong becomes an "error" of one line."""
    try:
        request = json.loads(line)
        name = request.pop("do")
        if name.startswith("_") or not hasattr(worker, name):
            raise ValueError(f"a worker cannot {name!r}")
        method: Callable[..., dict[str, Any]] = getattr(worker, name)
        return method(**request)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer every line until there are no more."""
    worker = Worker()
    for line in requests:
        print(json.dumps(answer(worker, line)), file=answers, flush=True)


def main() -> None:
    """Serve on stdin and stdout; what libraries print goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
