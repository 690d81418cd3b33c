import os
import subprocess
import sys

PROGRAM = """
import sys, jax
from capsnet_jax.training.compile import enable_compilation_cache
enable_compilation_cache()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
print(float(jax.jit(lambda x: (x * x).sum())(jax.numpy.arange(4.0))))
print("/jax/compilation_cache/cache_hits" in hits)
"""


def start(cache, **more):
    environment = {**os.environ, "CAPSNET_JAX_CACHE": str(cache), **more}
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)


def test_a_second_start_finds_what_the_first_compiled_and_says_nothing(tmp_path):
    first, second = start(tmp_path), start(tmp_path)
    assert first.stdout.split() == ["14.0", "False"]
    assert second.stdout.split() == ["14.0", "True"]
    assert first.stderr == second.stderr == ""


def test_a_folder_that_the_user_chose_is_the_one(tmp_path):
    start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / "ours").exists()
