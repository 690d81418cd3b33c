"""Measurements as a whole run leaves them, with made-up numbers."""

import pandas as pd

SPEEDS = {"capsnet_jax": 240.0, "pytorch_compiled": 51.0, "pytorch": 48.0, "plain_jax": 4.1}


def row(quantity="training", value=1.0, subject="capsnet_jax", **fields) -> dict:
    unit = {"memory": "MB", "training": "images/s", "inference": "images/s"}.get(quantity.split("_")[-1], "s")
    default = {
        "machine": "here",
        "case": "paper",
        "group": quantity.split("_")[0],
        "subject": subject,
        "model": "capsnet",
        "preset": "paper",
        "quantity": quantity,
        **{"batch": 128, "iterations": 3, "classes": 10, "side": 28, "runs": 1, "parallel": "auto", "devices": 1},
        **{"round": 0, "value": value, "unit": unit},
        **{"revision": "abc", "versions": "jax 1", "recorded": "2026", "digest": "d"},
    }
    return default | fields


def comparison(case="paper", **more) -> list[dict]:
    """Round k is 1 % faster than the one before; plain JAX has two, the others three."""
    found = []
    for subject, speed in SPEEDS.items():
        of = {"subject": subject, "case": case} | more
        for number in range(2 if subject == "plain_jax" else 3):
            factor = 1.01**number
            found += [row("training", speed * factor, round=number, **of)]
            found += [row("inference", 4 * speed * factor, round=number, **of)]
        found += [row("training_memory", 900.0 + speed, **of), row("inference_memory", 500.0 + speed, **of)]
        if subject != "pytorch":
            found += [row("compile_cold", 5.0, **of | {"group": "training"})]
        if subject in ("capsnet_jax", "plain_jax"):
            found += [row("compile_cold", 7.0, round=1, **of), row("compile_warm", 0.4, **of)]
    return [*found, *(row("training", 3000.0 * 1.01**k, preset="small", round=k, case=case, **more) for k in range(3))]


def curves(case="paper") -> list[dict]:
    found = []
    for number in range(2):
        own = {"round": number, "case": case}
        for subject, speed in (("capsnet_jax", 250.0), ("pytorch", 50.0)):
            own |= {"subject": subject}
            found += [row(value=speed - 5 * r, group="iterations", iterations=r, **own) for r in (1, 2, 3, 5, 7)]
            found += [row(value=speed - 500 / b, group="batch", batch=b, **own) for b in (16, 32, 64, 128, 256)]
            for field, values in (("classes", (5, 10, 20, 50)), ("side", (20, 28, 36, 44))):
                found += [row(value=1e5 / v, group=field, preset="small", **own, **{field: v}) for v in values]
        own |= {"subject": "capsnet_jax", "group": "runs", "preset": "small"}
        found += [row(value=2500.0, parallel="map", **own)]
        found += [
            row(value=speed / n**0.1, parallel=parallel, runs=n, **own)
            for parallel, speed in (("map", 2400.0), ("vmap", 1200.0))
            for n in (2, 5, 10)
        ]
        own |= {"group": "devices"}
        found += [row(value=2400.0 * n, runs=n, devices=n, **own) for n in (1, 2, 4)]
        found += [row(value=2400.0 * n**0.5, devices=n, **own) for n in (2, 4)]
    return found


def seeds(case="paper") -> list[dict]:
    own = {"runs": 5, "preset": "small", "group": "seeds", "case": case}
    return [
        row(f"fit_{how}", seconds + number, round=number, **own)
        for how, seconds in (("together", 30.0), ("alone", 61.0))
        for number in range(2)
    ]


def net(name="resnet18", more="", scale=1.0, **fields) -> list[dict]:
    """Three rounds of one net's training, and of inference at twice the speed; `scale` is of ours."""
    speeds = {
        "capsnet_jax": (10.0 * scale, 11.0 * scale, 12.0 * scale),
        "torchvision": (5.0, 4.0, 6.0),
        "torchvision_channels_last": (4.0, 8.0, 5.0),
    }
    case = " ".join(["small", f"model.name={name}", *filter(None, [more])])
    own = {"preset": "small", "batch": 8, "classes": 1000, "side": 224, "case": case, "model": name} | fields
    return [
        row(phase, factor * speed, subject, round=number, **own)
        for phase, factor in (("training", 1), ("inference", 2))
        for subject, rounds in speeds.items()
        for number, speed in enumerate(rounds)
    ]


def frame(found: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(found, columns=list(row()))
