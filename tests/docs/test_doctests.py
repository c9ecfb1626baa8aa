"""Every example in a docstring of the package runs and shows what it says."""

import doctest
import importlib
import pkgutil

import pytest

import addloss_kit


def modules():
    yield addloss_kit.__name__
    for found in pkgutil.walk_packages(addloss_kit.__path__, "addloss_kit."):
        if not found.name.endswith("__main__"):  # Importing it runs the command line.
            yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_the_examples_of_a_module_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test
        for name in modules()
        for test in finder.find(importlib.import_module(name))
        if test.examples
    ]
    assert len(found) > 20
