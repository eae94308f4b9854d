"""An operation: one DIMSE request with its data set, and the one response that settles it (PS3.7 section 7.5)."""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from ..errors import OperationTimeout
from ..protocol.command import CEchoRQ, CEchoRSP, Command
from ..protocol.negotiation import AcceptedContext
from ..uids import VERIFICATION
from .transport import Buffer


class Delivery(enum.IntEnum):
    """How far a message has come; it only ever goes on."""

    NOTHING_SENT = 0  # no byte of it was queued
    PARTLY_SENT = 1  # some of it was queued: it is finished, or the association is aborted
    ALL_QUEUED = 2  # its last PDV waits for the writer, or is in its hands
    HANDED_OVER = 3  # the transport has its last PDV: the peer may have acted on it
    ANSWERED = 4  # the response came


class DataSetSource(Protocol):
    """Where the data set of a message comes from; see `trio_dicom.sources.source.Source`."""

    def whole(self) -> memoryview | None: ...

    def read_at_once(self, buffer: memoryview) -> tuple[int, bool] | None: ...

    async def read_into(self, buffer: memoryview) -> tuple[int, bool]: ...


@attrs.frozen
class Request:
    """What goes out: a command, made when its message ID is known, and its data set, on a presentation context."""

    context: AcceptedContext
    command: Callable[[int], Command]
    data_set: DataSetSource | None = None


class Operation(abc.ABC):
    """One request on its way, and what became of it. A service derives its own; each is performed once."""

    response_type: type[Command]
    request: Request  # once it was prepared

    def __init__(self, *, timeout: float, max_duration: float = math.inf) -> None:
        self.timeout = timeout  # seconds without progress
        self.message_id = 0
        self.command: Command | None = None  # as sent
        self.delivery = Delivery.NOTHING_SENT
        self.phase = "waiting for its turn"
        self.bytes_sent = 0  # of the data set, taken by the transport
        self.response: Command | None = None
        self.is_settled = False  # answered, or given up with the association
        self.is_begun = False  # something of the data set was read
        self.is_acknowledged_early = False  # before its last PDV was sent: that peer cannot be believed, either way
        self.is_left = False  # nobody waits for the response any more
        self.is_in_hand = False  # of the writer, some of it: before that, the peer cannot know of it
        self.is_last_batch_in_hand = False  # likewise
        self.is_last_piece_out = False  # of a stream that tells only later that it has gone out
        self.scope: trio.CancelScope | None = None  # around what is waited for, other than the peer
        self._then: Callable[[], object] | None = None
        self._max_duration = max_duration
        self._last_moment = math.inf
        self._progressed_at = math.inf  # while the clock stands still

    def ready(self) -> Request | None:
        """What is to be sent, where that can be told without waiting; else it is for `prepare` to tell."""
        return None

    @abc.abstractmethod
    async def prepare(self) -> Request:
        """What is to be sent, made when its turn has come; nothing was sent if this raises."""

    @abc.abstractmethod
    def check(self, response: Command) -> None:
        """Raise `InvalidResponse` if the service does not allow this response."""

    def written(self) -> None:  # noqa: B027  # a service may want to know; most do not
        """More of the data set went to the transport: see `bytes_sent`."""

    @property
    def in_doubt(self) -> bool:
        """True when the peer has, or may still get, the whole message, and no response says what it did with it."""
        if self.delivery is Delivery.ALL_QUEUED and (self.is_last_batch_in_hand or self.is_left):
            return True
        return self.delivery is Delivery.HANDED_OVER or self.is_acknowledged_early

    @property
    def would_be_cut(self) -> bool:
        """True while the message has begun, and would not be whole if nothing more were queued or taken."""
        return self.delivery in (Delivery.PARTLY_SENT, Delivery.ALL_QUEUED) and not self.is_last_batch_in_hand

    @property
    def may_be_answered(self) -> bool:
        """True once the last PDV is with the transport."""
        return self.delivery is Delivery.HANDED_OVER or self.is_last_piece_out

    # --- its deadline, which somebody else keeps in view

    def start_clock(self) -> None:
        """Its turn has come: from now on it has to make progress."""
        self._progressed_at = now = trio.current_time()
        self._last_moment = now + self._max_duration

    def stop_clock(self) -> None:
        """It waits for other operations, which have clocks of their own."""
        self._progressed_at = math.inf

    def touch(self, now: float) -> None:
        """Progress was made."""
        self._progressed_at = now

    def deadline(self, written_at: float) -> float:
        """When it is overdue. What goes out before it, last at `written_at`, is progress as long as it has to wait."""
        since = self._progressed_at
        if self.delivery < Delivery.HANDED_OVER and written_at > since:
            since = written_at
        return min(since + self.timeout, self._last_moment)

    def timed_out(self) -> OperationTimeout:
        """What to say of it now that its deadline has passed."""
        in_all = trio.current_time() >= self._last_moment
        return OperationTimeout(self.phase, self._max_duration if in_all else self.timeout, self.bytes_sent, in_all)

    # --- its end

    def advance(self, delivery: Delivery) -> None:
        """The message has come as far as `delivery`."""
        if delivery > self.delivery:
            self.delivery = delivery

    def accept(self, response: Command) -> None:
        """The response, which counts at once, unless a stream has still to tell that the last piece has gone out."""
        self.response = response
        if self.delivery is Delivery.HANDED_OVER or not self.is_last_piece_out:
            self.delivery = Delivery.ANSWERED
            self.settle()

    def settle(self) -> None:
        """It was answered, or the association has ended: nothing more will come."""
        self.is_settled = True
        if self.scope is not None:
            self.scope.cancel()
        then, self._then = self._then, None
        if then is not None:
            then()

    def when_settled(self, then: Callable[[], object]) -> None:
        """Call `then`, which must not raise, once it is settled; at once if it is."""
        if self.is_settled:
            then()
        else:
            self._then = then

    async def wait_settled(self) -> None:
        """Wait for the response, or for the end of the association."""
        if not self.is_settled:
            settled = trio.Event()
            self._then = settled.set
            await settled.wait()


class Echo(Operation):
    """C-ECHO (PS3.7 section 9.1.5)."""

    response_type = CEchoRSP

    def __init__(self, context: AcceptedContext, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._context = context

    async def prepare(self) -> Request:
        return Request(self._context, lambda message_id: CEchoRQ(message_id, VERIFICATION))

    def check(self, response: Command) -> None:
        pass  # a status is for the caller to judge; it is no reason to end the association


class Batch:
    """Whole PDUs for the writer, with what is to be told when the transport has taken them."""

    __slots__ = ("buffers", "data_set_bytes", "is_last", "lent", "operation")

    @property
    def size(self) -> int:
        """Bytes for the wire."""
        return sum(map(len, self.buffers))

    def __init__(
        self,
        buffers: list[Buffer],
        operation: Operation | None = None,
        data_set_bytes: int = 0,
        is_last: bool = False,
        lent: memoryview | None = None,
    ) -> None:
        self.buffers = buffers
        self.operation = operation
        self.data_set_bytes = data_set_bytes
        self.is_last = is_last  # ends the operation's message
        self.lent = lent  # the pool's buffer that the payload lies in

    def taken(self) -> None:
        """The writer has it in hand."""
        if self.operation is not None:
            self.operation.is_in_hand = True
            self.operation.is_last_batch_in_hand = self.is_last

    def about_to_end(self) -> None:
        """Its last bytes are about to be given to a stream that tells only later that they have gone out."""
        if self.is_last and self.operation is not None:
            self.operation.is_last_piece_out = True

    def written(self, now: float) -> None:
        """All of it is with the transport, since `now`."""
        operation = self.operation
        if operation is None:
            return
        operation.bytes_sent += self.data_set_bytes
        if self.is_last:
            operation.advance(Delivery.HANDED_OVER)
            operation.phase = "waiting for the response"
            operation.touch(now)
        if self.data_set_bytes and not operation.is_left and operation.delivery is not Delivery.ANSWERED:
            operation.written()
        if self.is_last and operation.response is not None:
            operation.accept(operation.response)  # it was faster than the stream's word
