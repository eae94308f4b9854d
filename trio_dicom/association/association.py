"""Association: a reader task and a writer task in a nursery, and the operations that pass between them.

How it ends. Whatever ends an association calls `_end` once: it notes the failure, cancels the scopes of all operations
in flight (so that even one blocked in a write learns of it at once) and that of the tasks. What is left to be said to
the peer, and the close, is done in one place, the end of `run`, when the services have cleaned up after themselves,
under a shield of a second at most.

How a cancelled operation leaves the association is decided by how far its message came (`Delivery`): nothing sent,
nothing happened; partly sent, the association is aborted; all of it queued, the late response is awaited and dropped.

The reader calls only synchronous code: matching a response, waking an operation, starting a service, ending. It waits
for nobody but the services, when these have left too much of what the peer sent (`Performer.room`): then TCP lets the
peer wait, and its A-ABORT is met behind what it sent before.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import weakref
from collections.abc import Iterator
from typing import NoReturn

import trio

from ..errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    AssociationTimeout,
    ConnectionLost,
    InternalError,
    InvalidResponse,
    LocalProtocolError,
    OperationTimeout,
    ProtocolViolation,
    UnexpectedPDU,
)
from ..peer import Peer
from ..protocol.command import Command, Response
from ..protocol.message import CommandReceived, DataFragment, MessageAssembler
from ..protocol.negotiation import ANY_TRANSFER_SYNTAX, AcceptedContext, Negotiated
from ..protocol.pdu import PDU, Abort, PDataTF, ReleaseRP, ReleaseRQ
from ..protocol.state import State
from ..protocol.status import Status
from ..protocol.upper_layer import ConnectionClosed, UpperLayer
from ..settings import AssociationSettings
from ..uids import VERIFICATION
from .account import Account
from .in_flight import InFlight
from .operation import Batch, Delivery, Echo, Operation
from .outgoing import Outgoing
from .performing import Performer
from .service import Services
from .transport import Buffer, Transport
from .turn import Turn
from .watch import Watch
from .writer import BufferPool, Writer

log = logging.getLogger(__name__)

MOST_AT_ONCE = 256  # PDVs handled, before other tasks have their turn


class Association:
    """An association with a peer, established (PS3.8 section 7).

    Made by `open_association`, `connect_association` or `wrap_client_stream`. Any number of tasks may use it: messages
    are written whole, one after another in the order of the calls, and as many requests wait for their responses
    together as the asynchronous operations window allows.

    `peer` is the `Peer` (None over a stream of the caller's), `settings` are the `AssociationSettings`, `negotiated` is
    what the two sides agreed on.
    """

    def __init__(
        self,
        transport: Transport,
        machine: UpperLayer,
        negotiated: Negotiated,
        settings: AssociationSettings,
        peer: Peer | None = None,
        services: Services | None = None,
    ) -> None:
        self.peer = peer
        self.settings = settings
        self.negotiated = negotiated
        self._transport = transport
        self._machine = machine
        self._contexts: dict[tuple[str, tuple[str, ...]], AcceptedContext] = {}  # found before
        self._assembler = MessageAssembler(settings.limits)
        self._pool = BufferPool()
        self._writer = Writer(transport, self._pool)
        pdu_length = min(negotiated.peer_max_pdu_length or settings.send_pdu_length, settings.send_pdu_length)
        self._turn = Turn()
        self._operations: set[Operation] = set()  # somebody waits for them
        self._in_flight = InFlight(negotiated.operations_window, settings.limits.response_data_set)
        me = weakref.proxy(self)  # they are its parts: no cycles to be collected
        self._outgoing = Outgoing(me, machine, self._in_flight, self._writer, self._pool, pdu_length)
        self._watch = Watch(me, self._writer)
        self._performer = None if services is None else Performer(self, services, self._respond)
        self.account = Account(peer, negotiated, is_requestor=services is None)
        self._scope = trio.CancelScope()  # of the tasks
        self._nursery: trio.Nursery | None = None  # theirs
        self._failure: AssociationError | InternalError | None = None
        self._overdue: Operation | None = None  # whose timeout was the failure
        self._farewell: list[Buffer] = []
        self._ended_at = math.inf
        self._longest_announced = settings.max_pdu_length
        self._is_closing = False
        self._idle = trio.Event()
        self._ended = trio.Event()
        self._closed = trio.Event()

    # --- what users see -----------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True while operations can be started."""
        return self._failure is None and not self._is_closing

    @property
    def failure(self) -> AssociationError | InternalError | None:
        """What ended the association; None while it lives and after a release."""
        return None if isinstance(self._failure, AssociationClosed) else self._failure

    @property
    def calling_ae_title(self) -> str:
        """The application entity that asked for the association."""
        return self.negotiated.calling_ae_title

    @property
    def called_ae_title(self) -> str:
        """The application entity that was asked for."""
        return self.negotiated.called_ae_title

    def context_for(self, abstract_syntax: str, transfer_syntaxes: tuple[str, ...]) -> AcceptedContext:
        """The presentation context with the first of `transfer_syntaxes` that was accepted for this abstract syntax.

        Raises `NoPresentationContext`.
        """
        wanted = abstract_syntax, transfer_syntaxes
        if wanted not in self._contexts:
            self._contexts[wanted] = self.negotiated.find(*wanted)
        return self._contexts[wanted]

    async def echo(self, *, timeout: float | None = None) -> float:
        """Verify that the peer answers: C-ECHO (PS3.7 section 9.1.5). Returns the seconds that it took.

        Needs a presentation context for Verification. Raises `NoPresentationContext`, `OperationTimeout` (the
        association is then aborted), `InvalidResponse` for a status other than 0000, and the errors of a lost
        association. Cancelled, it leaves the association usable.
        """
        context = self.context_for(VERIFICATION, ANY_TRANSFER_SYNTAX)
        start = trio.current_time()
        response = await self.perform(Echo(context, self.settings.timeouts.response if timeout is None else timeout))
        status = Status(response.status)  # type: ignore[union-attr]
        if not status.is_success:
            raise InvalidResponse(f"C-ECHO was answered with {status!r}", 0, 0)
        return trio.current_time() - start

    async def aclose(self) -> None:
        """Release the association (PS3.8 section 7.2) after the operations in flight, and close the connection.

        Takes at most `timeouts.release`, then aborts; that is logged, and no error. Closing an association that has
        ended does nothing. If cancelled, the connection is aborted and closed before `Cancelled` goes on.

        Raises `LocalProtocolError` in a service or handler of this very association, for whose end it would wait.
        """
        if self._is_inside():
            raise LocalProtocolError("a service cannot release the association it is performed on; it can abort it")
        self._is_closing = True
        try:
            if self._failure is None:
                with trio.move_on_after(self.settings.timeouts.release) as scope:
                    await self._release()
                if scope.cancelled_caught and self._failure is None:
                    log.warning("the peer did not answer the release within %g s", self.settings.timeouts.release)
        finally:
            # Once released, it has ended; in any other state the peer is told by an A-ABORT.
            self._end(AssociationClosed("the association was closed"), abort=True)
            await self._wait_closed_shielded()

    async def abort(self) -> None:
        """End the association now: A-ABORT (PS3.8 section 7.3), then the close, in at most a second.

        Operations in flight raise `AssociationAborted`. A service or handler of this very association is cancelled.
        """
        self._end(AssociationAborted(0, 0, by_peer=False, detail="abort() was called"), abort=True)
        if not self._is_inside():
            await self._wait_closed_shielded()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def wait_closed(self) -> None:
        """Wait until the association has ended, in whatever way, and its connection is closed. See `failure`."""
        await self._closed.wait()

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Association with {self.peer or 'a peer'}, {state}, {len(self.negotiated.accepted)} contexts>"

    # --- operations ---------------------------------------------------------------------------------------------------

    async def perform(self, operation: Operation) -> Command:
        """Send the request of `operation` with its data set, and return its response.

        Raises `OperationTimeout`, the error that ended the association, or what the source of the data set raised. What
        cancellation does depends on how far the message came; `operation.delivery` tells.
        """
        await self.begin(operation)
        try:
            await operation.wait_settled()
        except BaseException:
            self.leave(operation)
            raise
        return self.response_to(operation)

    async def begin(self, operation: Operation) -> None:
        """The first half of `perform`: the request of `operation`, until the writer has been given all of it.

        Whoever calls this sees to it that, once it `is_settled`, `response_to` is called, or before that `leave`.
        """
        if self._failure is not None or self._is_closing:
            await self._raise_closed()
        self._operations.add(operation)
        try:
            if not self._turn.take_nowait():
                await self._turn.take()
            try:
                if self._failure is not None or self._is_closing:
                    await self._raise_closed()
                operation.start_clock()
                self._watch.keep_in_view(operation)
                request = operation.ready()
                if request is None:
                    operation.phase = "opening the data set"
                    with self.interruptible(operation):
                        request = await operation.prepare()
                operation.request = request
                await self._outgoing.send(operation)
            finally:
                self._turn.release()
        except BaseException:
            self.leave(operation)
            raise

    def leave(self, operation: Operation) -> None:
        """Nobody waits for `operation` any more, which is not settled: what that means depends on how far it came."""
        self._operations.discard(operation)
        if self._failure is None and operation.delivery is not Delivery.ANSWERED:
            if operation.delivery is Delivery.NOTHING_SENT:
                self._in_flight.withdraw(operation)
            elif operation.delivery is Delivery.PARTLY_SENT:
                detail = "an operation ended in the middle of its message"
                self._end(AssociationAborted(0, 0, by_peer=False, detail=detail), abort=True)
            else:
                operation.is_left = True
                operation.timeout = self.settings.timeouts.response
                self.progress(operation)
        self.check_idle()

    def response_to(self, operation: Operation) -> Command:
        """The response to an operation that is settled. Raises the error that ended the association."""
        self._operations.discard(operation)
        self.check_idle()
        if operation.delivery is Delivery.ANSWERED and operation.response is not None:
            return operation.response
        raise self._failure_of(operation)

    # --- for what waits on the way: the life of the association, and the deadline of an operation

    @contextlib.contextmanager
    def interruptible(self, operation: Operation) -> Iterator[None]:
        """What is waited for inside is given up when the association ends, or the operation is overdue."""
        self.check_alive(operation)
        with trio.CancelScope() as operation.scope:
            yield
        operation.scope = None
        self.check_alive(operation)

    def check_alive(self, operation: Operation) -> None:
        """Raise what has ended the association, if something has."""
        if self._failure is not None:
            raise self._failure_of(operation)

    def progress(self, operation: Operation) -> None:
        """`operation` waited for what it did not have to answer for; from now on it does again."""
        operation.touch(trio.current_time())
        self._watch.keep_in_view(operation)

    def timed_out(self, operation: Operation) -> None:
        """The deadline of `operation` has passed."""
        self._overdue = operation
        self._end(operation.timed_out(), abort=True)

    def pdu_timed_out(self) -> None:
        """The rest of a PDU has not come in time."""
        detail = "receiving a PDU whose first bytes came"
        self._end(AssociationTimeout(detail, self.settings.timeouts.pdu), abort=True)

    def watched(self) -> set[Operation]:
        """The operations that have deadlines, also those whose callers have gone."""
        return {*self._operations, *self._in_flight.operations}

    async def _raise_closed(self) -> NoReturn:
        if self._failure is not None:
            # What cancels the caller may be what has ended the association.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise self._own_failure()
        raise AssociationClosed("the association is being released")

    def _failure_of(self, operation: Operation) -> Exception:
        failure = self._own_failure()
        if operation is self._overdue:
            failure = copy.copy(self._failure)  # type: ignore[assignment]
        failure.in_doubt = operation.in_doubt
        return failure

    def _own_failure(self) -> AssociationError | InternalError:
        """A fresh copy, for one who had no part in it."""
        if isinstance(self._failure, OperationTimeout):
            detail = f"another operation timed out while {self._failure.phase}"
            return AssociationAborted(0, 0, by_peer=False, detail=detail)
        failure = copy.copy(self._failure)
        failure.__cause__ = self._failure.__cause__  # type: ignore[union-attr]
        return failure  # type: ignore[return-value]

    # --- the tasks ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read and write until the end, then close: the body of the association's background task.

        Raises `InternalError` for a bug of this library, and nothing else but `Cancelled`.
        """
        self.account.open()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    if self._performer is not None:
                        self._performer.start(nursery)
                        nursery.start_soon(self._watch_pace, self._performer)
                    await self._watch.run()
        except BaseExceptionGroup as group:
            bugs = group.split(trio.Cancelled)[1]
            if not isinstance(bugs, ExceptionGroup):  # only cancelled, or Python is told to stop
                raise
            failure = InternalError(f"a bug of trio_dicom: {bugs.exceptions[0]!r}")
            failure.__cause__ = bugs
            self._end(failure, abort=True)
            raise failure from bugs
        finally:
            detail = "its nursery was cancelled"
            self._end(AssociationAborted(0, 0, by_peer=False, detail=detail), abort=True)
            try:
                await self._say_farewell_and_close()
            finally:
                self.account.close(self.failure)

    async def discard(self) -> None:
        """End it without its tasks ever having run."""
        self._end(AssociationAborted(0, 0, by_peer=False, detail="it was never started"), abort=True)
        await self._say_farewell_and_close()

    async def _say_farewell_and_close(self) -> None:
        timeouts = self.settings.timeouts
        try:
            now = trio.current_time()  # services may have taken their time to clean up
            with trio.CancelScope(deadline=now + timeouts.abort_linger, shield=True):
                try:
                    with contextlib.suppress(ConnectionLost):
                        if self._farewell:
                            await self._writer.finish(self._farewell, timeouts, now)
                finally:
                    with contextlib.suppress(ConnectionLost):
                        await self._transport.aclose()
        finally:
            self._closed.set()
            # Megabytes, which somebody who still has the association, or the cycles that it is part of, would keep.
            self._machine.forget()
            self._pool.forget_all()
            self._nursery = self._performer = self._writer.when_idle = None

    async def _wait_closed_shielded(self) -> None:
        limit = 2 * max(self.settings.timeouts.abort_linger, self.settings.timeouts.abort_grace)
        with trio.move_on_after(limit, shield=True):
            await self._closed.wait()

    def _is_inside(self) -> bool:
        """Whether this is a task of its own, or one below it."""
        nursery = trio.lowlevel.current_task().parent_nursery
        while nursery is not None and nursery is not self._nursery:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    def _end(self, failure: AssociationError | InternalError, *, abort: bool) -> None:
        """The association ends; the first reason counts."""
        if self._failure is not None:
            return
        # Without the frames it came through, which hold this association, and so what was received.
        self._failure = failure.with_traceback(None)
        self._writer.is_stopped = True
        self._ended_at = trio.current_time()
        if abort:
            blame = (failure.abort_source, failure.abort_reason) if isinstance(failure, ProtocolViolation) else (0, 0)
            self._farewell = self._machine.reply() or self._machine.send(Abort(*blame))
        for operation in list(self._operations):
            operation.settle()
        self._turn.end()
        self._in_flight.wake()
        self._idle.set()
        self._ended.set()
        self._scope.cancel()

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except ConnectionLost as lost:
            # The peer's last words, responses and an A-ABORT, may lie unread; the reader meets the end behind them.
            await trio.sleep(self.settings.timeouts.abort_grace)
            self._end(lost, abort=False)

    async def _read(self) -> None:
        try:
            while await self._handle_events():
                if self._machine.longest_p_data > self._longest_announced:
                    self._warn_of_long_pdus(self._machine.longest_p_data)
                if self._performer is not None and self._performer.is_full:
                    self._watch.end_of_pdu = math.inf
                    await self._performer.room()
                is_more_due = is_inside_pdu = self._machine.is_inside_pdu
                if not is_inside_pdu:
                    self._watch.end_of_pdu = math.inf
                    is_more_due = bool(self._in_flight) or (self._performer is not None and self._performer.is_more_due)
                elif self._watch.end_of_pdu == math.inf:
                    self._watch.expect_end_of_pdu(trio.current_time() + self.settings.timeouts.pdu)
                self._machine.receive_data(await self._transport.read(acknowledge=is_more_due))
        except ProtocolViolation as violation:
            self._end(violation, abort=True)
        except ConnectionLost as lost:
            self._end(lost, abort=False)

    def _warn_of_long_pdus(self, length: int) -> None:
        announced, self._longest_announced = self._longest_announced, self.settings.limits.pdu_length  # once is enough
        log.warning("%r: a PDU of %d bytes came, where %d were announced as the most: taken", self, length, announced)

    async def _watch_pace(self, performer: Performer) -> None:
        try:
            await performer.watch()
        except AssociationTimeout as failure:
            self._end(failure, abort=True)

    async def _respond(self, context: AcceptedContext, response: Response, data_set: bytes | None) -> None:
        """Send a response of one of our services."""
        limit = self.settings.timeouts.response
        if not await self._outgoing.respond(context.context_id, response, data_set, limit):
            self._end(AssociationTimeout("the peer's taking of a response", limit), abort=True)
            await trio.lowlevel.checkpoint()

    # --- what the peer says -------------------------------------------------------------------------------------------

    async def _handle_events(self) -> bool:
        """Handle all that has come in; False if nothing more will."""
        count = 0
        while True:
            count += self._receive_plain_data()
            event = self._machine.next_event()
            if event is None:
                return True
            self._handle(event)
            self._watch.end_of_pdu = math.inf  # the next PDU has its own
            count += len(event.pdvs) if isinstance(event, PDataTF) else 1
            if count > MOST_AT_ONCE:
                count = 0
                await trio.lowlevel.checkpoint()
            if isinstance(event, ConnectionClosed):
                return False

    def _receive_plain_data(self) -> int:
        """Take what has come of the data set of a request; how many pieces. What is not so plain is an event."""
        context_id = self._assembler.data_context_id
        if context_id is None or self._performer is None or not self._performer.is_receiving:
            return 0
        pieces, is_last = self._machine.next_data(context_id)
        if pieces:
            self._assembler.receive_data(is_last=is_last)
            self._performer.receive_data(pieces, is_last=is_last)
            if len(pieces) > 1 or is_last or not self._machine.is_inside_pdu:  # else of the same PDU as before
                self._watch.end_of_pdu = math.inf
        return len(pieces)

    def _handle(self, event: PDU | ConnectionClosed) -> None:
        if isinstance(event, PDataTF):
            if self._machine.state is State.STA7:
                return  # AR-6; all of ours was answered before the release was asked for: this is nobody's
            for pdv in event.pdvs:
                if pdv.context_id not in self.negotiated.accepted:
                    raise UnexpectedPDU(f"a PDV on presentation context {pdv.context_id}, which was not accepted", 2, 5)
                item = self._assembler.receive(pdv)
                if isinstance(item, CommandReceived):
                    self._receive_command(item.context_id, item.command)
                elif isinstance(item, DataFragment):
                    self._receive_data(item)
        elif isinstance(event, Abort):
            self._end(AssociationAborted(event.source, event.reason), abort=False)
        elif isinstance(event, ReleaseRP):
            # Sta12: a collision, and we are the acceptor: the peer's answer came first.
            farewell = self._machine.send(ReleaseRP()) if self._machine.state is State.STA12 else []
            self._end(AssociationClosed("the association was released"), abort=False)
            self._farewell = farewell
        elif isinstance(event, ReleaseRQ):
            if self._machine.state is State.STA9:  # a collision, and we are the requestor: ours goes first
                self._writer.queue_nowait(Batch(self._machine.send(ReleaseRP())))
            elif self._machine.state is State.STA8:
                self._answer_release()
        elif isinstance(event, ConnectionClosed):
            self._end(ConnectionLost(), abort=False)

    def _receive_command(self, context_id: int, command: Command) -> None:
        if isinstance(command, Response):
            self._settle(self._in_flight.receive(context_id, command))
        elif self._performer is not None:
            self._performer.receive(self.negotiated.accepted[context_id], command)
        else:
            raise UnexpectedPDU(f"a {type(command).__name__} came to a requestor that offers no service", 0, 0)

    def _receive_data(self, fragment: DataFragment) -> None:
        if self._performer is not None and self._performer.is_receiving:
            self._performer.receive_data([fragment.data], is_last=fragment.is_last)
        else:
            self._settle(self._in_flight.receive_data(fragment))

    def _settle(self, settled: tuple[Operation, Response] | None) -> None:
        if settled is None:
            return
        operation, response = settled
        is_early = not operation.may_be_answered
        operation.accept(response)  # type: ignore[arg-type]  # one of its kind: that was checked
        self.account.note(response, operation.bytes_sent)
        if is_early:  # refused early: the rest of the message would be sent for nothing
            detail = "the peer refused an object before it had all of it"
            self._end(AssociationAborted(0, 0, by_peer=False, detail=detail), abort=True)
        self.check_idle()

    # --- release ------------------------------------------------------------------------------------------------------

    async def _release(self) -> None:
        while self._failure is None and self._is_busy:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()
        if self._machine.state is State.STA6:  # else it has ended, or another task was here
            await self._writer.queue(Batch(self._machine.send(ReleaseRQ())))
        await self._ended.wait()

    @property
    def _is_busy(self) -> bool:
        return self.is_invoking or (self._performer is not None and not self._performer.is_idle)

    @property
    def is_invoking(self) -> bool:
        """Whether an operation of ours is on its way."""
        return bool(self._in_flight or self._operations)

    @property
    def end_of_pdu(self) -> float:
        """When the PDU that is coming in must be whole; in the past if there is none."""
        return self._watch.end_of_pdu if self._machine.is_inside_pdu else -math.inf

    def check_idle(self) -> None:
        """An operation has ended, ours or the peer's: a release that waited for it may go on."""
        if self._performer is None and not self._is_closing and self._machine.state is State.STA6:
            return
        if self._performer is not None and not self.is_invoking:
            self._performer.restart_idle()
        if self._failure is not None or not (self._is_closing or self._machine.state is State.STA8) or self._is_busy:
            return
        if self._machine.state is State.STA8:
            self._answer_release()
        elif self._is_closing:
            self._idle.set()

    def _answer_release(self) -> None:
        """The peer releases (AR-2): answered, unless one of our messages is not whole, which only an abort can end."""
        if any(each.would_be_cut for each in self._in_flight.operations):
            detail = "the peer asked for release in the middle of a message"
            self._end(AssociationAborted(0, 0, by_peer=False, detail=detail), abort=True)
        elif self._performer is not None and not self._performer.is_idle:
            self._performer.give_up_incoming()  # and once the others are answered, so is the release
        elif self._performer is not None and self._writer.unwritten:
            self._writer.when_idle = self.check_idle  # the last responses go out first
        else:
            farewell = self._machine.send(ReleaseRP())
            self._end(AssociationClosed("the peer released the association"), abort=False)
            self._farewell = farewell
