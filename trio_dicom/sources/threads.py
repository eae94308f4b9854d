"""Blocking calls of sources, in threads that can be abandoned.

They have a limiter of their own: reads that hang on a dead file server must not starve the application's threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("trio_dicom.sources limiter")
_THREADS = 40

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


async def run_abandonable(function: Callable[[*Args], Result], *args: *Args) -> Result:
    """`function(*args)` in a thread. When cancelled it is left to itself, so it must clean up after itself."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=limiter)
