"""Errands in threads: results, errors, and what is left when the task, or the system, does not play along."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from trio_dicom.sources import threads
from trio_dicom.sources.threads import run_errand


@pytest.fixture
def limiter() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(1)


async def test_it_is_done_in_a_thread(limiter: trio.CapacityLimiter) -> None:
    async def other() -> None:
        nonlocal went_on
        went_on = True

    went_on = False
    here = threading.current_thread()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert await run_errand(lambda a, b: (a + b, threading.current_thread()), 1, 2, limiter=limiter) != (3, here)
        assert went_on
    assert limiter.borrowed_tokens == 0


async def test_an_error_is_raised_where_it_is_awaited(limiter: trio.CapacityLimiter) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await run_errand(int, "x", limiter=limiter)
    assert limiter.borrowed_tokens == 0


async def test_cancelled_it_leaves_the_thread_its_place(limiter: trio.CapacityLimiter) -> None:
    go_on, done = threading.Event(), trio.Event()

    def hang() -> None:
        go_on.wait()
        trio.from_thread.run_sync(done.set, trio_token=token)

    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_errand(hang, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert limiter.borrowed_tokens == 1
    with trio.move_on_after(0) as scope:
        await run_errand(int, limiter=limiter)
    assert scope.cancelled_caught
    go_on.set()
    await done.wait()
    assert await run_errand(int, limiter=limiter) == 0  # there is room again


async def test_cancelled_before_it_does_nothing(limiter: trio.CapacityLimiter) -> None:
    done: list[int] = []
    with trio.move_on_after(0):
        await run_errand(done.append, 1, limiter=limiter)
    assert (done, limiter.borrowed_tokens) == ([], 0)


def test_a_thread_may_outlive_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    go_on, delivered = threading.Event(), threading.Event()

    class Errand(threads._Errand):
        def deliver(self, result: object) -> None:
            super().deliver(result)  # type: ignore[arg-type]
            delivered.set()

    async def leave() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_errand(go_on.wait, limiter=trio.CapacityLimiter(1)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_Errand", Errand)
        trio.run(leave)
    go_on.set()
    assert delivered.wait(10)
    assert capfd.readouterr().err == ""


async def test_without_a_thread_it_is_done_here(limiter: trio.CapacityLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", start)
    assert await run_errand(threading.current_thread, limiter=limiter) is threading.current_thread()
    with pytest.raises(RuntimeError, match="new thread"):
        await run_errand(threading.current_thread, limiter=limiter, needs_thread=True)
    assert limiter.borrowed_tokens == 0
