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
    function: Callable[[*Args], Result], *args: *Args, limiter: trio.CapacityLimiter | None = None
) -> Result:
    """`function(*args)` in a thread. When cancelled it is left to itself, so it must clean up after itself."""
    if stand_still.get():
        await trio.lowlevel.checkpoint()
        return function(*args)
    if limiter is None:
        try:
            limiter = _limiter.get()
        except LookupError:
            limiter = trio.CapacityLimiter(_THREADS)
            _limiter.set(limiter)
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=limiter)
