"""Blocking calls, in threads that can be abandoned.

They have a limiter of their own: reads that hang on a dead file server must not starve the application's threads.

A virtual clock does not wait for threads: with nothing else to do it goes on to the next deadline, and every timeout
passes while a file is being opened. So the helpers for tests set `stand_still`; what would go to a thread is then done
at once, where the event loop is, and takes no time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

if TYPE_CHECKING:
    from outcome import Outcome  # of trio's own needs

stand_still: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("trio_dicom: the clock is virtual", default=False)

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("trio_dicom.sources limiter")
_THREADS = 40

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


async def run_abandonable(
    function: Callable[[*Args], Result],
    *args: *Args,
    limiter: trio.CapacityLimiter | None = None,
    needs_thread: bool = False,
) -> Result:
    """`function(*args)` in a thread. When cancelled it is left to itself, so it must clean up after itself.

    Where the system has no further thread, it is done here: better to hold up the event loop than to fail. If it
    `needs_thread`, for it may have to wait for another, that is a `RuntimeError`.
    """
    if stand_still.get():
        await trio.lowlevel.checkpoint()
        return function(*args)
    if limiter is None:
        limiter = _usual_limiter()
    is_begun = False

    def begin() -> Result:
        nonlocal is_begun
        is_begun = True
        return function(*args)

    try:
        return await trio.to_thread.run_sync(begin, abandon_on_cancel=True, limiter=limiter)
    except RuntimeError:
        if is_begun or needs_thread:
            raise
        return function(*args)


async def run_errand(
    function: Callable[[*Args], Result], *args: *Args, limiter: trio.CapacityLimiter, needs_thread: bool = False
) -> Result:
    """The same for a `function` that is none of the user's: it finds no context variables, and no way back to trio.

    What these take is more than half of what a thread costs.
    """
    if stand_still.get():
        await trio.lowlevel.checkpoint()
        return function(*args)
    await trio.lowlevel.checkpoint_if_cancelled()
    errand = _Errand(limiter)
    try:
        limiter.acquire_on_behalf_of_nowait(errand)
    except trio.WouldBlock:
        await limiter.acquire_on_behalf_of(errand)
    try:
        trio.lowlevel.start_thread_soon(functools.partial(function, *args), errand.deliver)
    except RuntimeError:
        limiter.release_on_behalf_of(errand)
        if needs_thread:
            raise
        return function(*args)
    result: Result = await trio.lowlevel.wait_task_rescheduled(errand.abandon)
    return result


class _Errand:
    """A task that waits for a thread, until it is abandoned."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._token = trio.lowlevel.current_trio_token()
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def deliver(self, result: Outcome[object]) -> None:
        """Called by the thread."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._end, result)

    def _end(self, result: Outcome[object]) -> None:
        self._limiter.release_on_behalf_of(self)
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, result)

    def abandon(self, raise_cancel: object) -> trio.lowlevel.Abort:
        """Called when the task is cancelled."""
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


def _usual_limiter() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
        return limiter
