"""Experiments: one file, one question.

Each has the same three names. CONFIG is what it changes in the preset {path: value}; SWEEP is the settings that it
compares, a list of {path: value}; `figures(records)` draws {name: figure} from finished runs. To add one, write its
file and add its line here.

One that measures something else than trained networks has two more: `measure(settings, workdir, stop)` does in place
of training what the workdir does not yet hold, and `report(workdir)` gives what is told on the terminal, and the
records for `figures`.
"""

from types import ModuleType

from experiments import routing_iterations, routing_vs_backprop, throughput

EXPERIMENTS: dict[str, ModuleType] = {
    "routing_iterations": routing_iterations,
    "routing_vs_backprop": routing_vs_backprop,
    "throughput": throughput,
}
