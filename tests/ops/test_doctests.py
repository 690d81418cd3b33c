import doctest
import importlib
import inspect
import pkgutil

import pytest

from capsnet_jax import ops

MODULES = [module.name for module in pkgutil.walk_packages(ops.__path__, "capsnet_jax.ops.") if not module.ispkg]
EXAMPLES = {"conv.chunking": 1, "conv.select": 1, "normalization": 1, "pooling": 2}  # at least


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    # `doctest.testmod` passes over functions that the annotation checker has wrapped, so they are unwrapped here.
    functions = [inspect.unwrap(value) for value in vars(module).values() if inspect.isroutine(value)]
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for function in functions:
        if function.__module__ == module.__name__:
            for test in finder.find(function, function.__name__, module, globs=vars(module)):
                runner.run(test)
    assert runner.failures == 0
    assert runner.tries >= EXAMPLES.get(name.removeprefix("capsnet_jax.ops."), 0)


def test_the_modules_with_examples_exist():
    assert {f"capsnet_jax.ops.{name}" for name in EXAMPLES} <= set(MODULES)
