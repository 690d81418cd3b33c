"""Procedure 1 of Sabour 2017 as loops in float64: the oracle of the routers."""

import numpy as np

from capsnet_jax.routing import Routing


def parts(routing: Routing) -> tuple:
    """What `loop_routing` returns too."""
    return routing.capsules, routing.couplings, routing.logits


def softmax(logits) -> np.ndarray:
    """Of one vector."""
    powers = [np.exp(b - max(logits)) for b in logits]
    return np.array([power / sum(powers) for power in powers])


def couple(votes, couplings) -> np.ndarray:
    """Parents as squashed sums of votes."""
    inputs, outputs, dim = votes.shape
    capsules = np.zeros((outputs, dim))
    for o in range(outputs):
        s = sum(couplings[i, o] * votes[i, o] for i in range(inputs))
        norm = np.sqrt(np.sum(s * s))
        capsules[o] = norm**2 / (1 + norm**2) * s / norm
    return capsules


def loop_routing(
    votes, iterations, temperature=1.0, softmax_over="parents"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Capsules, couplings and logits after that many iterations."""
    votes = np.asarray(votes, np.float64)
    inputs, outputs, _ = votes.shape
    logits = np.zeros((inputs, outputs))
    for iteration in range(iterations):
        if softmax_over == "parents":
            couplings = np.array([softmax(logits[i] / temperature) for i in range(inputs)])
        else:
            couplings = np.array([softmax(logits[:, o] / temperature) for o in range(outputs)]).T
        capsules = couple(votes, couplings)
        if iteration == iterations - 1:
            return capsules, couplings, logits
        for i in range(inputs):
            for o in range(outputs):
                logits[i, o] += votes[i, o] @ capsules[o]
    raise ValueError("no iterations")
