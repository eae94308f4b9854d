"""Outgoing: messages on their way to the writer, command set and data set, cut into batches of PDUs.

What is at hand goes out without a wait: a small object is one batch, its command set first. A large one goes through
the buffers of the pool, each of which is filled while those before it are written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import attrs
import trio

from ..protocol.command import Response, encode_command
from ..protocol.message import fragment, payload_per_pdu
from ..protocol.upper_layer import UpperLayer
from .in_flight import InFlight
from .operation import Batch, DataSetSource, Delivery, Operation
from .transport import Buffer
from .writer import POOL_BUFFER_SIZE, BufferPool, Writer

if TYPE_CHECKING:
    from .association import Association

MOST_PDUS_IN_A_BATCH = 500  # two buffers each: what one gathering write takes


class Outgoing:
    """See above. One message at a time: whoever calls `send` has the turn."""

    def __init__(
        self,
        association: Association,
        machine: UpperLayer,
        in_flight: InFlight,
        writer: Writer,
        pool: BufferPool,
        pdu_length: int,
    ) -> None:
        self._association = association
        self._machine = machine
        self._in_flight = in_flight
        self._writer = writer
        self._pool = pool
        self._pdu_length = pdu_length
        payload = payload_per_pdu(pdu_length)
        self._batch_size = max(1, min(POOL_BUFFER_SIZE // payload, MOST_PDUS_IN_A_BATCH)) * payload

    async def send(self, operation: Operation) -> None:
        """Queue the whole message. What it begins with is made ready while the responses before it are awaited."""
        is_last = False
        while not is_last:
            batch = self._batch_at_once(operation) or await self._next_batch(operation)
            try:
                # The last moment at which nothing has happened; or the association ended as this task was to go on.
                await trio.lowlevel.checkpoint_if_cancelled()
                self._association.check_alive(operation)
                if not self._queue_at_once(operation, batch):
                    await self._queue(operation, batch)
            except BaseException:
                if batch.lent is not None:
                    self._pool.forget()
                raise
            is_last = batch.is_last

    async def respond(self, context_id: int, response: Response, data_set: bytes | None, limit: float) -> bool:
        """Queue a response of ours. False if there was no room for it within `limit` seconds."""
        cut = partial(fragment, context_id=context_id, max_pdu_length=self._pdu_length, is_last=True)
        try:
            raw = encode_command(attrs.evolve(response, has_data_set=data_set is not None))  # type: ignore[arg-type]
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{type(response).__name__} has a value of another type: {error}") from error
        batch = Batch(cut(raw, is_command=True) + ([] if data_set is None else cut(data_set, is_command=False)))
        await trio.lowlevel.checkpoint_if_cancelled()  # where the association has ended, this task was cancelled
        self._machine.check_can_send_data()
        try:
            self._writer.queue_nowait(batch)
        except trio.WouldBlock:
            with trio.move_on_after(limit):
                await self._writer.queue(batch)
                return True
            return False
        return True

    # --- reading

    def _batch_at_once(self, operation: Operation) -> Batch | None:
        """The next of the data set, or nothing for a message without one; None where it has to be waited for."""
        source = operation.request.data_set
        if source is None:
            return Batch([], operation, is_last=True)
        operation.phase = "reading the data set"
        data = None if operation.is_begun else source.whole()
        operation.is_begun = True
        if data is not None:
            return self._batch(operation, data, is_last=True)
        lent = self._pool.borrow_nowait()
        read = None
        try:
            if lent is not None:
                read = source.read_at_once(lent[: self._batch_size])
        finally:
            if lent is not None and read is None:
                self._pool.give_back(lent)
        return None if lent is None or read is None else self._batch(operation, lent[: read[0]], read[1], lent)

    async def _next_batch(self, operation: Operation) -> Batch:
        """The next of the data set."""
        source = cast("DataSetSource", operation.request.data_set)
        with self._association.interruptible(operation):
            lent = await self._borrow(operation)
            try:
                count, is_last = await source.read_into(lent[: self._batch_size])
                self._association.check_alive(operation)
                return self._batch(operation, lent[:count], is_last, lent)
            except BaseException:
                self._pool.forget()
                raise

    async def _borrow(self, operation: Operation) -> memoryview:
        if self._pool.is_empty:
            operation.phase = "writing"  # for which the buffers wait
            if operation.delivery is Delivery.NOTHING_SENT:
                operation.stop_clock()  # they are with operations that have clocks of their own
        lent = await self._pool.borrow()
        operation.phase = "reading the data set"
        self._association.progress(operation)
        return lent

    # --- cutting

    def _batch(self, operation: Operation, data: Buffer, is_last: bool, lent: memoryview | None = None) -> Batch:
        context_id = operation.request.context.context_id
        buffers = fragment(data, context_id, self._pdu_length, is_command=False, is_last=is_last)
        return Batch(buffers, operation, len(data), is_last, lent)

    def _command(self, operation: Operation) -> list[Buffer]:
        request = operation.request
        operation.command = command = request.command(operation.message_id)
        raw = encode_command(command)
        return fragment(raw, request.context.context_id, self._pdu_length, is_command=True, is_last=True)

    # --- handing over

    def _queue_at_once(self, operation: Operation, batch: Batch) -> bool:
        """Hand `batch` to the writer, if window, state and queue let it; else do nothing."""
        if self._writer.is_full or not self._machine.can_send_data:
            return False
        if operation.delivery is Delivery.NOTHING_SENT:
            if not self._in_flight.has_room:
                return False
            self._in_flight.add(operation)
            batch.buffers[:0] = self._command(operation)
        operation.phase = "writing"
        self._writer.queue_nowait(batch)
        operation.advance(Delivery.ALL_QUEUED if batch.is_last else Delivery.PARTLY_SENT)
        return True

    async def _queue(self, operation: Operation, batch: Batch) -> None:
        """The same, waiting for what it takes."""
        if operation.delivery is Delivery.NOTHING_SENT:
            await self._take_slot(operation)
            batch.buffers[:0] = self._command(operation)
        operation.phase = "writing"
        await trio.lowlevel.checkpoint_if_cancelled()
        self._association.check_alive(operation)
        self._machine.check_can_send_data()
        try:
            self._writer.queue_nowait(batch)
        except trio.WouldBlock:
            with self._association.interruptible(operation):
                await self._writer.queue(batch)
        operation.advance(Delivery.ALL_QUEUED if batch.is_last else Delivery.PARTLY_SENT)

    async def _take_slot(self, operation: Operation) -> None:
        """Wait for room in the operations window."""
        if not self._in_flight.has_room:
            operation.phase = "waiting for the responses before it"
            operation.stop_clock()
            while not self._in_flight.has_room:
                await self._in_flight.wait_room()
                self._association.check_alive(operation)
            self._association.progress(operation)
        self._in_flight.add(operation)
