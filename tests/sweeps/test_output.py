import os
import pty
import subprocess
import sys

import pytest

# What a sweep says, and then what it does: its last words and its exit code must be as if somebody had listened.
TELLS = """
import sys
from capsnet_jax.sweeps.output import protect_output
from capsnet_jax.sweeps.progress import Progress

failure = protect_output()
with Progress(100) as progress:
    progress.begin(100, 1, "compiling")
    sys.stdin.readline()
    for step in range(1, 4):
        progress.advance(10, f"step {step}", step, keep=True)
    progress.say("trained")
print("a table × █")
print("saved", failure(), file=sys.stderr)
sys.exit(7)
"""


def tell(stdout: int, stderr: int) -> subprocess.Popen:
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    streams = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": stderr}
    return subprocess.Popen([sys.executable, "-c", TELLS], env=environment, text=True, **streams)


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    ("stdout", "said"),
    [
        (closed_pipe, "saved None\n"),
        (
            lambda: os.open("/dev/full", os.O_WRONLY),
            "saved [Errno 28] No space left on device\n",
        ),
    ],
    ids=["closed pipe", "full disk"],
)
def test_what_cannot_be_said_ends_nothing(stdout, said):
    descriptor = stdout()
    process = tell(descriptor, subprocess.PIPE)
    os.close(descriptor)
    assert process.communicate("\n", timeout=20)[1] == said
    assert process.returncode == 7


def test_a_terminal_that_is_closed_ends_nothing():
    terminal, end = pty.openpty()
    process = tell(end, end)
    os.close(end)
    while b"compiling" not in os.read(terminal, 1000):
        pass
    os.close(terminal)
    process.communicate("\n", timeout=20)
    assert process.returncode == 7


def test_what_an_encoding_lacks_is_replaced():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", TELLS], env=environment, input=b"\n", capture_output=True, check=False)
    assert done.stdout.endswith(b"trained\na table ? ?\n")
    assert (done.stderr, done.returncode) == (b"saved None\n", 7)


def test_without_standard_streams():
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, TELLS], input=b"\n", check=False)
    assert done.returncode == 7
