"""README.md's code runs as it stands, in a folder where a run lies as `python launch.py` leaves it."""

import re
from pathlib import Path

import numpy as np
import pytest

from capsnet_jax import interpret

PAGE = Path(interpret.__file__).with_name("README.md")


def test_the_page_is_short():
    assert len(PAGE.read_text().splitlines()) <= 130


@pytest.mark.slow
def test_every_block_of_the_page_runs(workdir, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "routing_iterations").symlink_to(workdir)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    names: dict = {}
    exec("\n".join(blocks), names)
    assert names["couplings"].shape == (8, 36, 10)
    assert names["each"].shape == (8, 5, 36, 10)
    np.testing.assert_allclose(names["each"].sum(axis=-1), 1, rtol=1e-4)
    assert names["moved"].shape == (4, 3, 28, 28, 1)
    assert names["conv1"].shape == (8, 20, 20, 4)
    assert names["kernel"].shape == (9, 9, 1, 4)
    expected = interpret.grad_cam(names["net"], names["images"], "conv1", names["labels"])
    np.testing.assert_array_equal(names["maps"], expected)
    assert (tmp_path / "maps.png").exists()
    np.testing.assert_allclose(names["pixels"][0].sum(), np.asarray(names["images"][0]).sum() / 255, rtol=1e-4)
    printed = capsys.readouterr().out
    assert "capsnet_small: images of 28×28×1, 10 classes" in printed
    assert f"{names['net'].outline().parameters} {names['net'].outline().flops}" in printed


def test_every_file_of_the_room_is_on_the_page():
    files = {path.name for path in PAGE.parent.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", PAGE.read_text())) - {"__init__.py"} == files
