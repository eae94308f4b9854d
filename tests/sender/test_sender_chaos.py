"""A destination that aborts, stalls, resets, rejects, answers wrongly, late, twice or not at all, at random.

Whatever it does: each input has one end; what is stored was acknowledged, and had come whole; what came whole is stored
or in doubt. A seed is one run, the same every time.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chaos import send_through_chaos
from trio_dicom.sender.outcome import Outcome
from trio_dicom.testing.cancel_sweep import _dice

WAYS = [(1, 1), (1, 8), (4, 1), (3, 4)]  # associations, window


def run(seed, count, associations, window, size=400):
    async def main():
        with trio.fail_after(1e6):
            return await send_through_chaos(seed, count, associations=associations, window=window, size=size)

    with _dice(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(("associations", "window"), WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_every_object_comes_to_the_end_that_is_told(seed, associations, window):
    run(seed, 150, associations, window)


def test_most_of_it_arrives_all_the_same():
    _, report = run(0, 1000, 3, 4)
    assert report.counts[Outcome.STORED] > 900


@pytest.mark.parametrize("seed", range(2))
def test_large_objects_are_cut_anywhere(seed):
    run(seed, 40, 2, 2, size=300_000)


def test_the_same_seed_is_the_same_run():
    first, second = run(7, 100, 3, 4), run(7, 100, 3, 4)
    assert first[1] == second[1]
    assert first[0].fates == second[0].fates
    assert first[0].whole == second[0].whole


def test_each_fate_is_met():
    fates = [fate for seed in range(10) for fate in run(seed, 300, 2, 2)[0].fates]
    assert len(set(fates)) == 18


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40), way=st.sampled_from(WAYS))
def test_any_seed(seed, count, way):
    run(seed, count, *way)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_seeds(seed):
    run(seed, 1000, *WAYS[seed // 2 % 4])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(8))
def test_ten_thousand_objects(seed, capsys):
    _, report = run(seed, 10_000, *WAYS[seed // 2 % 4])
    with capsys.disabled():
        counts = {outcome.value: count for outcome, count in report.counts.items()}
        print(f"\nseed {seed}: {counts}, {report.attempts} attempts, {report.associations} associations")
