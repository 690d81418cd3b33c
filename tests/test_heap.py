import subprocess
import sys

import pytest

CALLS = """
import resource, sys
import jax, jax.numpy as jnp
from capsnet_jax import heap
if sys.argv[1] == "keep":
    heap.keep_freed()
scratch = jax.jit(lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x))))  # the transform needs memory of its own, 64 MB
x = jnp.ones((2000, 4096))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    scratch(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([faults() for _ in range(4)][-1])
"""


def faults_of_a_call(how):
    done = subprocess.run([sys.executable, "-c", CALLS, how], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_a_program_s_scratch_memory_is_taken_from_the_kernel_once():
    assert faults_of_a_call("keep") < 1000 < 10_000 < faults_of_a_call("give back")  # of 4 kB


def test_what_is_not_glibc_is_passed_over(monkeypatch):
    from capsnet_jax import heap

    def no_such_library(_):
        raise OSError

    monkeypatch.setattr(heap.ctypes, "CDLL", no_such_library)
    heap.keep_freed()
    heap.give_back()
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    heap.keep_freed()
    heap.give_back()
