"""SIGINT and SIGTERM as a cancellation, so that everything is left in order."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.define
class ReceivedSignal:
    """The first signal that came, if one did."""

    number: int | None = None

    @property
    def exit_code(self) -> int:
        """128 and its number, as shells have it."""
        return 128 + (self.number or 0)


@asynccontextmanager
async def cancel_on_signals() -> AsyncIterator[ReceivedSignal]:
    """A block that SIGINT or SIGTERM cancels; it is left quietly then, and the signal is known after it."""
    received = ReceivedSignal()
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                async for number in signals:
                    received.number = received.number or number
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            yield received
            nursery.cancel_scope.cancel()
