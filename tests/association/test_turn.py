"""Turn: one at a time, in order, and nobody is forgotten."""

from __future__ import annotations

import trio
import trio.testing

from trio_dicom.association.turn import Turn


async def test_in_the_order_of_asking(autojump_clock: trio.testing.MockClock) -> None:
    turn, order = Turn(), []

    async def take(number: int) -> None:
        await turn.take()
        order.append(number)
        await trio.sleep(1)
        turn.release()

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4]
    assert trio.current_time() == 5


async def test_who_is_cancelled_while_waiting_is_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    turn, came = Turn(), []

    async def take(number: int) -> None:
        await turn.take()
        came.append(number)
        turn.release()

    await turn.take()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        with scope:
            async with trio.open_nursery() as given_up:
                given_up.start_soon(take, 1)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(take, 2)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        turn.release()
    assert came == [2]


async def test_who_is_cancelled_when_it_has_come_hands_it_on(autojump_clock: trio.testing.MockClock) -> None:
    turn, came = Turn(), []

    async def take(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await turn.take()
            came.append(number)
            turn.release()

    scopes = [trio.CancelScope(), trio.CancelScope()]
    await turn.take()
    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(take, number, scope)
            await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()  # so it wakes by this, and finds that its turn has come as well
        turn.release()
    assert came in ([1], [0, 1])
    await turn.take()  # nobody has it


async def test_the_end_wakes_all(autojump_clock: trio.testing.MockClock) -> None:
    turn = Turn()
    await turn.take()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(turn.take)
        await trio.testing.wait_all_tasks_blocked()
        turn.end()
