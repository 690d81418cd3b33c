"""Experiments: one file, one question. README.md beside this file shows what a file holds and how to add one."""

# Name → module, which is imported when the experiment is asked for.
EXPERIMENTS: dict[str, str] = {
    "routing_iterations": "experiments.routing_iterations",
    "routing_vs_backprop": "experiments.routing_vs_backprop",
    "routing_diagnostics": "experiments.routing_diagnostics",
    "routers": "experiments.routers",
    "squashings": "experiments.squashings",
    "em_iterations": "experiments.em_iterations",
    "multi_mnist": "experiments.multi_mnist",
    "affnist": "experiments.affnist",
    "released_recipe": "experiments.released_recipe",
    "quarter_percent": "experiments.quarter_percent",
    "hops": "experiments.hops",
    "loss_scale": "experiments.loss_scale",
    "capsule_dimensions": "experiments.capsule_dimensions",
    "conv_baselines": "experiments.conv_baselines",
    "invariance": "experiments.invariance",
    "seeing_inside": "experiments.seeing_inside",
    "map_faithfulness": "experiments.map_faithfulness",
    "dead_channels": "experiments.dead_channels",
    "transfer_cases": "experiments.transfer_cases",
    "ilsvrc_evolution": "experiments.ilsvrc_evolution",
    "sweep_demo": "experiments.sweep_demo",
    "throughput": "experiments.throughput",
    "throughput_nets": "experiments.throughput_nets",
}
