"""A worker that only pretends, at known speeds, and a log of what was asked of it."""

from pathlib import Path

STEP = {"capsnet_jax": 0.5, "plain_jax": 2.0, "pytorch": 1.0}  # seconds
NET_STEP = {"capsnet_jax": 0.5, "torchvision": 1.0, "torchvision_channels_last": 0.75}
LOG: list[tuple] = []


class FakeProcess:
    """Answers as a worker, and notes what was asked."""

    def __init__(self, name, folder, stop, *, cache=None):
        self.cache, self.subject, self.closed = cache, None, False
        LOG.append(("start", name))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        assert not self.closed
        self.closed = True
        LOG.append(("close", self.subject))

    def send(self, do, **arguments):
        self.pending = self.ask(do, **arguments)

    def receive(self):
        LOG.append(("receive", self.subject))
        return self.pending

    def ask(self, do, **arguments):
        LOG.append((do, self.subject, *(v for k, v in arguments.items() if k in ("steps", "seeds"))))
        if do == "open":
            self.subject = arguments["workload"]["subject"]
            assert (self.subject in ("plain_jax", "pytorch")) == bool(arguments["workload"]["weights"])
        elif do == "prepare":
            warm = (self.cache / "program").exists()
            (self.cache / "program").touch()
            return {"seconds": (0.25 if warm else 8.0) if self.subject in ("capsnet_jax", "plain_jax") else None}
        elif do == "run":
            return {"seconds": arguments["steps"] * (STEP | NET_STEP)[self.subject]}
        elif do == "peak":
            return {"bytes": int(1e9 * (STEP | NET_STEP)[self.subject])}
        elif do == "weights":
            Path(arguments["path"]).touch()
        elif do == "fit":
            return {"seconds": 3.0 + 10 * len(arguments["seeds"])}
        return {}
