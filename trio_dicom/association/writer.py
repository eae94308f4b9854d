"""The writer: the one task through which everything goes to the transport, and the buffers that it empties."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..settings import Timeouts
from .operation import Batch
from .transport import Buffer, Transport

BATCHES_WAITING = 2
POOL_BUFFERS = 4  # one in the writer's hands, those that wait, one being filled
POOL_BUFFER_SIZE = 1 << 20


class BufferPool:
    """A few large buffers, lent for reading into and given back once written, so that memory does not grow.

    The one given back last is lent first: it is still in the processor's cache.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._permits = trio.Semaphore(POOL_BUFFERS)

    async def borrow(self) -> memoryview:
        try:
            self._permits.acquire_nowait()
        except trio.WouldBlock:
            await self._permits.acquire()
        return self._free.pop() if self._free else memoryview(bytearray(POOL_BUFFER_SIZE))

    def give_back(self, buffer: memoryview) -> None:
        self._free.append(buffer)
        self._permits.release()

    def forget_all(self) -> None:
        """Nothing is borrowed any more."""
        self._free.clear()

    def forget(self) -> None:
        """A lent buffer will not come back: a thread that was abandoned may still write to it."""
        self._permits.release()


class Writer:
    """Writes batches of whole PDUs one after another, in the order in which they were queued."""

    def __init__(self, transport: Transport, pool: BufferPool) -> None:
        self._transport = transport
        self._pool = pool
        self._queue, self._batches = trio.open_memory_channel[Batch](BATCHES_WAITING)
        self._in_hand: Batch | None = None
        self.unwritten = 0  # batches that are queued, in hand, or wait to be queued
        self.when_idle: Callable[[], None] | None = None  # is called when there is none of these left
        self.is_stopped = False  # nothing is to be taken from the queue any more

    async def queue(self, batch: Batch) -> None:
        """Hand over a batch; waits while the queue is full. If it is cancelled, the batch was not queued."""
        self.unwritten += 1
        try:
            self._queue.send_nowait(batch)
        except trio.WouldBlock:
            try:
                await self._queue.send(batch)
            except BaseException:
                self.unwritten -= 1
                raise

    def queue_nowait(self, batch: Batch) -> None:
        """Hand over a small batch of the reader's, which waits for nobody. Raises `trio.WouldBlock`."""
        self._queue.send_nowait(batch)
        self.unwritten += 1

    async def run(self) -> None:
        """Write until cancelled. Raises `ConnectionLost`."""
        while True:
            batch = await self._batches.receive()
            if self.is_stopped:  # after this task was woken, before it ran
                return
            batch.taken()
            self._in_hand = batch
            await self._transport.write(batch.buffers, batch)
            self._written(batch)

    def _written(self, batch: Batch) -> None:
        self._in_hand = None
        self.unwritten -= 1
        batch.written()
        if batch.lent is not None:
            self._pool.give_back(batch.lent)
        if self.when_idle is not None and not self.unwritten:
            self.when_idle()

    async def finish(self, farewell: list[Buffer], timeouts: Timeouts, started: float) -> None:
        """After `run` has ended: the rest of the batch in hand, then the farewell, which never lands inside a PDU.

        What is queued is dropped. Raises `ConnectionLost`.
        """
        is_at_boundary = True
        if self._in_hand is not None:
            is_at_boundary = False
            with trio.CancelScope(deadline=started + timeouts.abort_grace):
                is_at_boundary = await self._transport.finish()
                if is_at_boundary:
                    self._written(self._in_hand)
        if is_at_boundary:
            await self._transport.write(farewell, Batch(farewell))
            await self._transport.drain()
