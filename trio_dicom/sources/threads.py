"""Blocking calls, in threads that can be abandoned.

They have a limiter of their own: reads that hang on a dead file server must not starve the application's threads.

A virtual clock does not wait for threads: with nothing else to do it goes on to the next deadline, and every timeout
passes while a file is being opened. So the helpers for tests set `stand_still`; what would go to a thread is then done
at once, where the event loop is, and takes no time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

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
        try:
            limiter = _limiter.get()
        except LookupError:
            limiter = trio.CapacityLimiter(_THREADS)
            _limiter.set(limiter)
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
