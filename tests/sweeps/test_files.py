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
from capsnet_jax.sweeps.files import append_lines, read_lines, remove_abandoned, set_damaged_aside, to_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "made/where missing/a"
    files.write_bytes(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    files.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
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


def test_what_killed_writers_left_is_removed_and_what_living_ones_have_is_not(tmp_path, monkeypatch):
    fsync, seen = os.fsync, []

    def look(descriptor):
        remove_abandoned(tmp_path)
        seen.extend(names(tmp_path / "run"))
        fsync(descriptor)

    (tmp_path / "run").mkdir()
    for name in (".0123.partial", "run/.4567.partial", "run/other.partial", "run/.partial.json"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(os, "fsync", look)
    files.write_text(tmp_path / "run/a", "whole")
    [mine] = {name for name in seen if name.startswith(".") and name.endswith(".partial")}
    assert mine != ".4567.partial"
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == [".partial.json", "a", "other.partial"]
    assert (tmp_path / "run/a").read_text() == "whole"


def test_the_names_of_new_folders_are_on_the_disk(tmp_path, monkeypatch):
    opened, synced, open_, fsync = {}, [], os.open, os.fsync

    def note_open(path, *arguments, **keywords):
        descriptor = open_(path, *arguments, **keywords)
        opened[descriptor] = Path(path)
        return descriptor

    monkeypatch.setattr(os, "open", note_open)
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (synced.append(opened.pop(descriptor, None)), fsync(descriptor))
    )
    files.write_text(tmp_path / "b/c/d", "text")
    assert [path for path in synced if path] == [tmp_path, tmp_path / "b", tmp_path / "b/c"]
    append_lines(tmp_path / "e", [{}])
    assert synced[-1] == tmp_path


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "made/where missing/runs.jsonl"
    assert read_lines(path) == []
    rows = [{"a": 1}, {"b": [0.1 + 0.2, "é\n"]}, {}]
    for row in rows:
        append_lines(path, [row])
    assert read_lines(path) == rows
    assert path.read_text().count("\n") == 3


ROW = {"name": "é", "value": [1.5, {"inner": "}"}]}


def written(row: dict, folder: Path) -> bytes:
    """The bytes that stand for a row, without its newline."""
    append_lines(folder / "row", [row])
    line = (folder / "row").read_bytes()[:-1]
    (folder / "row").unlink()
    return line


@pytest.mark.parametrize("part", range(21))
def test_a_line_torn_at_any_byte_costs_that_line_alone(tmp_path, part):
    path, first, line = tmp_path / "a", written({"n": 1}, tmp_path), written(ROW, tmp_path)
    length = len(line) * part // 20
    path.write_bytes(first + b"\n" + line[:length])
    expected = [{"n": 1}, ROW] if length == len(line) else [{"n": 1}]
    assert read_lines(path) == expected
    append_lines(path, [{"n": 2}])
    assert read_lines(path) == [*expected, {"n": 2}]
    assert path.read_bytes().endswith(b"}\n" + written({"n": 2}, tmp_path) + b"\n")


@pytest.mark.parametrize("torn", [b"\0" * 100, b"\xff\xfe", b"12", b'{"long": "' + b"x" * 200_000])
def test_other_torn_tails(tmp_path, torn):
    path, whole = tmp_path / "a", written({"n": 2}, tmp_path) + b"\n"
    for start in (b"", written({"n": 1}, tmp_path) + b"\n"):
        path.write_bytes(start + torn)
        append_lines(path, [{"n": 2}])
        assert path.read_bytes() == start + whole


OTHERS = [b"{", b"[1]", b"\0", b"{}", b'{"n": 1}{"n": 2}', b"<<<<<<< HEAD", b"[" * 100_000, b'{"checksum": null}']


@pytest.mark.parametrize("damage", [*OTHERS, "digit", "checksum", "name"])
def test_a_damaged_line_is_named_and_left_out(tmp_path, caplog, damage):
    path, line = tmp_path / "a", written({"error": 0.52}, tmp_path)
    changes = {"digit": (b"0.52", b"0.53"), "checksum": (b'sum": "', b'sum": "0'), "name": (b"error", b"errer")}
    bad = damage if isinstance(damage, bytes) else line.replace(*changes[damage])
    path.write_bytes(line + b"\n\n" + bad + b"\r\n" + written(ROW, tmp_path) + b"\r\n")
    for _ in range(2):
        assert read_lines(path) == [{"error": 0.52}, ROW]
    remedy = "the command that wrote it writes it again"
    assert caplog.messages == [f"{path}, line 3 is damaged and left out; {remedy}"]  # once

    set_damaged_aside(path)
    set_damaged_aside(path)
    assert (tmp_path / "a.damaged").read_bytes() == bad + b"\r\n"
    assert path.read_bytes().count(b"\n") == 2
    assert read_lines(path) == [{"error": 0.52}, ROW]


def test_a_second_damaged_line_joins_the_first(tmp_path):
    path = tmp_path / "a"
    for damage in (b"one", b"two"):
        path.write_bytes(damage + b"\n" + written({"n": 1}, tmp_path) + b"\n" + damage)
        set_damaged_aside(path)
    assert (tmp_path / "a.damaged").read_bytes() == b"one\none\ntwo\ntwo\n"
    set_damaged_aside(tmp_path / "missing")
    assert not (tmp_path / ".missing.lock").exists()


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
    assert path.read_bytes() == written({"n": 1}, tmp_path) + b"\n"
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
