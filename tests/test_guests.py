"""What people add: each guest is one function and one line in a dictionary, and then runs from settings to a result."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from capsnet_jax import losses, models
from capsnet_jax.config import Config, ConfigError, pytree_dataclass, static, traced
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.augment import to_targets
from capsnet_jax.interpret.routing_diagnostics import observe_routing
from capsnet_jax.losses import LOSSES, METRICS, Loss, Metric
from capsnet_jax.models import MODELS, Model
from capsnet_jax.models.capsnet import decode
from capsnet_jax.ops.squash import SQUASHES, Squash, length
from capsnet_jax.overrides import build, flatten, program_key, resolve
from capsnet_jax.routing import ROUTERS, Router, Routing, Trace
from capsnet_jax.routing.result import weighted_parents
from capsnet_jax.sweeps import checkpoint, plan, records, run
from capsnet_jax.training.evaluation import evaluate, read_test_set
from capsnet_jax.training.fit import FitProgress, fit, initial_states
from capsnet_jax.training.optimizer import OPTIMIZERS
from capsnet_jax.training.schedule import SCHEDULES
from tests.test_losses import loop_error, loop_margin

CLASSES, BATCH = 4, 8
CAPSNET = {
    "model.name": "capsnet",
    "model.channels": 4,
    "model.kernel": 3,
    "model.capsule_types": 1,
    "model.primary_dim": 4,
    "model.class_dim": 4,
    "model.decoder": (8,),
}
FEW = {"data.max_shift": 0, "train.batch_size": BATCH, "train.epochs": 1, "train.learning_rate": 0.01}


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def make_examples(count: int, seed: int, *, several: bool = False) -> Examples:
    """A bright bar in noise for each class that an image shows, one or two."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 100, (count, 12, 12, 1), np.uint8)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    shown = np.eye(CLASSES, dtype=np.uint8)[labels]
    if several:
        shown |= np.eye(CLASSES, dtype=np.uint8)[(labels + 1 + np.arange(count) % 3) % CLASSES]
    for image, classes in zip(images, shown, strict=True):
        image[3 * np.flatnonzero(classes) + 1] += 150
    return Examples(images, shown if several else labels)


def make_data(**kind) -> Dataset:
    splits = [make_examples(count, seed, **kind) for seed, count in enumerate((24, 9, 10))]
    return Dataset("bars", tuple("abcd"), *splits)


DATA = make_data()


def capsnet(**changes) -> Config:
    """A tiny CapsNet; `routing__name="mine"` sets `routing.name`."""
    return build(CAPSNET | FEW | {path.replace("__", "."): value for path, value in changes.items()})


def train(*configs: Config, data: Dataset = DATA, **more) -> FitProgress:
    """Where one seed of each config ends, side by side."""
    *_, last = fit(list(configs), [0] * len(configs), data, parallel="map", **more)
    row = last.history[-1]
    assert all(np.isfinite(values).all() for values in row.values()), row
    return last


def run_of(tree, index: int = 0):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), tree)


def outputs(config: Config, progress: FitProgress, images: np.ndarray, index: int = 0) -> dict:
    params, stats = run_of(progress.states.eval_params, index)
    return models.apply(models.build(config, CLASSES), params, stats, jnp.asarray(images, jnp.float32) / 255)


# A router that looks at activations and learns parameters of its own.


@pytree_dataclass
class Mine:
    steps: int = static(2, low=1, high=9, doc="how often votes and parents are compared")
    sharpness: float = traced(1.0, low=0, doc="of the softmax")


def mine_parameters(key, inputs, outputs, dim):
    return {"bias": jnp.zeros(outputs)}


def mine_routing(votes, *, steps, sharpness, activations, parameters):
    logits = jnp.broadcast_to(parameters["bias"], votes.shape[:2])
    for _ in range(steps):
        couplings = jax.nn.softmax(sharpness * logits, axis=-1)
        capsules = weighted_parents(votes, couplings * activations[:, None])
        logits = logits + jnp.einsum("iod,od->io", votes, capsules)
    return Routing(capsules, length(capsules), couplings, logits)


@pytest.fixture
def router(monkeypatch):
    monkeypatch.setitem(ROUTERS, "mine", Router(mine_routing, settings=Mine(), parameters=mine_parameters))


@pytest.mark.slow
@pytest.mark.usefixtures("router")
def test_a_router_with_activations_learns_parameters_of_its_own():
    configs = [capsnet(routing__name="mine", routing__sharpness=text) for text in ("1", "4.5")]
    assert program_key(configs[0]) == program_key(configs[1])
    assert len(plan.group_by_program([records.Run(config, 0) for config in configs])) == 1
    start = initial_states(configs, [0, 0], DATA, parallel="map").params["class_capsules"]["routing"]["bias"]
    assert not start.any()
    last = train(*configs)
    learned = np.asarray(last.states.params["class_capsules"]["routing"]["bias"])
    assert learned.shape == (2, CLASSES)
    assert (np.abs(learned) > 1e-4).any(axis=1).all(), "backpropagation moves it"
    assert np.abs(learned[0] - learned[1]).max() > 1e-5, "each run has its own setting"


@pytest.mark.slow
@pytest.mark.usefixtures("router")
def test_a_routers_activations_are_its_inputs_lengths():
    config = capsnet(routing__name="mine", routing__steps=1)
    last = train(config)
    out, params = outputs(config, last, DATA.test.images), run_of(last.states.params)["class_capsules"]
    votes = np.einsum("bik,iokd->biod", np.float64(out["primary"]), np.float64(params["W"]))
    bias = np.float64(params["routing"]["bias"])
    shares = np.exp(bias) / np.exp(bias).sum() * np.linalg.norm(np.float64(out["primary"]), axis=-1)[..., None]
    sums = np.einsum("bio,biod->bod", shares, votes)
    norms = np.linalg.norm(sums, axis=-1)
    np.testing.assert_allclose(out["lengths"], norms**2 / (1 + norms**2), rtol=1e-4)


@pytest.mark.usefixtures("router")
def test_a_routers_settings_are_its_own():
    with pytest.raises(ConfigError) as error:
        capsnet(routing__name="mine", routing__temperature=2)
    assert str(error.value) == "mine has no routing.temperature; it has routing.name, routing.steps, routing.sharpness"
    with pytest.raises(ConfigError) as error:
        capsnet(routing__sharpness=2)
    assert str(error.value).startswith("dynamic has no routing.sharpness; it has routing.name, routing.iterations, ")
    with pytest.raises(ConfigError, match=r"^routing\.steps takes a whole number from 1 to 9, not '0'$"):
        capsnet(routing__name="mine", routing__steps="0")
    assert "routing.steps" not in flatten(capsnet())


def test_a_router_may_come_again_with_other_settings(monkeypatch):
    monkeypatch.setitem(ROUTERS, "mine", Router(mine_routing, settings=Mine(), parameters=mine_parameters))
    assert build({"routing": "mine", "steps": 3}).routing.settings == Mine(3)

    @pytree_dataclass
    class Other:
        rounds: int = static(2, low=1, doc="instead of steps")

    monkeypatch.setitem(ROUTERS, "mine", Router(mine_routing, settings=Other()))
    assert build({"routing": "mine", "rounds": 3}).routing.settings == Other(3)
    with pytest.raises(ConfigError, match="unknown setting 'steps'"):
        build({"routing": "mine", "steps": 3})


# A router that returns its trace.


@pytree_dataclass
class Nearest:
    iterations: int = static(2, low=1, high=9, doc="iterations")


def nearest_routing(votes, *, iterations, trace):
    """Couple by the softmax of minus the squared distance to the parents of the iteration before."""
    logits, steps = jnp.zeros(votes.shape[:2]), []
    for _ in range(iterations):
        couplings = jax.nn.softmax(logits, axis=-1)
        capsules = weighted_parents(votes, couplings)
        steps.append((capsules, length(capsules), couplings, logits))
        logits = -jnp.sum((votes - capsules[None]) ** 2, axis=-1)
    stacked = Trace(*map(jnp.stack, zip(*steps, strict=True))) if trace else None
    return Routing(*steps[-1], stacked)


@pytest.mark.slow
def test_a_router_that_traces_is_diagnosed(monkeypatch):
    monkeypatch.setitem(ROUTERS, "nearest", Router(nearest_routing, settings=Nearest()))
    config = capsnet(routing__name="nearest", model__weight_scale=2)
    last = train(config, observe_fn=observe_routing(3))
    row = {name: values[0] for name, values in last.history[-1].items() if name.startswith("validation_")}
    params = run_of(last.states.params)
    examples = jax.device_put(DATA.validation)
    for iterations in (1, 2, 3):
        other = dataclasses.replace(config, routing=build({"routing": "nearest", "iterations": iterations}).routing)
        alone = evaluate(other, params, examples, classes=CLASSES)
        assert row[f"validation_error_at_{iterations}"] == pytest.approx(float(alone["error"]), rel=1e-6)
    assert row["validation_error_at_2"] == pytest.approx(row["validation_error"], rel=1e-6)
    assert row["validation_entropy_at_1"] == pytest.approx(1, rel=1e-5)
    assert row["validation_entropy_at_3"] < 1 - 1e-4


# A squash.


def mild_squash(s, axis=-1):
    """Lengths under a half."""
    return 0.5 * s / (1 + jnp.sqrt(jnp.sum(s * s, axis=axis, keepdims=True) + 1e-9))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic", "uniform"])
def test_a_squash_of_parents(name, monkeypatch):
    monkeypatch.setitem(SQUASHES, "mine", Squash(mild_squash))
    config = capsnet(routing__name=name, routing__squash="mine", model__weight_scale=10)
    last = train(config)
    out = outputs(config, last, DATA.test.images)
    sabour = dataclasses.replace(config, routing=build({"routing.name": name}).routing)
    assert 0.3 < float(out["lengths"].max()) < 0.5 < float(outputs(sabour, last, DATA.test.images)["lengths"].max())
    with pytest.raises(
        ConfigError,
        match=r"^routing\.squash takes one of sabour, exponential, half, decoupled, layer_norm, mine, not 'hal'$",
    ):
        capsnet(routing__squash="hal")


@pytest.mark.slow
def test_a_squash_of_primary_capsules(monkeypatch):
    monkeypatch.setitem(SQUASHES, "mine", Squash(mild_squash))
    config = capsnet(model__squash="mine")
    last = train(config)
    out, plain = (outputs(each, last, DATA.test.images) for each in (config, capsnet()))
    norms = np.linalg.norm(plain["primary"], axis=-1)
    norms = np.sqrt(norms / (1 - norms))  # |s| of |s|² / (1 + |s|²)
    np.testing.assert_allclose(np.linalg.norm(out["primary"], axis=-1), 0.5 * norms / (1 + norms), rtol=1e-3, atol=1e-5)


# A loss by name.


@pytree_dataclass
class BrierSettings:
    power: float = traced(2.0, low=1, doc="of the differences")


def brier(lengths, targets, *, power):
    return jnp.mean(jnp.abs(lengths - targets) ** power)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "loss"),
    [("capsnet", "cross_entropy"), ("cnn_small", "margin"), ("capsnet", "brier"), ("cnn_small", "brier")],
)
def test_any_net_is_trained_by_any_loss(model, loss, monkeypatch):
    monkeypatch.setitem(LOSSES, "brier", Loss(brier, "lengths", BrierSettings()))
    sizes = CAPSNET if model == "capsnet" else {"model.name": model}
    own = {"loss.power": "3"} if loss == "brier" else {}
    config = build(sizes | FEW | {"loss.name": loss} | own)
    last = train(config)
    if loss == "brier":
        out = outputs(config, last, DATA.validation.images)
        scores = out["lengths"] if "lengths" in out else 1 / (1 + np.exp(-np.float64(out["logits"])))
        differences = np.abs(scores - np.eye(CLASSES)[DATA.validation.labels]) ** 3
        told = last.history[-1]["validation_classification_loss"][0]
        assert told == pytest.approx(differences.mean(), rel=1e-4)
        with pytest.raises(ConfigError, match=r"^brier has no loss\.m_plus; it has loss\.name, loss\.power"):
            build(sizes | {"loss.name": loss, "loss.m_plus": 0.8})


# An optimizer and a schedule.


def signs(head_layers):
    """Each parameter moves by the rate, whatever the size of its gradient."""
    return optax.scale_by_sign()


def stairs(settings, step, total):
    """A half, from the middle on an eighth."""
    return jnp.where(step < total / 2, 0.5, 0.125)


@pytest.mark.slow
def test_an_optimizer_and_a_schedule(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "signs", signs)
    monkeypatch.setitem(SCHEDULES, "stairs", stairs)
    config = capsnet(train__optimizer="signs", train__schedule="stairs", train__epochs=2, train__learning_rate=0.01)
    assert "train.decay_rate" not in flatten(capsnet(train__schedule="cosine"))
    states = [jax.tree.map(np.array, initial_states([config], [0], DATA, parallel="map"))]
    moves = []
    for at in fit([config], [0], DATA, parallel="map", chunk_seconds=1e-9, start=(0, states[0], [])):
        states.append(jax.tree.map(np.array, at.states))
        moves.append([np.abs(a - b) for a, b in zip(*(jax.tree.leaves(s.params) for s in states[-2:]), strict=True)])
    assert len(moves) == 6
    for step, leaves in enumerate(moves):
        rate = 0.01 * (0.5 if step < 3 else 0.125)
        for leaf in leaves:
            still = leaf == 0  # no gradient
            np.testing.assert_allclose(leaf[~still], rate, rtol=1e-3)
        assert any((leaf > 0).any() for leaf in leaves)


# A metric.


def lead(scores, targets):
    """By how much the best class that is present is ahead of the best that is not."""
    return jnp.max(jnp.where(targets > 0, scores, -jnp.inf)) - jnp.max(jnp.where(targets > 0, -jnp.inf, scores))


@pytest.mark.slow
@pytest.mark.parametrize("percent", [False, True])
def test_a_metric(percent, monkeypatch):
    monkeypatch.setitem(METRICS, "lead", Metric(lead, percent=percent))
    monkeypatch.setitem(METRICS, "of_many", Metric(lead, min_classes=CLASSES + 1))
    config = capsnet()
    last = train(config)

    def expected(examples):
        lengths = np.float64(outputs(config, last, examples.images)["lengths"])
        own = lengths[np.arange(len(lengths)), examples.labels]
        others = np.where(np.eye(CLASSES)[examples.labels] > 0, -1, lengths).max(axis=1)
        return (100 if percent else 1) * np.mean(own - others)

    assert last.history[-1]["validation_lead"][0] == pytest.approx(expected(DATA.validation), rel=1e-4)
    metrics, _ = read_test_set([config], *last.states.eval_params, DATA, parallel="map")
    assert metrics["test_lead"][0] == pytest.approx(expected(DATA.test), rel=1e-4)
    assert not [name for name in (*last.history[-1], *metrics) if "of_many" in name]


# A model whose head has another name, and that needs no field that it does not use.


@pytree_dataclass
class ReaderSettings:
    width: int = static(16, low=1, doc="hidden units")


class Reader(nn.Module):
    classes: int
    width: int

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Dense(self.width, name="hidden")(images.reshape(len(images), -1)))
        x = nn.relu(nn.Dense(self.width, name="between")(x))
        return {"hidden": x, "logits": nn.Dense(self.classes, name="readout")(x)}


READER = Model(Reader, ReaderSettings(), head_layers=("readout",))
READING = {"model.name": "reader", "model.width": 8, "train.epochs": 2, "data.max_shift": 0, "train.batch_size": 32}


@pytest.fixture
def sets(monkeypatch):
    """Two data sets by name: the second's labels are the first's in another order."""

    def load_data(settings):
        splits = [make_examples(count, seed) for seed, count in enumerate((160, 9, 10))]
        if settings.dataset == "kmnist":
            splits = [Examples(images, CLASSES - 1 - labels) for images, labels in splits]
        return Dataset(settings.dataset, tuple("abcd"), *splits)

    monkeypatch.setattr(run, "load_data", load_data)


def finish(config: Config, workdir) -> dict[str, records.Record]:
    """Train a config as a sweep does; returns the workdir's records."""
    runs = [records.Run(config, 0)]
    run.train_all(runs, plan.Plan(workdir, "map", lambda _: "", lambda: None), run.load_and_check(runs))
    return records.load_all(workdir)


@pytest.mark.slow
@pytest.mark.usefixtures("sets")
def test_a_model_with_another_head_is_trained_and_fine_tuned(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "reader", READER)
    frozen = "hidden+between"
    tuned = build(READING | {"finetune.source": "kmnist", "train.frozen": frozen, "train.optimizer": "muon"})
    found = finish(tuned, tmp_path)
    assert len(found) == 2
    like = jax.eval_shape(partial(models.init, models.build(tuned, CLASSES), jax.random.key(0), (12, 12, 1)))
    params = {
        record.settings["finetune.source"]: checkpoint.load_params(record.folder / "params.safetensors", *like)[0]
        for record in found.values()
    }
    fresh = run_of(initial_states([tuned], [0], DATA, parallel="map").params)

    def distance(layer, one, other):
        return max(
            float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (one[layer], other[layer])), strict=True)
        )

    for layer in ("hidden", "between"):  # copied, and frozen
        assert distance(layer, params["kmnist"], params["none"]) == 0 < distance(layer, params["none"], fresh)
    # It started anew: two epochs of ten steps of at most the learning rate lead not far.
    reach = 10.5 * tuned.train.learning_rate
    assert (
        0 < distance("readout", params["kmnist"], fresh) < reach < distance("readout", params["kmnist"], params["none"])
    )


@pytest.mark.slow
def test_muon_leaves_a_head_of_any_name_to_adam(monkeypatch):
    monkeypatch.setitem(MODELS, "reader", READER)
    states = initial_states([build(READING | {"train.optimizer": "muon"})], [0], DATA, parallel="map")
    paths = jax.tree_util.tree_leaves_with_path(states.opt_state.inner_states["muon"])
    moved = {key.key for path, _ in paths for key in path if hasattr(key, "key")} & {"hidden", "between", "readout"}
    assert moved == {"hidden", "between"}
    train(build(READING | {"train.optimizer": "muon", "train.batch_size": BATCH}))


@pytest.mark.usefixtures("sets")
def test_a_wrong_head_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "reader", dataclasses.replace(READER, head_layers=("classes",)))
    with pytest.raises(ConfigError) as error:
        finish(build(READING), tmp_path)
    assert str(error.value) == (
        "reader says that classes tells the classes, but has no such layer;"
        " name its head_layers in MODELS from between, hidden, readout"
    )


def test_a_model_has_no_setting_that_it_does_not_name(monkeypatch):
    monkeypatch.setitem(MODELS, "reader", READER)
    for path in ("model.precision", "routing.iterations", "loss.reconstruction"):
        with pytest.raises(ConfigError, match=rf"^reader has no {path}; it "):
            build(READING | {path: 3})


@pytest.mark.usefixtures("sets", "router")
def test_a_model_that_does_not_fit_is_one_clear_line(monkeypatch, tmp_path):
    class Careless(Reader):
        def __call__(self, images, extra):
            return {}

    monkeypatch.setitem(MODELS, "reader", dataclasses.replace(READER, module=Careless))
    with pytest.raises(ConfigError, match=r"^reader on mnist_5k: .*extra") as error:
        finish(build(READING), tmp_path)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(ROUTERS, "mine", Router(lambda votes, *, prior: None, settings=Mine()))
    with pytest.raises(ConfigError, match=r"^capsnet with routing\.name=mine on mnist_5k: .*") as error:
        finish(capsnet(routing__name="mine"), tmp_path)
    assert "\n" not in str(error.value)


# Several classes at once.


@pytest.mark.slow
def test_several_classes_from_loss_to_diagnostics():
    data = make_data(several=True)
    assert (data.train.labels.sum(axis=1) == 2).all()
    config = capsnet(train__epochs=2)
    last = train(config, data=data, observe_fn=observe_routing(3))
    test = data.test
    out, params = outputs(config, last, test.images), run_of(last.states.params)
    lengths = np.float64(out["lengths"])
    margins = [loop_margin(*pair) for pair in zip(lengths, test.labels, strict=True)]
    squares = (np.float64(out["reconstruction"]) - test.images / 255) ** 2
    sums = squares.reshape(len(lengths), -1).sum(axis=1)
    errors = [loop_error(row.tolist(), present.tolist()) for row, present in zip(lengths, test.labels, strict=True)]
    metrics, wrong = read_test_set([config], *last.states.eval_params, data, parallel="map")
    assert metrics["test_classification_loss"][0] == pytest.approx(np.mean(margins), rel=1e-4)
    assert metrics["test_loss"][0] == pytest.approx(np.mean(margins + 0.0005 * sums), rel=1e-4)
    assert metrics["test_error"][0] == pytest.approx(100 * np.mean(errors), rel=1e-6)
    np.testing.assert_array_equal(wrong[0], np.array(errors, bool))

    # In training the decoder sees the capsules of both classes, and no others.
    images, targets = jnp.asarray(test.images, jnp.float32) / 255, to_targets(jnp.asarray(test.labels), CLASSES)
    model = models.build(config, CLASSES)
    trained, _ = models.apply_in_training(model, params, {}, images, targets, dropout=jax.random.key(0))
    decoded = decode(model, params, jnp.asarray(trained["capsules"] * test.labels[:, :, None]), jnp.ones_like(targets))
    np.testing.assert_allclose(trained["reconstruction"].reshape(decoded.shape), decoded, rtol=1e-5)
    total, _ = losses.total_loss(trained, images, targets, config)
    sums = ((np.float64(decoded) - np.asarray(images).reshape(decoded.shape)) ** 2).sum(axis=1)
    assert float(total) == pytest.approx(np.mean(margins + 0.0005 * sums), rel=1e-4)

    # Diagnostics count by the same error: the net routes three times.
    row = last.history[-1]
    assert row["validation_error_at_3"] == row["validation_error"]


@pytest.mark.slow
def test_several_classes_of_logits_share_the_cross_entropy():
    data = make_data(several=True)
    config = build({"model.name": "cnn_small"} | FEW)
    last = train(config, data=data)
    logits = np.float64(outputs(config, last, data.validation.images)["logits"])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(np.sum(logs * data.validation.labels, axis=1) / 2)
    assert last.history[-1]["validation_loss"][0] == pytest.approx(expected, rel=1e-4)


# Who is who.


def test_what_a_net_does_not_have_is_no_part_of_its_name_or_settings():
    plain = records.Run(build({"model.name": "resnet8"}), 0)
    assert "dynamic" not in plain.name
    assert plain.name.startswith("mnist_5k-resnet8-seed0-")
    assert not [path for path in flatten(plain.config) if path.startswith(("routing.", "eval.", "loss.rec"))]
    assert records.Run(capsnet(), 0).name.startswith("mnist_5k-capsnet-dynamic3-seed0-")
    assert json.dumps(flatten(plain.config))


def test_what_is_observed_is_no_part_of_a_runs_name():
    names = {records.Run(resolve({"eval.max_routing_iterations": n}).config, 0).name for n in (0, 3, 7)}
    assert len(names) == 1


def test_arms_that_make_no_difference_to_a_net_are_one_run():
    arms = [{"routing.iterations": r, "routing.gradient": g} for r in (1, 2, 3, 5, 7) for g in ("full", "stop")]
    cnn = [resolve(arm | {"model.name": "resnet8"}) for arm in arms]
    assert len({resolved.config for resolved in cnn}) == len({records.Run(each.config, 0).name for each in cnn}) == 1
    assert all(resolved.unused == ["routing.iterations", "routing.gradient"] for resolved in cnn)
    routed = {records.Run(resolve(arm).config, 0).name for arm in arms}
    assert len(routed) == 9, "with one iteration there is nothing to stop"


@pytest.mark.usefixtures("router")
def test_a_guests_settings_are_part_of_a_runs_name():
    names = [records.Run(capsnet(routing__name="mine", routing__sharpness=s), 0).name for s in (1, 2)]
    assert len(set(names)) == 2
    assert all("-capsnet-mine-seed0-" in name for name in names)
