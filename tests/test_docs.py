"""The documentation that the package carries is there, and its examples run."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import csoftmax
from csoftmax import _config, _embedding, _functions, functional, special

FUNCTIONS = [name for name in csoftmax.__all__ if callable(getattr(csoftmax, name))]
COMPUTING = [
    name for name in FUNCTIONS if getattr(csoftmax, name).__module__ == _functions.__name__
]


@pytest.mark.parametrize("module", [_functions, _config, _embedding, functional, special])
def test_every_example_in_the_docstrings_gives_what_it_shows(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_a_docstring_that_starts_with_one_sentence(name):
    first, _, rest = inspect.getdoc(getattr(csoftmax, name)).partition("\n")
    assert first.endswith(".")
    assert rest.startswith("\n")


@pytest.mark.parametrize("name", COMPUTING)
def test_the_docstring_of_a_function_has_every_section(name):
    text = inspect.getdoc(getattr(csoftmax, name))
    for section in ("Parameters", "Returns", "Raises", "Notes", "References", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text
    assert ".. math::" in text


@pytest.mark.parametrize("name", COMPUTING)
def test_the_docstring_of_a_function_names_every_parameter(name):
    function = getattr(csoftmax, name)
    text = inspect.getdoc(function).split("Parameters\n")[1].split("Returns\n")[0]
    described = {
        word
        for line in text.splitlines()
        if " : " in line and line[0] != " "
        for word in line.split(" : ")[0].split(", ")
    }
    if "As in `cross_entropy`" in text:
        described |= set(inspect.signature(csoftmax.cross_entropy).parameters)
    assert set(inspect.signature(function).parameters) <= described


@pytest.mark.parametrize("name", COMPUTING)
def test_the_docstring_says_what_an_interruption_does_to_out(name):
    text = " ".join(inspect.getdoc(getattr(csoftmax, name)).split())
    has_out = "out" in inspect.signature(getattr(csoftmax, name)).parameters
    promise = "only a signal's handler that raises (Ctrl-C) may leave it partly written"
    assert (
        f"On any error that is raised, it holds what it held before; {promise}." in text
    ) == has_out


def test_every_public_name_exists_and_the_list_is_sorted():
    assert [name for name in csoftmax.__all__ if not hasattr(csoftmax, name)] == []
    assert list(csoftmax.__all__) == sorted(csoftmax.__all__)
    assert isinstance(csoftmax.__version__, str)


@pytest.mark.parametrize("name", COMPUTING)
def test_what_follows_the_axis_or_the_targets_is_passed_by_name_only(name):
    parameters = inspect.signature(getattr(csoftmax, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    allowed = [["x", "axis"], ["logits", "target"], ["logits", "index"], ["grad", "output", "axis"]]
    assert positional in allowed


def test_the_tests_that_guard_the_promises_exist():
    promises = Path(__file__).parent.parent / "docs" / "promises.md"
    if not promises.exists():
        pytest.skip("the documentation is not beside the tests")
    file, n_tests = None, 0
    for path, after, alone in re.findall(
        r"((?:embedding/|differential/)?test_\w+\.py)(?:::(test_\w+))?|\b(test_\w+)\b",
        promises.read_text(),
    ):
        file = path or file
        source = (Path(__file__).parent / file).read_text()
        if name := after or alone:
            assert f"def {name}(" in source, f"{file} has no {name}"
            n_tests += 1
    assert n_tests > 40
