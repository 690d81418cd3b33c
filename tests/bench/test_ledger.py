import csv
import io

from capsnet_jax.bench.ledger import Ledger, Row, from_csv, to_csv
from tests.bench import rows


def test_csv_there_and_back():
    found = rows.comparison("paper model.decoder=8x9, odd") + rows.curves() + rows.seeds()
    found = [row._replace(value=float(f"{row.value:.6g}")) for row in found]
    text = to_csv(found)
    assert from_csv(text) == found
    header, *lines = csv.reader(io.StringIO(text))
    assert header[:3] == ["subject", "preset", "quantity"]
    assert len(lines) == len(found)
    assert {type(value) for row in from_csv(text) for value in row} == {str, int, float}


def test_finished_groups_are_kept(tmp_path):
    ledger = Ledger(tmp_path / "new")
    assert ledger.rows() == []
    assert not ledger.finished("paper", "training", "abc")
    ledger.add("paper", "training", "abc", rows.comparison())
    ledger.add("paper", "seeds", "abc", rows.seeds())
    again = Ledger(tmp_path / "new")
    assert again.rows() == rows.comparison() + rows.seeds()
    assert all(isinstance(row, Row) for row in again.rows())
    assert again.finished("paper", "training", "abc")
    assert not again.finished("small", "training", "abc")
    assert not again.finished("paper", "training", "other")  # the same name, but asked for otherwise


def test_a_group_measured_again_replaces_the_first(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add("paper", "seeds", "abc", rows.seeds())
    newer = [row._replace(value=9.0) for row in rows.seeds()]
    ledger.add("paper", "seeds", "def", newer)
    assert ledger.rows() == newer


def test_a_torn_line_is_measured_again(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add("paper", "seeds", "abc", rows.seeds())
    path = tmp_path / "throughput.jsonl"
    path.write_text(path.read_text() + '{"case": "paper", "gro')
    assert ledger.rows() == rows.seeds()
    ledger.add("paper", "training", "abc", rows.comparison())
    assert ledger.rows() == rows.seeds() + rows.comparison()
