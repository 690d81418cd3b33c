"""Experiments that look into trained networks: on the study's runs, so nothing is trained."""

import shutil

import pytest

from tests import tiny


@pytest.fixture
def workdir(tmp_path):
    shutil.copytree(tiny.study().folder, tmp_path / "work")
    return tmp_path / "work"


def figures_of(workdir, name):
    return {path.stem.removeprefix(f"{name}-") for path in (workdir / "figures").glob(f"{name}-*.png")}


def flags(name, workdir):
    return (f"--experiment={name}", *tiny.STUDY, f"--workdir={workdir}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figures"),
    [
        (
            "routing_diagnostics",
            {"through_training-mnist_5k"}
            | {f"couplings-mnist_5k-iterations{r}-class{k}" for r in (1, 2) for k in (0, 1, 2)},
        ),
        (
            "capsule_dimensions",
            {
                f"{name}-mnist_5k-iterations{r}"
                for name in ("reconstructions", "dimensions", "all_dimensions")
                for r in (1, 2)
            },
        ),
    ],
)
def test_what_is_observed_is_saved_and_drawn(name, figures, workdir, capsys):
    code, printed, error = tiny.call(capsys, *flags(name, workdir))
    assert (code, error) == (0, "")
    assert "4 of 4 runs are finished already" in printed
    saved = {path: path.read_bytes() for path in workdir.glob(f"runs/*/{name}.npz")}
    assert len(saved) == 4
    assert figures_of(workdir, name) == figures

    # From the records alone: the networks are gone, what was observed of them is not.
    for params in workdir.glob("runs/*/params.safetensors"):
        params.unlink()
    shutil.rmtree(workdir / "figures")
    code, _, error = tiny.call(capsys, f"--experiment={name}", f"--workdir={workdir}", "--figures_only")
    assert (code, error) == (0, "")
    assert figures_of(workdir, name) == figures
    assert saved == {path: path.read_bytes() for path in saved}
