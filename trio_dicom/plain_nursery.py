"""A nursery that is an inner matter: what goes wrong comes out of it as it is, in no group."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .errors import InternalError


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery out of which one exception comes: a bug of ours, else the first that is no cancellation.

    A group that the body raised stays one.
    """
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


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if isinstance(each, InternalError)), error.exceptions[0])
    return error
