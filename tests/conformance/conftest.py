"""The suites of others that csoftmax must pass: which of SciPy's cases are left out by which rule, and the counts.

The folder is collected only where it is named, as `make conformance` does: its peers take seconds to import.
"""

from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SUITES = {"test_scipy.py": "SciPy", "test_onnx.py": "ONNX", "test_pytorch.py": "PyTorch"}
FUNCTIONS = {"softmax", "log_softmax", "logsumexp"}
LEFT_OUT = pytest.StashKey[Counter]()


def pytest_configure(config):
    for marker in ("skip_xp_backends", "xfail_xp_backends"):
        config.addinivalue_line("markers", f"{marker}: SciPy's, for array libraries but NumPy")
    # SciPy parametrizes by iterators, of which pytest 9 warns.
    config.addinivalue_line("filterwarnings", "ignore:Passing a non-Collection iterable")


def pytest_ignore_collect(collection_path, config):
    start = config.invocation_params.dir
    named = [(start / argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


def pytest_collection_modifyitems(config, items):
    rules = {item: rule for item in items if (rule := rule_against(item))}
    config.stash[LEFT_OUT] = Counter(rules.values())
    config.hook.pytest_deselected(items=list(rules))
    items[:] = [item for item in items if item not in rules]


def rule_against(item):
    """Return the rule by which a case of SciPy's is not one of real numbers in the three functions, or None."""
    if item.path.name != "test_scipy.py":
        return None
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(isinstance(value, complex) or str(value).startswith("complex") for value in parameters):
        return "complex"  # a parameter is a complex number, or the name of a complex dtype
    code = item.function.__code__
    constants = [
        c for each in code.co_consts for c in (each if isinstance(each, tuple) else [each])
    ]
    if any(isinstance(constant, complex) for constant in constants):
        return "complex"  # an imaginary number stands in the test's text
    if not FUNCTIONS & set(code.co_names):
        return "of another function"  # the test calls none of the three
    return None


def pytest_terminal_summary(terminalreporter, config):
    outcomes = {
        outcome: Counter(Path(report.nodeid.split("::")[0]).name for report in reports)
        for outcome, reports in terminalreporter.stats.items()
        if outcome in ("passed", "failed", "error", "skipped")
    }
    if not any(file in counts for counts in outcomes.values() for file in SUITES):
        return
    parts = []
    for file, suite in SUITES.items():
        counts = [f"{counts[file]} {name}" for name, counts in outcomes.items() if counts[file]]
        if file == "test_scipy.py":
            rules = config.stash[LEFT_OUT].most_common()
            counts += [f"{n} {rule} deselected" for rule, n in rules]
        parts.append(f"{suite} {', '.join(counts) or 'not run'}")
    terminalreporter.write_line(f"conformance: {'; '.join(parts)}")
