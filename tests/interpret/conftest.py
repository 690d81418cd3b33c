import shutil

import pytest

from capsnet_jax.interpret.network import restore_record
from capsnet_jax.sweeps import records
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The study's records, where arrays may be saved."""
    folder = tmp_path_factory.mktemp("interpret") / "work"
    shutil.copytree(tiny.study().folder, folder)
    return folder


@pytest.fixture(scope="module")
def record(workdir):
    """One of its runs, which routes twice."""
    found = records.load_all(workdir).values()
    [record] = [r for r in found if r.seed == 1 and r.settings["routing.iterations"] == 2]
    return record


@pytest.fixture(scope="module")
def net(record):
    return restore_record(record)
