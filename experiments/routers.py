"""Which routing algorithm is best, when all else is equal?

Each was published on a backbone, a data set and a rule of choosing of its own. Here all have one small CapsNet, one
schedule, one loss and one decoder. The claims: EM routing beats routing by agreement (Hinton et al. 2018), variational
Bayes beats EM (Ribeiro et al. 2020), self-routing beats both (Hahn et al. 2019), max-min couplings a softmax (Zhao et
al. 2019), one pass of self-attention many iterations (Mazzia et al. 2021); and that random couplings do as well as any
(Paik et al. 2019). Each router squashes the class capsules as its paper does.

    python launch.py --experiment=routers --seeds=5 --set data.train_size=10000 --set data.validation_fraction=0.05 \
        --sweep data.dataset=mnist,fashion_mnist,affnist

Each learning rate is the best of four by the validation error on Fashion-MNIST, two seeds each, the same budget for
every router:

    python launch.py --experiment=routers --first_seed=100 --seeds=2 --dataset=fashion_mnist --workdir=runs/rates \
        --set data.train_size=5000 --set data.validation_fraction=0.05 --set eval.test_each_epoch=false \
        --set train.epochs=4 --sweep train.learning_rate=0.001,0.003,0.01,0.03

Images/s and memory are of training, on what the page says.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax.config import PRESETS
from capsnet_jax.figures.arms import compare_arms
from capsnet_jax.figures.grouping import Record
from capsnet_jax.figures.images import network_paths
from capsnet_jax.figures.labels import MODEL
from capsnet_jax.routing import ROUTERS

CONFIG: dict[str, object] = {
    "train.epochs": 6,
    "train.batch_size": 32,
    "eval.couplings": True,
    "eval.test_each_epoch": True,
}

RATE = "train.learning_rate"
SMALL_RATE = PRESETS["small"][RATE]  # for a router without one of its own here
RATES = {
    "dynamic": 1e-2,
    "max_min": 3e-3,
    "self_attention": 1e-2,
    "inverted_attention": 3e-3,
    "self_routing": 3e-2,
    "em": 1e-2,
    "variational": 3e-3,
    "uniform": 1e-2,
    "learned": 1e-2,
    "random": 1e-2,
    "cnn_small": 3e-3,
}


def routed_by(router: str, **settings: object) -> dict[str, object]:
    """Return the arm of the small CapsNet with a router, its learning rate, and settings of its own."""
    own = {f"routing.{name}": value for name, value in settings.items()}
    return {MODEL: "capsnet_small", "routing.name": router, RATE: RATES.get(router, SMALL_RATE)} | own


BASELINE: dict[str, object] = {"routing.name": "dynamic", "routing.leaky": False, "routing.bias": False}

VARIANTS = [{"leaky": leaky, "bias": bias} for leaky, bias in ((False, False), (True, False), (False, True))]
CNN: dict[str, object] = {MODEL: "cnn_small", RATE: RATES["cnn_small"]}

SWEEP: list[dict[str, object]] = [
    *(routed_by("dynamic", **variant) for variant in VARIANTS),
    *(routed_by(router) for router in ROUTERS if router != "dynamic"),
    CNN,
]

CAPTIONS = {
    "test_error": "test error after the last epoch",
    "differences": "test error less that of routing by agreement",
    "entropy": "entropy of the couplings over its greatest value, on the test set: 1 is uniform",
    "variation": "how much a coupling varies from image to image: standard deviation over mean, 0 is static",
    "learning_curves": "each metric by epoch, a line for each router",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw errors, their differences from routing by agreement, what the couplings are like, and learning curves."""
    by = network_paths(records, [MODEL, "routing.name"])
    couplings = {name: f"test_coupling_{name}" for name in ("entropy", "variation")}
    return compare_arms(records, by, declared=SWEEP, baseline=BASELINE, quantities=couplings)
