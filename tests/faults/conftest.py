import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.work")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A workdir that is not there yet; removed afterwards, for there are many."""
    yield tmp_path / "work"
    shutil.rmtree(tmp_path, ignore_errors=True)
