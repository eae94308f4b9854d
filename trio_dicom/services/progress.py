"""TransferProgress, and a channel for it that an observer cannot slow down."""

from __future__ import annotations

import logging
from typing import Any, TypeVar, overload

import attrs
import trio

log = logging.getLogger(__name__)

Value = TypeVar("Value")


@attrs.frozen
class TransferProgress:
    """How far one object has come; emitted after bytes went to the transport."""

    sop_instance_uid: str
    bytes_sent: int  #: of the data set, in this attempt
    bytes_total: int | None  #: None: the source does not know
    elapsed: float  #: seconds since this attempt began
    attempt: int = 1
    is_complete: bool = False  #: True once, with the last value: a final response came

    @property
    def bytes_per_second(self) -> float:
        """The mean rate of this attempt."""
        return self.bytes_sent / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def percent(self) -> float | None:
        """0 to 100; None where the total is not known."""
        if self.bytes_total is None:
            return 100.0 if self.is_complete else None
        return 100.0 * self.bytes_sent / self.bytes_total if self.bytes_total else 100.0

    @property
    def eta(self) -> float | None:
        """Seconds until the last byte at the present rate; None where that cannot be said."""
        if self.is_complete:
            return 0.0
        rate = self.bytes_per_second
        if self.bytes_total is None or not rate:
            return None
        return max(0, self.bytes_total - self.bytes_sent) / rate


class ProgressSendChannel(trio.abc.SendChannel[Value]):
    """The writing end of `open_progress_channel`: never blocks, and keeps only the latest value."""

    def __init__(self) -> None:
        self._latest: Value | None = None
        self._is_closed = False
        self._is_abandoned = False
        self._news = trio.Event()

    def send_nowait(self, value: Value) -> None:
        """Offer `value`, in place of one that was not yet received.

        Raises `trio.ClosedResourceError` after `close`, and `trio.BrokenResourceError` when the other end was closed.
        """
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._is_abandoned:
            raise trio.BrokenResourceError
        self._latest = value
        self._news.set()

    async def send(self, value: Value) -> None:
        """`send_nowait`, with a checkpoint before it."""
        await trio.lowlevel.checkpoint()
        self.send_nowait(value)

    def close(self) -> None:
        """No more values; what was sent last is still delivered."""
        self._is_closed = True
        self._news.set()

    async def aclose(self) -> None:
        """`close`, with a checkpoint after it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> ProgressSendChannel[Value]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ProgressReceiveChannel(trio.abc.ReceiveChannel[Value]):
    """The reading end of `open_progress_channel`: each value is the latest there is."""

    def __init__(self, source: ProgressSendChannel[Value]) -> None:
        self._source = source
        self._is_closed = False

    async def receive(self) -> Value:
        """Wait for a value newer than the last one received.

        Raises `trio.EndOfChannel` after the last value of a closed channel. Cancelled, it loses nothing.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._is_closed:
                raise trio.ClosedResourceError
            value, self._source._latest = self._source._latest, None
            if value is not None:
                return value
            if self._source._is_closed:
                raise trio.EndOfChannel
            if self._source._news.is_set():
                self._source._news = trio.Event()
            await self._source._news.wait()

    def close(self) -> None:
        """Receive no more; the sender is not disturbed by it."""
        self._is_closed = self._source._is_abandoned = True
        self._source._news.set()

    async def aclose(self) -> None:
        """`close`, with a checkpoint after it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> ProgressReceiveChannel[Value]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@overload
def open_progress_channel() -> tuple[
    ProgressSendChannel[TransferProgress], ProgressReceiveChannel[TransferProgress]
]: ...


@overload
def open_progress_channel(kind: type[Value]) -> tuple[ProgressSendChannel[Value], ProgressReceiveChannel[Value]]: ...


def open_progress_channel(kind: type[Any] = TransferProgress) -> tuple[Any, Any]:
    """A channel for `TransferProgress` that keeps the latest value only, and always delivers the last.

    A slow observer therefore skips values, and never slows the transfer; a plain memory channel works as well, and
    loses the values that do not fit. `kind`, such as `TransferReport`, is for type checkers: what else it is for.
    """
    send = ProgressSendChannel[Any]()
    return send, ProgressReceiveChannel(send)


class ProgressReporter:
    """Makes the progress of one attempt out of the writer's counts, and offers it to the observer's channel."""

    def __init__(
        self,
        channel: trio.abc.SendChannel[TransferProgress],
        sop_instance_uid: str,
        bytes_total: int | None,
        attempt: int,
    ) -> None:
        self._channel = channel
        self._make = TransferProgress(sop_instance_uid, 0, bytes_total, 0.0, attempt)
        self._start = trio.current_time()

    def report(self, bytes_sent: int, *, is_complete: bool = False) -> None:
        elapsed = trio.current_time() - self._start
        progress = attrs.evolve(self._make, bytes_sent=bytes_sent, elapsed=elapsed, is_complete=is_complete)
        try:
            self._channel.send_nowait(progress)  # type: ignore[attr-defined]
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # an observer that is slow, or has gone, is no reason to fail
        except Exception as error:
            log.warning("a progress channel failed: %s", type(error).__name__)
