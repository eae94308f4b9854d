"""The writer: the one task through which everything goes to the transport, and the buffers that it empties."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable

import trio

from ..settings import Timeouts
from .operation import Batch
from .transport import Buffer, Transport, WriteProgress

BATCHES_WAITING = 8  # of small objects; large ones wait for buffers of the pool before that
WRITTEN_TOGETHER = 1 << 18  # bytes; more than this is worth a system call of its own
POOL_BUFFERS = 4  # one in the writer's hands, two that wait, one being filled
POOL_BUFFER_SIZE = 1 << 20


class BufferPool:
    """A few large buffers, lent for reading into and given back once written, so that memory does not grow.

    The one given back last is lent first: it is still in the processor's cache.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._permits = trio.Semaphore(POOL_BUFFERS)

    @property
    def is_empty(self) -> bool:
        """Whether `borrow` would wait."""
        return not self._permits.value

    async def borrow(self) -> memoryview:
        """Wait for one."""
        lent = self.borrow_nowait()
        if lent is None:
            await self._permits.acquire()
            lent = self._lend()
        return lent

    def _lend(self) -> memoryview:
        return self._free.pop() if self._free else memoryview(bytearray(POOL_BUFFER_SIZE))

    def borrow_nowait(self) -> memoryview | None:
        """One, or None where `borrow` would wait."""
        if not self._permits.value:
            return None
        self._permits.acquire_nowait()
        return self._lend()

    def give_back(self, buffer: memoryview) -> None:
        """It may be lent again."""
        self._free.append(buffer)
        self._permits.release()

    def forget_all(self) -> None:
        """Nothing is borrowed any more."""
        self._free.clear()

    def forget(self) -> None:
        """A lent buffer will not come back: a thread that was abandoned may still write to it."""
        self._permits.release()


class Writer(WriteProgress):
    """Writes batches of whole PDUs in the order in which they were queued: small ones that wait together at once."""

    def __init__(self, transport: Transport, pool: BufferPool) -> None:
        self._transport = transport
        self._pool = pool
        self._queue, self._batches = trio.open_memory_channel[Batch](BATCHES_WAITING)
        self._in_hand: collections.deque[Batch] = collections.deque()
        self._accepted = 0  # bytes, since there were several of these
        self._settled = 0  # bytes of those that were in hand with them, and are out
        self.unwritten = 0  # batches that are queued, in hand, or wait to be queued
        self.progressed_at = -math.inf  # when the transport last took something
        self.when_idle: Callable[[], None] | None = None  # is called when there is none of these left
        self.is_stopped = False  # nothing is to be taken from the queue any more

    @property
    def is_full(self) -> bool:
        """Whether `queue_nowait` might raise."""
        return self.unwritten >= BATCHES_WAITING

    def queue_nowait(self, batch: Batch) -> None:
        """Hand over a batch. Raises `trio.WouldBlock` while the queue is full."""
        self._queue.send_nowait(batch)
        self.unwritten += 1

    async def queue(self, batch: Batch) -> None:
        """Hand over a batch; waits while the queue is full. If it is cancelled, the batch was not queued."""
        self.unwritten += 1
        try:
            await self._queue.send(batch)
        except BaseException:
            self.unwritten -= 1
            raise

    async def run(self) -> None:
        """Write until cancelled. Raises `ConnectionLost`."""
        while True:
            batch = await self._batches.receive()
            if self.is_stopped:  # after this task was woken, before it ran
                return
            self._take(batch)
            is_alone = self.unwritten == 1 or batch.data_set_bytes >= WRITTEN_TOGETHER
            await self._transport.write(batch.buffers if is_alone else self._take_more(batch), self)
            self._written()

    def _take(self, batch: Batch) -> None:
        self._in_hand.append(batch)
        batch.taken()

    def _take_more(self, batch: Batch) -> list[Buffer]:
        """The buffers of `batch` and of what waits behind it, as far as one write is to have."""
        buffers, size = list(batch.buffers), batch.size
        while size < WRITTEN_TOGETHER:
            try:
                batch = self._batches.receive_nowait()
            except trio.WouldBlock:
                break
            self._take(batch)
            buffers += batch.buffers
            size += batch.size
        return buffers

    # --- what the transport tells

    def bytes_accepted(self, count: int) -> None:
        self.progressed_at = trio.current_time()
        if len(self._in_hand) > 1:  # a peer may answer what is out, while more of the same write waits
            self._accepted += count
            while self._in_hand and self._accepted >= self._settled + self._in_hand[0].size:
                self._settled += self._in_hand[0].size
                self._settle_first()

    def about_to_write(self, end: int) -> None:
        start = self._settled
        for batch in self._in_hand:
            start += batch.size
            if start > end:
                break
            batch.about_to_end()

    def _settle_first(self) -> None:
        batch = self._in_hand.popleft()
        self.unwritten -= 1
        batch.written(self.progressed_at)
        if batch.lent is not None:
            self._pool.give_back(batch.lent)

    def _written(self) -> None:
        while self._in_hand:
            self._settle_first()
        self._accepted = self._settled = 0
        if self.when_idle is not None and not self.unwritten:
            self.when_idle()

    async def finish(self, farewell: list[Buffer], timeouts: Timeouts, started: float) -> None:
        """After `run` has ended: the rest of what is in hand, then the farewell, which never lands inside a PDU.

        What is queued is dropped. Raises `ConnectionLost`.
        """
        is_at_boundary = True
        if self._in_hand:
            is_at_boundary = False
            with trio.CancelScope(deadline=started + timeouts.abort_grace):
                is_at_boundary = await self._transport.finish()
                if is_at_boundary:
                    self._written()
        if is_at_boundary:
            await self._transport.write(farewell)
            await self._transport.drain()
