import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from capsnet_jax.sweeps import files
from capsnet_jax.sweeps.files import DamagedFileError, append_lines, read_lines, remove_partial, to_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_bytes_and_json_replace_what_was_there(tmp_path):
    path = tmp_path / "made/where missing/a"
    files.write_bytes(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    files.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    files.write_json(path, {"a": [1, 2.5], "b": None})
    assert json.loads(path.read_text()) == {"a": [1, 2.5], "b": None}
    assert names(path.parent) == ["a"]


def test_json_is_strict():
    value = {"a": [1.5, float("nan"), (float("inf"), -float("inf"))], "b": {"c": float("nan")}, "d": True}
    assert to_json(value) == '{"a": [1.5, null, [null, null]], "b": {"c": null}, "d": true}'


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function):
    path = tmp_path / "a"
    files.write_text(path, "old")

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    files.write_text(path, "old")

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    path, fsync = tmp_path / "a", os.fsync

    def write_in_between(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        files.write_text(path, "second")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_in_between)
    files.write_text(path, "first")
    assert path.read_text() == "first"  # it came last
    assert names(tmp_path) == ["a"]


def test_what_killed_writers_left_is_removed(tmp_path):
    for name in (".a.json.12-ab.partial", ".b.json.12-ab.partial", ".a.text.12-ab.partial", "a.json"):
        (tmp_path / name).write_text("")
    remove_partial(tmp_path, "*.json")
    assert names(tmp_path) == [".a.text.12-ab.partial", "a.json"]


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "made/where missing/runs.jsonl"
    assert read_lines(path) == []
    rows = [{"a": 1}, {"b": [0.1 + 0.2, "é\n"]}, {}]
    for row in rows:
        append_lines(path, [row])
    assert read_lines(path) == rows
    assert path.read_text().count("\n") == 3


ROW = {"name": "é", "value": [1.5, {"inner": "}"}]}


@pytest.mark.parametrize("length", range(len(to_json(ROW).encode()) + 1))
def test_a_line_torn_at_any_byte_costs_that_line_alone(tmp_path, length):
    path, line = tmp_path / "a", to_json(ROW).encode()
    path.write_bytes(b'{"n": 1}\n' + line[:length])
    expected = [{"n": 1}, ROW] if length == len(line) else [{"n": 1}]
    assert read_lines(path) == expected
    append_lines(path, [{"n": 2}])
    assert read_lines(path) == [*expected, {"n": 2}]
    assert path.read_bytes().endswith(b'}\n{"n": 2}\n')


@pytest.mark.parametrize("torn", [b"\0" * 100, b"\xff\xfe", b"12", b'{"long": "' + b"x" * 200_000])
def test_other_torn_tails(tmp_path, torn):
    path = tmp_path / "a"
    for start in (b"", b'{"n": 1}\n'):
        path.write_bytes(start + torn)
        append_lines(path, [{"n": 2}])
        assert path.read_bytes() == start + b'{"n": 2}\n'


@pytest.mark.parametrize("damage", ["{", "[1]", "\0", '{"n": 1}{"n": 2}', "<<<<<<< HEAD"])
def test_damage_in_the_middle_is_an_error_of_one_line(tmp_path, damage):
    path = tmp_path / "a"
    path.write_text(f'{{"n": 1}}\n\n{damage}\n{{"n": 2}}\n')
    with pytest.raises(DamagedFileError) as error:
        read_lines(path)
    assert str(error.value) == f"{path}, line 3: no JSON object; mend the line or remove it"
    path.write_text('{"n": 1}\n \n{"n": 2}\n')
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


def test_several_lines_at_once(tmp_path):
    append_lines(tmp_path / "a", [{"n": 1}, {"n": 2}])
    append_lines(tmp_path / "a", [])
    append_lines(tmp_path / "a", [{"n": 3}])
    assert read_lines(tmp_path / "a") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_failing_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a"
    append_lines(path, [{"n": 1}])
    write = os.write

    def half(descriptor, data):
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            append_lines(path, [{"n": "x" * 100}])
    assert path.read_text() == '{"n": 1}\n'
    append_lines(path, [{"n": 2}])
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


def test_a_lock_that_is_never_free_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    lock = files.filelock.FileLock(tmp_path / ".a.lock")
    with lock, pytest.raises(TimeoutError, match="locked by another process"):
        append_lines(tmp_path / "a", [{}])


APPENDER = """
import itertools, pathlib, sys
from capsnet_jax.sweeps.files import append_lines, to_json
path, writer, lines = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for number in range(lines):
    append_lines(path, [{"writer": writer, "number": number, "text": "x" * (number * 37 % 5000)}])
"""


def appender(path: Path, writer: str, lines: int) -> subprocess.Popen:
    command = [sys.executable, "-c", APPENDER, path, writer, str(lines)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_many_processes_append_to_one_file(tmp_path):
    path, lines = tmp_path / "a", 40
    processes = [appender(path, writer, lines) for writer in "abc"]
    for _ in range(20):
        read_lines(path)  # a reader in between is never disturbed
        time.sleep(0.005)
    for process in processes:
        with process:
            assert process.wait(timeout=60) == 0
    rows = read_lines(path)
    assert len(rows) == 3 * lines
    for writer in "abc":
        assert [row["number"] for row in rows if row["writer"] == writer] == list(range(lines))


def test_processes_killed_while_they_append(tmp_path):
    path, generator = tmp_path / "a", random.Random(0)
    before = 0
    for round_ in range(5):
        with appender(path, f"killed {round_}", 1_000_000) as process:
            time.sleep(generator.uniform(0.05, 0.3))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        append_lines(path, [{"writer": "survivor", "number": round_}])
        rows = read_lines(path)
        assert rows[-1] == {"writer": "survivor", "number": round_}
        assert len(rows) > before
        before = len(rows)


def test_threads_append_too(tmp_path):
    path = tmp_path / "a"
    threads = [threading.Thread(target=append_lines, args=(path, [{"n": n}])) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["n"] for row in read_lines(path)) == list(range(10))
