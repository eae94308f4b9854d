"""A destination that aborts, stalls, resets, rejects, answers wrongly, late, twice or not at all, at random.

Whatever it does: each input has one end; what is stored was acknowledged, and had come whole; what the destination has
is stored, already present or in doubt. A seed is one run, the same every time.
"""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chaos import CONNECTIONS, FATES, RELEASES, Dice, Script, send_through_chaos
from trio_dicom.sender.outcome import Outcome
from trio_dicom.testing.cancel_sweep import _dice

WAYS = [(1, 1), (1, 8), (4, 1), (3, 4)]  # associations, window


def run(chance, count, associations, window, *, seed=0, **more):
    async def main():
        with trio.fail_after(1e6):
            return await send_through_chaos(
                chance, count, associations=associations, window=window, seed=seed, **more
            )

    with _dice(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def run_seed(seed, count, associations, window, **more):
    """With backpressure every other pair of seeds."""
    return run(Dice(seed), count, associations, window, seed=seed, backpressure=bool(seed & 2), **more)


@pytest.mark.parametrize(("associations", "window"), WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_every_object_comes_to_the_end_that_is_told(seed, associations, window):
    run_seed(seed, 150, associations, window)
