import doctest
import importlib
import inspect

import pytest


@pytest.mark.parametrize(
    ("name", "least"), [("conv", 1), ("fourier", 0), ("normalization", 1), ("pooling", 2), ("squash", 0)]
)
def test_examples_in_docstrings(name, least):
    module = importlib.import_module(f"capsnet_jax.ops.{name}")
    # `doctest.testmod` passes over functions that the annotation checker has wrapped, so they are unwrapped here.
    functions = [inspect.unwrap(value) for value in vars(module).values() if inspect.isroutine(value)]
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for function in functions:
        if function.__module__ == module.__name__:
            for test in finder.find(function, function.__name__, module, globs=vars(module)):
                runner.run(test)
    assert runner.failures == 0
    assert runner.tries >= least
