"""The nursery in which a link of a test runs, and which nobody sees: what goes wrong comes out of it as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from ..association.association import Association
from ..sources.threads import stand_still


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery out of which one exception comes: the first that is no cancellation, or a group of the body's.

    If the clock is virtual, the library uses no threads from now on: such a clock would not wait for them.
    """
    if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        stand_still.set(True)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
        errors = group.split(trio.Cancelled)[1]
        whole = raised if isinstance(raised, BaseExceptionGroup) and raised.split(trio.Cancelled)[1] else None
        first = whole or (raised or group if errors is None else _first(errors))
    else:
        return
    raise first  # out here, it keeps its own cause and context


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


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
