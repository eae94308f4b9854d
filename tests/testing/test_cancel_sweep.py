"""cancel_at_every_checkpoint: it comes to every checkpoint, finds what is planted, and says where."""

from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing

from trio_dicom.testing import Cut, cancel_at_every_checkpoint


def test_every_checkpoint_is_come_to() -> None:
    reached: list[int] = []

    async def scenario(cut: Cut) -> None:
        passed = 0
        with cut:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                passed += 1
        reached.append(passed)

    checkpoints = cancel_at_every_checkpoint(scenario)
    assert len(reached) == checkpoints + 1
    assert set(reached) == {0, 1, 2, 3, 4, 5}
    assert reached == sorted(reached)


def test_a_planted_bug_is_found_where_it_is() -> None:
    async def scenario(cut: Cut) -> None:
        is_consistent = True
        with cut:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            is_consistent = False
            await trio.lowlevel.checkpoint()  # the third: a cancellation here leaves it as it is
            is_consistent = True
            await trio.lowlevel.checkpoint()
        assert is_consistent

    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(scenario)
    # 0 is before the first step, and the first step ends in the first checkpoint: so 3 is in the third.
    assert caught.value.__notes__ == ["cut at checkpoint 3, seed 0"]


def test_steps_of_other_tasks_count_too() -> None:
    """A cancellation between two steps of another task, while ours only waits."""
    seen: set[int] = set()

    async def scenario(cut: Cut) -> None:
        steps = 0

        async def other() -> None:
            nonlocal steps
            for _ in range(4):
                await trio.lowlevel.checkpoint()
                steps += 1
            done.set()
            await trio.sleep_forever()

        done = trio.Event()
        async with trio.open_nursery() as nursery:
            with cut:
                nursery.start_soon(other)
                await done.wait()
            seen.add(steps)
            nursery.cancel_scope.cancel()

    cancel_at_every_checkpoint(scenario)
    assert seen >= {1, 2, 3, 4}


def test_the_check_is_made_after_each_run() -> None:
    cuts: list[Cut] = []

    async def scenario(cut: Cut) -> None:
        with cut:
            await trio.lowlevel.checkpoint()

    checkpoints = cancel_at_every_checkpoint(scenario, check=cuts.append)
    assert [cut.checkpoint for cut in cuts] == list(range(checkpoints + 1))
    assert [cut.was_cancelled for cut in cuts] == [True] * checkpoints + [False]
    assert [cut.came_too_late for cut in cuts] == [False] * checkpoints + [True]

    def refuse(cut: Cut) -> None:
        assert cut.checkpoint < 1

    with pytest.raises(AssertionError) as caught:
        cancel_at_every_checkpoint(scenario, check=refuse)
    assert caught.value.__notes__ == ["cut at checkpoint 1, seed 0"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_a_descriptor_that_is_left_open() -> None:
    left: list[socket.socket] = []

    async def scenario(cut: Cut) -> None:
        with cut:
            await trio.lowlevel.checkpoint()
            mine = socket.socket()
            left.append(mine)
            await trio.lowlevel.checkpoint()
            mine.close()

    try:
        with pytest.raises(AssertionError, match="descriptors are left open") as caught:
            cancel_at_every_checkpoint(scenario)
        assert caught.value.__notes__ == ["cut at checkpoint 2, seed 0"]
    finally:
        for each in left:
            each.close()


def test_a_scenario_without_end() -> None:
    async def scenario(cut: Cut) -> None:
        with cut:
            while True:
                await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="did not run through with 20 steps"):
        cancel_at_every_checkpoint(scenario, max_checkpoints=20)


def test_a_scenario_that_hangs_when_it_is_cut() -> None:
    async def scenario(cut: Cut) -> None:
        finished = False
        with cut:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            finished = True
        if not finished:
            await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError) as caught:
        cancel_at_every_checkpoint(scenario)
    assert caught.value.__notes__ == ["cut at checkpoint 0, seed 0"]


def test_a_scenario_that_cuts_nothing() -> None:
    async def scenario(cut: Cut) -> None: ...

    with pytest.raises(AssertionError, match="no `with cut:` block"):
        cancel_at_every_checkpoint(scenario)


def test_a_seed_is_an_order_of_tasks() -> None:
    def orders(seed: int) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []

        async def scenario(cut: Cut) -> None:
            order: list[int] = []

            async def task(number: int) -> None:
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                    order.append(number)

            with cut:
                async with trio.open_nursery() as nursery:
                    for number in range(4):
                        nursery.start_soon(task, number)
            found.append(tuple(order))

        cancel_at_every_checkpoint(scenario, seed=seed)
        return found

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)


def test_the_clock_is_virtual_unless_it_is_not_wanted() -> None:
    async def scenario(cut: Cut) -> None:
        start = trio.current_time()
        with cut:
            await trio.sleep(300)
        if cut.came_too_late:
            assert trio.current_time() - start == 300

    cancel_at_every_checkpoint(scenario)

    async def real(cut: Cut) -> None:
        assert not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
        with cut:
            await trio.lowlevel.checkpoint()

    cancel_at_every_checkpoint(real, virtual_clock=False)
