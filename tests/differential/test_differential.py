"""Random calls beside exact arithmetic, a few of those that `make fuzz` makes, and that this finds what is wrong."""

import draws
import exact
import judge
import numpy as np
import pytest
import run

SEED = 20261130
pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="longdouble is double here, too narrow to judge by"
)
WIDE_TINY = np.longdouble(10) ** -4900  # below, longdouble ends


@pytest.mark.parametrize("part", range(6))
def test_random_calls_give_what_exact_arithmetic_gives(part):
    wrong = []

    def failed(number, call, error):
        wrong.append(f"{error}\n{run.command(SEED, number)}")

    counts = run.run(SEED, range(part * 150, (part + 1) * 150), failed=failed)
    assert not wrong, wrong[0]
    assert sum(counts["answered"].values()) > 130


@pytest.mark.parametrize("name", draws.DRAWS)
def test_longdouble_gives_what_200_bits_give(name, monkeypatch):
    checked = 0

    def compare(name, got, expected, dtype, again=None):
        nonlocal checked
        rows = list(range(min(len(got), 3)))
        if again is None or (finer := again(rows)) is None:
            return
        for near, far in ((expected.low, finer.low), (expected.high, finer.high)):
            near = near[: len(rows)]
            far = exact.TwoHundredBits.wide(far)
            size = np.maximum(np.abs(near), np.abs(far))
            room = np.maximum(expected.error[: len(rows)] / 16, dtype.unit(size) / 64)
            right = (near == far) | (np.abs(near - far) <= room) | (size < WIDE_TINY)
            right |= expected.nan[: len(rows)] | expected.free[: len(rows)]
            assert right.all(), (near[~right], far[~right])
        checked += len(rows)

    monkeypatch.setattr(judge, "compare", compare)
    number = 0
    while checked < 12:
        call = draws.draw(SEED, number, (name,))
        number += 1
        if max([1, *(v.size for v in call.arguments.values() if isinstance(v, np.ndarray))]) < 400:
            try:
                call.run()
            except judge.ResultError:
                pass


@pytest.mark.parametrize("name", draws.DRAWS)
def test_a_result_that_is_far_off_in_one_place_is_found(name, monkeypatch):
    monkeypatch.setattr(
        judge, "MOST_AT_200_BITS", 100
    )  # which takes time, and confirms what is found
    found = changed = number = 0
    while found < 3:
        call = draws.draw(SEED, number, (name,))
        number += 1
        assert number < 3000
        floats = [
            value
            for value in call.arguments.values()
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        ]
        most = max((float(np.abs(each).max(initial=0)) for each in floats), default=np.inf)
        if 0.1 < most < 1e3 and "out" not in call.arguments and is_right(call):
            outcome = outcome_if_changed(call)
            found += outcome is True
            changed += outcome is not None
    assert found >= changed / 3  # a sum's error grows with its rows, a gradient's with its terms


def is_right(call):
    try:
        return call.run()
    except judge.ResultError:
        return False


def outcome_if_changed(call):
    """Whether a result is refused of which the largest number is off by 30 units; None if there is none to change."""
    function, changes = call.function, []

    def with_a_change(result):
        if isinstance(result, dict):
            return dict(zip(result, with_a_change(tuple(result.values())), strict=True))
        if isinstance(result, tuple):
            return tuple(with_a_change(each) for each in result)
        values = np.array(result)
        flat = values.reshape(-1)
        if flat.size and np.isfinite(flat).all() and np.abs(flat).max() > 1e-3 and not changes:
            at = int(np.abs(flat).argmax())
            flat[at] *= 1 + 30 * np.finfo(flat.dtype).eps
            changes.append(at)
        return values[()]

    call.function = lambda *arguments, **options: with_a_change(function(*arguments, **options))
    is_refused = not is_right(call)
    return is_refused if changes else None
