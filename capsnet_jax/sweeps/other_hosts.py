"""What a process does that is not the first of its job: its part of the programs, as process 0 asks for them."""

import dataclasses
from collections.abc import Sequence
from typing import NoReturn

import jax

from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps.plan import Plan
from capsnet_jax.sweeps.pretrain import pretraining_runs
from capsnet_jax.sweeps.records import Run
from capsnet_jax.sweeps.train import Datasets, describe_task, fit_group, test_group
from capsnet_jax.training.fit import abstract_states
from capsnet_jax.training.parallel import make_mesh, resolve


def follow(runs: Sequence[Run], plan: Plan, datasets: Datasets) -> NoReturn:
    """Take part in the programs that process 0 trains, until it lets this process leave.

    Args:
        runs: those of process 0.
        plan: that of process 0.
        datasets: of `load_and_check`.

    Raises:
        ConfigError: process 0 was asked something else, or has other code.
    """
    plan = dataclasses.replace(plan, parallel=resolve(plan.parallel))
    known = {run.name: run for run in [*runs, *pretraining_runs(runs)]}
    while True:
        task = plan.hosts.agree()
        group = [known[name] for name in task["runs"] if name in known]
        own = describe_task(group, plan) if group else task | {"runs": []}
        if other := [what for what in task if task[what] != own[what]]:
            raise ConfigError(f"process 0 has other {', '.join(other)}; give all processes the same flags and code")
        mesh = make_mesh(len(group), group[0].config.train.batch_size, plan.devices)
        if mesh is not None and any(device.process_index == plan.hosts.process for device in mesh.devices.flat):
            _train(group, plan, datasets, mesh)


def _train(group: list[Run], plan: Plan, datasets: Datasets, mesh: jax.sharding.Mesh) -> None:
    """Do this process's part of `train_together`: all that process 0 does there with `hosts`, in the same order."""
    configs, seeds, dataset = [run.config for run in group], [run.seed for run in group], datasets[group[0].config.data]
    hosts = plan.hosts.among(mesh)
    step, history = hosts.agree()
    states = hosts.broadcast(abstract_states(configs, seeds, dataset))
    for at in fit_group(group, plan, dataset, mesh, (step, states, history), hosts):
        saves, stops, all_diverged = hosts.agree()
        if saves:
            hosts.gather(at.states)
        if stops:
            return
        if all_diverged:
            break
    test_group(configs, at, plan, dataset, mesh, hosts)
    hosts.gather(at.states)
