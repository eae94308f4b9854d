"""SIGINT, SIGTERM and SIGHUP as what a command is told, so that everything is left in order."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio


def _heeded() -> tuple[signal.Signals, ...]:
    """`nohup` has SIGHUP ignored, and a shell SIGINT for what it runs in the background: so they stay."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    known = [signal.Signals[name] for name in names if hasattr(signal, name)]
    is_ours = {each: each is signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN for each in known}
    return tuple(each for each in known if is_ours[each])


SIGNALS = _heeded()


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
    """A block that a signal cancels; it is left quietly then, and the signal is known after it."""
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
