"""The nursery in which a link of a test runs, and which nobody sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from .. import plain_nursery
from ..association.association import Association
from ..sources.threads import stand_still


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """`plain_nursery.open_plain_nursery`; if the clock is virtual, the library uses no threads from now on.

    Such a clock would not wait for them.
    """
    if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        stand_still.set(True)
    async with plain_nursery.open_plain_nursery() as nursery:
        yield nursery


@asynccontextmanager
async def released_after(association: Association) -> AsyncIterator[None]:
    """A block that ends with the release of `association`, or, left by an exception, with its abort."""
    try:
        yield
    except BaseException:
        await association.abort()
        raise
    else:
        await association.aclose()
