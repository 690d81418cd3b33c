from functools import cache, partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset, Examples, babi
from capsnet_jax.losses import LOSSES, Loss
from capsnet_jax.overrides import build, override
from capsnet_jax.training import evaluation, parallel
from capsnet_jax.training import fit as training
from capsnet_jax.training import step as steps_of
from capsnet_jax.training.evaluation import read_test_set
from capsnet_jax.training.fit import FitProgress
from capsnet_jax.training.order import epoch_order
from capsnet_jax.training.step import init_state, train_step, train_steps
from tests.test_losses import loop_margin

# 8 steps of 4 images an epoch, 2 epochs.
TINY = build(
    {
        "model.name": "capsnet",
        "model.channels": 4,
        "model.kernel": 3,
        "model.capsule_types": 2,
        "model.primary_dim": 4,
        "model.class_dim": 4,
        "model.decoder": (8,),
        "routing.iterations": 2,
        "data.max_shift": 1,
        "train.batch_size": 4,
        "train.epochs": 2,
        "train.learning_rate": 1e-2,
    },
)
STEPS, TOTAL, CLASSES = 8, 16, 3
METRICS = ("loss", "classification_loss", "reconstruction_mse", "error")


def make_examples(count: int, seed: int) -> Examples:
    """A bright bar for each class at a row of its own, in noise."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 100, (count, 8, 9, 1), np.uint8)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 1] += 150
    return Examples(images, labels)


DATA = Dataset("bars", ("top", "middle", "bottom"), *(make_examples(n, seed) for seed, n in enumerate((32, 7, 9))))
TRAIN = jax.device_put(DATA.train)


@cache
def programs():
    """(config, seed) → state, and (config, seed, state, start, stop) → state: every solo run here shares them."""
    orders = epoch_order(TINY.data, 32, parallel="map")
    init = jax.jit(partial(init_state, image_shape=(8, 9, 1), classes=CLASSES))
    steps = jax.jit(partial(train_steps, classes=CLASSES, total=TOTAL))
    return init, lambda settings, seed, state, start, stop: steps(
        settings, seed, state, TRAIN, orders(seed[None], start // STEPS)[0], jnp.int32(start), jnp.int32(stop)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["capsnet_small", "cnn_small"])
def test_the_state_that_is_compiled_quickly_is_that_of_full_optimization(name):
    config = override(TINY, {"model.name": name})
    quick = training.initial_states([config] * 2, [0, 5], DATA, parallel="map")
    init = partial(init_state, image_shape=DATA.image_shape, classes=CLASSES)
    whole = jax.jit(init, compiler_options={"xla_backend_optimization_level": "3"})
    for run, seed in enumerate((0, 5)):
        for leaf, expected in zip(jax.tree.leaves(quick), jax.tree.leaves(whole(config, seed)), strict=True):
            np.testing.assert_array_equal(leaf[run], expected)


@cache
def solo(settings: Config, seed: int, *stops: int):
    """The state of one run after the last of `stops`, having paused at the others."""
    init, steps = programs()
    settings, seed, start = parallel.stack([settings]), jnp.int32(seed), 0
    settings = jax.tree.map(lambda leaf: leaf[0], settings)
    # By way of NumPy, as JAX would compile again for the initial state's weakly typed scalars.
    state = jax.tree.map(np.array, init(settings, seed))
    for stop in stops:
        state = steps(settings, seed, state, start, stop)
        start = stop
    return state


def rate(value: float, settings: Config = TINY) -> Config:
    return override(settings, {"train.learning_rate": value})


def fit(configs, seeds, **settings) -> list[FitProgress]:
    """All of a fit's progress, the states copied before the next chunk takes their memory."""
    return [
        progress._replace(states=jax.tree.map(np.array, progress.states))
        for progress in training.fit(configs, seeds, DATA, **settings)
    ]


def assert_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def run_of(states, index: int):
    return jax.tree.map(lambda leaf: leaf[index], states)


@cache
def fitted(mode: str) -> list[FitProgress]:
    return fit([TINY, rate(3e-3)], [0, 7], parallel=mode, chunk_seconds=1e-9)


# Steps.


def test_golden_step():
    """Three steps of a seeded run."""
    golden = {
        "loss": 9.679917,
        "classification_loss": 9.625662,
        "reconstruction_mse": 1.507087,
        "error": 9.0,
        "W": 2.116352,
        "conv1": -1.225654,
        "pixels": -1.968538,
    }
    state = solo(TINY, 0, 3)
    got = {
        "loss": float(state.sums["loss"]),
        "classification_loss": float(state.sums["classification_loss"]),
        "reconstruction_mse": float(state.sums["reconstruction_mse"]),
        "error": float(state.sums["error"]),
        "W": float(jnp.linalg.norm(state.params["class_capsules"]["W"])),
        "conv1": float(jnp.sum(state.params["conv1"]["kernel"])),
        "pixels": float(jnp.sum(state.params["decoder"]["pixels"]["bias"])),
    }
    message = (
        "Training no longer does what it did. If that was intended (another initialisation, order of random numbers, "
        f"augmentation, loss or optimiser), say so in the commit and set `golden` to {got}"
    )
    assert got == pytest.approx(golden, rel=1e-3), message


@pytest.mark.parametrize("step", [1, 2, 3])
def test_parameters_move_as_adam_says(step):
    """By rate · m̂ / (√v̂ + ε), from the moments in the state; the first are of one gradient."""
    settings = override(rate(0.005), {"train.decay_rate": 0.25, "train.decay_steps": 2})
    before, after = (solo(settings, 0, *range(1, stop + 1)) for stop in (step - 1, step))
    moments = [after.opt_state.mu, after.opt_state.nu]
    leaves = [map(np.float64, jax.tree.leaves(tree)) for tree in (before.params, after.params, *moments)]
    current = 0.005 * 0.5 ** (step - 1)
    for old, new, m, v in zip(*leaves, strict=True):
        move = current * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(new, old - move, atol=2e-6)  # moves are of 5e-3; float32 parameters about 1
        if step == 1:
            np.testing.assert_allclose(v / 0.001, (m / 0.1) ** 2, rtol=1e-4, atol=1e-30)
            assert np.abs(m).max() > 0


@pytest.mark.slow
def test_the_average_is_of_the_parameters_by_their_weights_and_is_what_is_evaluated():
    settings = override(TINY, {"train.ema_epochs": 0.5})
    expected = 0.0
    for step in range(1, 11):
        state = solo(settings, 0, *range(1, step + 1))
        expected += (np.float64(state.params["class_capsules"]["W"]) - expected) / min(
            step, 4
        )  # half of 8 steps an epoch
        np.testing.assert_allclose(state.average[0]["class_capsules"]["W"], expected, atol=1e-6)
    assert_equal(state.eval_params, state.average)
    assert np.abs(state.average[0]["class_capsules"]["W"] - state.params["class_capsules"]["W"]).max() > 1e-3
    np.testing.assert_allclose(
        state.params["class_capsules"]["W"], solo(TINY, 0, 8, 10).params["class_capsules"]["W"], atol=1e-5
    )


def test_chunks_do_not_matter_to_the_bit():
    whole = solo(TINY, 0, 6)
    assert_equal(solo(TINY, 0, 2, 6), whole)
    assert_equal(solo(TINY, 0, 1, 2, 3, 4, 5, 6), whole)


@pytest.mark.parametrize(
    ("seconds_a_step", "expected"),
    [(0.01, 200), (0.25, 8), (0.5, 8), (1.25, 8), (2.0, 5), (4.0, 2), (10.0, 1), (60.0, 1)],
)
def test_a_chunk_of_two_seconds_has_up_to_eight_steps_if_these_take_ten(seconds_a_step, expected):
    assert training.next_chunk(3, 3 * seconds_a_step, 2.0) == expected


def test_seeds_differ_in_initial_weights_and_in_order():
    first, second = solo(TINY, 0), solo(TINY, 1)
    assert float(jnp.abs(first.params["class_capsules"]["W"] - second.params["class_capsules"]["W"]).max()) > 0.01
    settings = run_of(parallel.stack([TINY]), 0)
    step = programs()[1]
    sums = [step(settings, jnp.int32(seed), first, 0, 1).sums["loss"] for seed in (0, 1)]
    assert sums[0] != sums[1]


def test_an_epoch_takes_every_image_once_in_an_order_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(
        steps_of,
        "train_step",
        lambda _c, _s, state, batch, *_a, **_k: jax.debug.callback(seen.append, batch.images) or state,
    )
    steps = jax.jit(partial(train_steps, classes=CLASSES, total=TOTAL))
    state, orders = solo(TINY, 0), epoch_order(TINY.data, 32, parallel="map")
    for epoch in range(2):
        [order] = orders(jnp.arange(1), epoch)
        steps(TINY, jnp.int32(0), state, TRAIN, order, jnp.int32(epoch * STEPS), jnp.int32((epoch + 1) * STEPS))
        jax.effects_barrier()
    images = np.concatenate(seen).reshape(2, 32, -1)
    everything = sorted(map(bytes, DATA.train.images))
    assert [sorted(map(bytes, epoch)) for epoch in images] == [everything, everything]
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize(("transform", "moves_in"), [("none", 0), ("rotated", 0), ("inverted", 255)])
def test_what_moves_into_images_is_the_background_of_their_transform(transform, moves_in, monkeypatch):
    told = []
    monkeypatch.setattr(steps_of, "augment", lambda _, images, **said: told.append(said["background"]) or images)
    monkeypatch.setattr(steps_of, "gather_shifted", lambda images, at, *said: told.append(said) or TRAIN)
    state, order = solo(TINY, 0), jnp.zeros(32 * 9, int)
    for shift_order, expected in (("random", {moves_in}), ("in_turn", {moves_in, (1, moves_in)})):
        told.clear()
        config = override(TINY, {"data.transform": transform, "data.shift_order": shift_order})
        steps = partial(train_steps, config, classes=CLASSES, total=TOTAL)
        jax.eval_shape(steps, jnp.int32(0), state, TRAIN, order, jnp.int32(0), jnp.int32(1))
        assert set(told) == expected


def test_weight_decay_shortens_weights_by_the_rate_and_leaves_biases():
    """One program: decay is traced. In the first step the rate is 0.01 (no warm-up in TINY)."""
    plain, decayed = (solo(override(TINY, {"train.weight_decay": decay}), 0, 1).params for decay in (0.0, 0.25))
    before = np.asarray(solo(TINY, 0).params["class_capsules"]["W"])
    shorter = np.asarray(plain["class_capsules"]["W"]) - np.asarray(decayed["class_capsules"]["W"])
    np.testing.assert_allclose(shorter, 0.01 * 0.25 * before, atol=1e-7)
    np.testing.assert_array_equal(decayed["conv1"]["bias"], plain["conv1"]["bias"])


def test_the_loss_gets_the_step_and_the_total(monkeypatch):
    def progress(lengths, targets, *, step, total):
        return step / total + 0 * jnp.sum(lengths * targets)

    monkeypatch.setitem(LOSSES, "progress", Loss(progress, "lengths"))
    settings = override(TINY, {"loss.name": "progress"})
    batch = Examples(*(leaf[:4] for leaf in TRAIN))
    step = jax.jit(partial(train_step, settings, classes=CLASSES, total=TOTAL))
    after = step(jnp.int32(0), solo(TINY, 0), batch, jnp.int32(5))
    assert float(after.sums["classification_loss"]) == 4 * 5 / 16


def test_a_linear_start_ends_where_it_should():
    """The losses of a step are those of the outputs before it, with the attention of its time."""
    settings = {"model.name": "memory_network", "model.linear_start": 0.5, "model.time_noise": 0.0}
    settings = build(settings | {"data.max_shift": 0, "train.batch_size": 2})
    questions = [
        babi.Question([["mary", "went", "to", "the", "garden"]], ["where", "is", "mary"], "garden"),
        babi.Question([["john", "took", "the", "milk"]] * 3, ["where", "is", "the", "milk"], "office"),
    ]
    batch = Examples(jnp.asarray(babi.encode(questions).images), jnp.array([2, 4], jnp.int32))
    state = init_state(settings, jnp.int32(0), batch.images.shape[1:], 6)
    params = jax.tree.map(lambda leaf: 2 * leaf, state.params)  # so that scores differ from their softmax
    model, losses = models.build(settings, 6), []
    step = jax.jit(partial(train_step, settings, classes=6, total=TOTAL))
    for number in (3, 12):
        out = models.apply(model, params, {}, batch.images / jnp.float32(255), progress=number / TOTAL)
        logits = np.float64(out["logits"])
        losses.append(np.sum(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(2), batch.labels]))
        after = step(jnp.int32(0), state._replace(params=params), batch, jnp.int32(number))
        assert float(after.sums["classification_loss"]) == pytest.approx(losses[-1], rel=1e-4)
    assert abs(losses[0] - losses[1]) > 1e-2


def test_32_images_are_learned_by_heart():
    state = solo(TINY, 0, *range(STEPS, 100 * STEPS + 1, STEPS))
    assert float(state.sums["error"]) == 0
    assert float(state.sums["loss"]) / 32 < 0.02
    assert int(state.diverged) == -1


def test_a_loss_that_is_not_finite_freezes_the_last_finite_state():
    wild = rate(1e30)
    good, frozen = solo(wild, 0, 1), solo(wild, 0, 6)
    assert int(good.diverged) == -1
    assert int(frozen.diverged) == 1
    assert_equal(frozen._replace(diverged=good.diverged), good)
    for leaf in jax.tree.leaves(frozen.params):
        assert jnp.isfinite(leaf).all()


def test_a_diverged_state_stands_still_in_later_epochs_too():
    """Zeroed sums would be reported as an epoch of loss 0 and error 0."""
    wild = rate(1e30)
    assert_equal(solo(wild, 0, 8, 9), solo(wild, 0, 8))


def test_parameters_are_finite_whatever_the_learning_rate():
    """3e38 is a valid setting, and nearly the greatest float32."""
    state = solo(rate(3e38), 0, 2)
    for leaf in jax.tree.leaves(state.params):
        assert jnp.isfinite(leaf).all()


@pytest.mark.parametrize(("platform", "precision"), [("cuda", "float32"), ("tpu", "bfloat16")])
def test_on_accelerators_a_step_holds_native_convolutions(platform, precision):
    """Both layers' values, both kernels' gradients and one input gradient; on bfloat16 factors where that is set."""
    settings = override(TINY, {"model.precision": precision})
    step = jax.jit(partial(train_step, classes=CLASSES, total=TOTAL))
    batch = jax.tree.map(lambda array: array[:4], TRAIN)
    arguments = settings, jnp.int32(0), solo(TINY, 0), batch, jnp.int32(0)
    text = jax.export.export(step, platforms=(platform,))(*arguments).mlir_module()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 5
    assert all(("bf16" in line) == (precision == "bfloat16") for line in convolutions)


@pytest.mark.slow
def test_programs_are_compiled_without_alarms(capfd):
    """XLA complains where it is made to compute constants, such as a softmax over zeros, while it compiles."""
    solo(override(TINY, {"routing.iterations": 3}), 0, 1)
    assert capfd.readouterr().err == ""


# Many runs.


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vmap", "map"])
def test_run_i_of_many_is_run_i_alone(mode):
    """Two seeds and two learning rates in one program: both are really the run's own."""
    states = fitted(mode)[-1].states
    for index, (settings, seed) in enumerate([(TINY, 0), (rate(3e-3), 7)]):
        alone, mine = solo(settings, seed, 8, 16), run_of(states, index)
        for got, wanted in zip(jax.tree.leaves(mine.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(got, wanted, atol=2e-4, rtol=1e-3)  # rounding, 16 steps of Adam later
        for name in METRICS:
            assert mine.sums[name] == pytest.approx(float(alone.sums[name]), rel=1e-3)
    other = solo(TINY, 7, 8, 16).params["class_capsules"]["W"]
    assert np.abs(run_of(states, 1).params["class_capsules"]["W"] - other).max() > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("as_compiled_for_users")
@pytest.mark.parametrize(
    "settings",
    [TINY, build({"model.name": "cnn_small", "train.batch_size": 16, "train.epochs": 1})],
    ids=["capsnet", "cnn"],
)
def test_in_turn_a_run_is_equal_to_the_bit_whoever_runs_beside_it(settings):
    alone = fit([rate(3e-3, settings)], [7], parallel="map")[-1]
    together = fit([settings, rate(3e-3, settings)], [0, 7], parallel="map")[-1]
    assert_equal(run_of(alone.states, 0), run_of(together.states, 1))
    for mine, both in zip(alone.history, together.history, strict=True):
        for name in mine.keys() - {"epoch", "images_per_second"}:
            assert mine[name][0] == both[name][1]


@pytest.mark.slow
def test_chunks_of_a_fit_do_not_matter_and_neither_does_going_on_in_the_middle_of_an_epoch():
    pieces = fitted("map")
    assert [progress.step for progress in pieces] == list(range(1, TOTAL + 1))
    middle = pieces[10]  # step 11 of 16, the third of the second epoch
    assert len(middle.history) == 1
    start = (middle.step, middle.states, middle.history)
    rest = fit([TINY, rate(3e-3)], [0, 7], parallel="map", chunk_seconds=60.0, start=start)
    assert [progress.step for progress in rest] == [12, 16]
    assert_equal(rest[-1].states, pieces[-1].states)

    def metrics(history):
        return [{name: row[name] for name in row if name != "images_per_second"} for row in history]

    assert metrics(rest[-1].history) == metrics(pieces[-1].history)
    assert pieces[-1].total == TOTAL


def test_a_finished_fit_goes_on_to_nothing():
    done = fitted("map")[-1]
    start = (done.step, done.states, done.history)
    (only,) = fit([TINY, rate(3e-3)], [0, 7], parallel="map", start=start)
    assert only.step == only.total == TOTAL
    assert_equal(only.states, done.states)
    assert only.history == done.history


def test_history_is_the_means_of_each_epoch():
    first, last = fitted("map")[STEPS - 1], fitted("map")[-1]
    assert [row["epoch"] for row in last.history] == [1, 2]
    for progress in (first, last):
        row = progress.history[-1]
        for name in METRICS:
            scale = 100 if name == "error" else 1
            np.testing.assert_allclose(row[f"train_{name}"], scale * progress.states.sums[name] / 32, rtol=1e-6)
    held_out = jax.device_put(DATA.validation)
    for index, settings in enumerate([TINY, rate(3e-3)]):
        params = jax.tree.map(jnp.asarray, run_of(last.states, index).params)
        for name, value in evaluated(settings, params, held_out).items():
            assert last.history[-1][f"validation_{name}"][index] == pytest.approx(value, rel=1e-4)


# Evaluation.


@cache
def outputs():
    return jax.jit(models.build(TINY, CLASSES).apply)


def evaluated(settings: Config, params, examples: Examples) -> dict[str, float]:
    """Metrics by NumPy from the model's outputs on the images as they are, without labels."""
    images = jnp.asarray(np.asarray(examples.images, np.float32) / 255)
    out = outputs()({"params": params}, images)  # the learning rate makes no difference
    lengths, labels = np.float64(out["lengths"]), np.asarray(examples.labels)
    difference = np.float64(images) - np.float64(out["reconstruction"])
    squares = (difference**2).reshape(len(labels), -1).sum(axis=1)
    margins = [loop_margin(row, np.arange(CLASSES) == label) for row, label in zip(lengths, labels, strict=True)]
    return {
        "loss": np.mean(margins + settings.reconstruction.reconstruction_weight * squares),
        "classification_loss": np.mean(margins),
        "reconstruction_mse": np.mean(squares) / 72,
        "error": 100 * np.mean(lengths.argmax(axis=1) != labels),
    }


@pytest.mark.parametrize("batch", [4, 250])
def test_evaluation_is_a_plain_mean_however_it_is_batched(monkeypatch, batch):
    """Nine images: in three batches with three odd places, and in a small part of one."""
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    params, test = solo(TINY, 0, 6).params, jax.device_put(DATA.test)
    got = jax.jit(partial(evaluation.evaluate, classes=CLASSES))(TINY, params, test)
    wanted = evaluated(TINY, params, test)
    assert {name: float(value) for name, value in got.items()} == pytest.approx(wanted, rel=1e-4)


def test_test_metrics_are_evaluations_of_the_test_split():
    states = fitted("map")[-1].states
    got, wrong = evaluation.read_test_set([TINY, rate(3e-3)], states.params, states.stats, DATA, parallel="map")
    for index in range(2):
        params = jax.tree.map(jnp.asarray, run_of(states, index).params)
        for name, value in evaluated(TINY, params, DATA.test).items():
            assert got[f"test_{name}"][index] == pytest.approx(value, rel=1e-4)
        assert 100 * wrong[index].mean() == pytest.approx(got["test_error"][index], rel=1e-6)
        lengths = outputs()({"params": params}, jnp.asarray(DATA.test.images / np.float32(255)))["lengths"]
        np.testing.assert_array_equal(wrong[index], np.argmax(lengths, axis=1) != DATA.test.labels)


def test_more_than_ten_classes_have_a_top5_error_in_evaluation_alone(monkeypatch):
    """Nine images in three batches, the last of them padded; a class's score is a pixel."""
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 4)
    monkeypatch.setattr(
        models, "apply", lambda _, __, ___, images, **____: {"logits": images.reshape(len(images), -1)[:, :12]}
    )
    labels = jnp.array([11, 3, 7, 0, 1, 9, 5, 2, 8], jnp.int32)
    got = evaluation.evaluate(TINY, {}, Examples(jnp.asarray(DATA.test.images), labels), classes=12)
    scores = DATA.test.images.reshape(9, -1)[:, :12].astype(int)
    before = [sum(other > row[label] for other in row) for row, label in zip(scores, labels.tolist(), strict=True)]
    assert set(got) == {"loss", "classification_loss", "reconstruction_mse", "error", "top5_error"}
    assert float(got["error"]) == pytest.approx(100 * np.mean([place > 0 for place in before]))
    assert float(got["top5_error"]) == pytest.approx(100 * np.mean([place > 4 for place in before]))
    assert 0 < got["top5_error"] < got["error"]
    state = jax.eval_shape(partial(init_state, TINY, jnp.int32(0), image_shape=(8, 9, 1), classes=12))
    assert set(state.sums) == set(METRICS)


def test_no_examples_have_no_mean():
    nothing = Examples(*(leaf[:0] for leaf in TRAIN))
    metrics = evaluation.evaluate(TINY, solo(TINY, 0).params, nothing, classes=CLASSES)
    assert all(np.isnan(value) for value in metrics.values())


@pytest.mark.slow
def test_the_test_set_is_read_after_each_epoch_only_where_that_is_asked_for():
    asked = fit([TINY], [0], parallel="map", test_each_epoch=True)[-1]
    rows = asked.history
    assert all("test_error_at_epoch" not in row for row in fitted("map")[-1].history)
    tested, _ = read_test_set([TINY], *asked.states.eval_params, DATA, parallel="map")
    assert rows[-1]["test_error_at_epoch"] == tested["test_error"]
    # It changes nothing else; alone a run is another program, so but for rounding.
    alone, beside = (run_of(states, 0).params for states in (asked.states, fitted("map")[-1].states))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone, beside)
