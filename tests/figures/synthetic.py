"""Records that look like training, made of numbers: what the figures' tests draw."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class FakeRecord:
    settings: dict
    seed: int
    metrics: dict
    result: dict


def fake_record(seed=0, epochs=10, floor=0.6, test_error=None, **settings):
    """One run whose error falls towards `floor` percent; settings are given as `routing__iterations=3`."""
    rng = np.random.default_rng([seed, epochs, round(1000 * floor)])
    epoch = np.arange(1, epochs + 1)
    error = floor * (1 + 9 * np.exp(-epoch / 1.5)) * rng.lognormal(0, 0.06, epochs)
    margin = 0.01 * error * rng.lognormal(0, 0.03, epochs)
    mse = 0.02 + 0.04 * np.exp(-epoch / 2) * rng.lognormal(0, 0.05, epochs)
    metrics = {
        "epoch": epoch,
        "train_classification_loss": margin,
        "train_reconstruction_mse": mse,
        "train_loss": margin + 0.392 * mse,
        "train_error": 1.2 * error,
        "validation_error": error,
    }
    paths = {"data__dataset": "mnist", "routing__name": "dynamic"} | settings
    measured = floor * rng.lognormal(0, 0.08) if test_error is None else test_error
    return FakeRecord(
        {name.replace("__", "."): value for name, value in paths.items()},
        seed,
        metrics,
        {"test_error": measured, "images_per_second": 20_000.0 / settings.get("routing__iterations", 1)},
    )


def probed(record, greatest=4):
    """The record as if it had been probed with 1 to `greatest` iterations: errors are least where it was trained."""
    error, epochs = record.metrics["validation_error"], record.metrics["epoch"].size
    r = record.settings["routing.iterations"]
    record.metrics["validation_dead_capsules"] = np.full(epochs, 25.0)
    for t in range(1, greatest + 1):
        worse = 1 + 0.1 * abs(t - r)
        record.metrics[f"validation_error_at_{t}"] = error * worse
        record.metrics[f"validation_entropy_at_{t}"] = 1 - 0.1 * (t - 1) * np.linspace(0.3, 1, epochs)
        record.result[f"test_error_at_{t}"] = record.result["test_error"] * worse
        if t > 1:
            fall = np.exp(-t - np.arange(epochs) / 10) * (1 + 0.1 * record.seed)
            for number, what in enumerate(("logit", "coupling", "capsule")):
                record.metrics[f"validation_{what}_change_at_{t}"] = 0.1 * fall / 10**number
            record.metrics[f"validation_flips_at_{t}"] = 5 * fall
            record.metrics[f"validation_agreement_at_{t - 1}"] = 0.05 * t * np.linspace(0.5, 1, epochs)
    return record
