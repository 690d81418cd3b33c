"""Experiments: one file, one question.

Each has the same three names. CONFIG is what it changes in the preset {path: value}; SWEEP is the settings that it
compares, a list of {path: value}; `figures(records)` draws {name: figure} from finished runs. To add one, write its
file and add its line here.

One that looks into the trained networks has `observe(trained)` too: arrays to keep of each, for `figures` to read.
One whose tables and figures need more than was recorded has `count(record)`: numbers {name: value} that follow from a
run's settings, and stand beside its result.

One that measures something else than trained networks has two more: `measure(settings, workdir, stop)` does in place
of training what the workdir does not yet hold, and `report(workdir)` gives what is told on the terminal, and the
records for `figures`.
"""

from types import ModuleType

from experiments import (
    capsule_dimensions,
    conv_baselines,
    ilsvrc_evolution,
    invariance,
    loss_scale,
    routing_diagnostics,
    routing_iterations,
    routing_vs_backprop,
    sweep_demo,
    throughput,
    throughput_nets,
    transfer_cases,
)

EXPERIMENTS: dict[str, ModuleType] = {
    "routing_iterations": routing_iterations,
    "routing_vs_backprop": routing_vs_backprop,
    "routing_diagnostics": routing_diagnostics,
    "loss_scale": loss_scale,
    "capsule_dimensions": capsule_dimensions,
    "conv_baselines": conv_baselines,
    "invariance": invariance,
    "transfer_cases": transfer_cases,
    "ilsvrc_evolution": ilsvrc_evolution,
    "sweep_demo": sweep_demo,
    "throughput": throughput,
    "throughput_nets": throughput_nets,
}
