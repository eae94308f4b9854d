"""Performing: the requests of the peer, and the services that answer them (PS3.7 section 7.5, the performing side).

1. A request runs as a task in the association's nursery, with a deadline of its own, and ends in one final response.
   A service that raises, hangs or gives what is no response of its kind costs its request, answered with 0110H, and
   nothing else. When the association ends, its tasks are cancelled.
2. The data set is handed on as it comes. What a service has not taken yet is bounded: the reader waits then, and so
   does the peer. Whatever a service leaves is taken and dropped before the answer goes out.
3. The peer has to keep going, too: between messages for `timeouts.idle`, inside one at `limits.minimum_rate`.
"""

from __future__ import annotations

import abc
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import trio

from ..errors import AssociationTimeout, UnexpectedPDU
from ..protocol.command import IS_RESPONSE, CCancelRQ, CEchoRQ, Command, RequestCommand, Response, response_to
from ..protocol.negotiation import AcceptedContext
from ..protocol.pdu import AssociateRQ
from ..protocol.status import (
    DUPLICATE_INVOCATION,
    PROCESSING_FAILURE,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Status,
    StatusCategory,
)
from ..settings import AssociationSettings
from ..uids import VERIFICATION
from .transport import Buffer

if TYPE_CHECKING:
    from .association import Association

log = logging.getLogger(__name__)

SMALL = 1024  # bytes; smaller pieces are joined, for each costs 184 more, and keeps all that it was received with
MOST_BUFFERED = 4 << 20  # bytes of data sets that came and that services are not done with, before the reader waits
MOST_WANTED = 1 << 20  # bytes that a service can wait for
MOST_WAITING = 256  # requests beyond the window
RATE_PERIOD = 60.0  # s over which the rate of a message is looked at


Responder = Callable[[AcceptedContext, Response, bytes | None], Awaitable[None]]


class Service(abc.ABC):
    """A DIMSE service that is performed for peers: derive from it, and give it to `serve_associations`."""

    requests: ClassVar[tuple[type[Command], ...]]
    """The requests that it performs, such as `(CStoreRQ,)`."""

    @abc.abstractmethod
    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        """The transfer syntax UIDs that are taken for an abstract syntax; None if it is none of this service's."""

    @abc.abstractmethod
    async def perform(self, request: ServiceRequest) -> Response:
        """Do what `request` asks for, and return the final response to it.

        What is raised is answered with 0110H, and so is `timeouts.handler` seconds without progress, after which the
        task is cancelled; waiting for the peer's bytes does not count. It is cancelled, too, when the association ends.
        """


class Verification(Service):
    """C-ECHO, which every acceptor performs (PS3.4 annex A)."""

    requests = (CEchoRQ,)

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return ANY if abstract_syntax == VERIFICATION else None

    async def perform(self, request: ServiceRequest) -> Response:
        return request.response(SUCCESS)


class _Any(Container[str]):
    def __contains__(self, item: object) -> bool:
        return True


ANY: Container[str] = _Any()  #: every transfer syntax that is proposed


class Services:
    """The services of an acceptor, by abstract syntax and request."""

    def __init__(self, services: Service | Iterable[Service]) -> None:
        self._services = (Verification(), *((services,) if isinstance(services, Service) else services))

    def supported(self, request: AssociateRQ) -> Mapping[str, Container[str]]:
        """What is taken of the presentation contexts that `request` proposes."""
        supported: dict[str, Container[str]] = {}
        for offer in request.presentation_contexts:
            for service in self._services:
                transfer_syntaxes = service.transfer_syntaxes(offer.abstract_syntax)
                if transfer_syntaxes is not None:
                    supported.setdefault(offer.abstract_syntax, transfer_syntaxes)
        return supported

    def find(self, abstract_syntax: str, command: Command) -> Service | None:
        """The service that performs `command` in a presentation context of `abstract_syntax`."""
        for service in self._services:
            if isinstance(command, service.requests) and service.transfer_syntaxes(abstract_syntax) is not None:
                return service
        return None


class ServiceRequest:
    """A request of the peer on its way: `command`, its presentation `context`, its data set as it comes in.

    `cancelled` is set when the peer asks by C-CANCEL that it be given up (PS3.7 section 9.3.2.3).
    """

    def __init__(self, association: Association, context: AcceptedContext, command: RequestCommand) -> None:
        self.association = association
        self.context = context
        self.command = command
        self.cancelled = trio.Event()
        self.bytes_received = 0  #: of the data set
        self.is_abandoned = False  #: the rest of its data set will not come, and nothing is answered
        self.due = math.inf  # when the service must have made progress: a thing that `Performer.watch` looks at
        self._scope = trio.CancelScope()  # of the service
        self._pieces: list[Buffer] = []
        self._size = 0  # of the pieces
        self._held = 0  # bytes that the service took last
        self._is_whole = not command.has_data_set
        self._is_unwanted = False  # what still comes is dropped
        self._wanted = 0  # bytes that the service waits for
        self._arrival = trio.Event()
        self._performer: Performer

    @property
    def message_id(self) -> int:
        """(0000,0110), by which the response is matched."""
        return self.command.message_id  # type: ignore[union-attr]  # a C-CANCEL-RQ has none, and is none of these

    @property
    def is_whole(self) -> bool:
        """Whether the last of the data set has come in."""
        return self._is_whole

    def response(self, status: int, error_comment: str | None = None) -> Response:
        """A response of the right kind, which names what the request named; see `StoreReply` for the error comment."""
        return response_to(self.command, status, error_comment)

    async def receive_pieces(self, at_least: int = 1) -> list[Buffer]:
        """What has come of the data set, once that is `at_least` bytes or the end; an empty list at the end.

        The pieces are as the network cut them, and the caller's to keep. More than 1 MiB is not waited for. Raises
        `trio.BusyResourceError` if another task waits for the same, and `trio.ClosedResourceError` once the request has
        ended: what nobody has taken by then was dropped. Cancelled, nothing is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # others have their turn when this waits, which it soon does
        self._check_wanted()
        if self._wanted:
            raise trio.BusyResourceError("another task receives this data set")
        self._wanted = max(1, min(at_least, MOST_WANTED))
        try:
            if self._size < self._wanted and not self._is_whole:
                self._release()
                self._arrival = trio.Event()
                self.due = math.inf  # the peer has a deadline of its own
                await self._arrival.wait()
                self._check_wanted()
        finally:
            self._wanted = 0
            self.touch()
        return self._take() if self._size else []

    def _check_wanted(self) -> None:
        if self._is_unwanted:
            raise trio.ClosedResourceError("the request has ended")

    def _take(self) -> list[Buffer]:
        """All that has come. It counts as buffered until the service wants more, or has ended."""
        self._release()
        pieces, self._pieces = self._pieces, []
        self._held, self._size = self._size, 0
        return pieces

    def _release(self) -> None:
        held, self._held = self._held, 0
        self._performer.done_with(held)

    def touch(self) -> None:
        """The service makes progress: its deadline is `timeouts.handler` from now."""
        self.due = trio.current_time() + self.association.settings.timeouts.handler
        self._performer.expect(self.due)

    async def respond(self, response: Response, data_set: bytes | None = None) -> None:
        """Send a response that is not the last (status pending), with its data set if it has one.

        Raises `ValueError` if it cannot be encoded.
        """
        await self._performer.respond(self.context, response, data_set)
        self.touch()

    # --- for the performer

    def feed(self, pieces: Sequence[Buffer], *, is_last: bool) -> int:
        """More has come; returns the bytes kept of it."""
        size = sum(map(len, pieces))
        self.bytes_received += size
        self._is_whole = is_last
        kept = 0 if self._is_unwanted else size
        if kept:
            self._keep(pieces)
            self._size += kept
        if is_last or self._size >= self._wanted:
            self._wake()
        return kept

    def _wake(self) -> None:
        if self._wanted:
            self._arrival.set()

    def _keep(self, pieces: Sequence[Buffer]) -> None:
        if min(map(len, pieces)) >= SMALL:
            self._pieces += pieces
            return
        for piece in pieces:
            if len(piece) >= SMALL:
                self._pieces.append(piece)
            elif self._pieces and isinstance(self._pieces[-1], bytearray):
                self._pieces[-1] += piece
            else:
                self._pieces.append(bytearray(piece))

    async def drop_rest(self) -> None:
        """Wait for the end of the data set, and keep nothing of it."""
        self._is_unwanted = True
        self._wake()  # a task that the service has left behind
        self._take()
        self._release()
        if not self._is_whole and not self.is_abandoned:
            self._wanted = MOST_BUFFERED  # more than is kept: only the end wakes this task
            self._arrival = trio.Event()
            await self._arrival.wait()

    def abandon(self) -> None:
        """The service is cancelled, and nothing is answered."""
        self.is_abandoned = True
        self._scope.cancel()
        self._wake()

    def give_up(self) -> None:
        """The service made no progress: it is cancelled."""
        self.due = math.inf
        self._scope.cancel()

    def forget(self) -> int:
        """The bytes that nobody has taken, nor will."""
        self._is_unwanted = True
        self._wake()
        size, self._size, self._held = self._size + self._held, 0, 0
        self._pieces.clear()
        return size

    async def perform_by(self, service: Service, performer: Performer) -> Response:
        """The response of `service`, or one for it, and never an exception but `trio.Cancelled`."""
        self._performer = performer
        self.touch()
        with self._scope:
            response = await _guarded(service, self)
        self.due = math.inf
        if self._scope.cancelled_caught and not self.is_abandoned:
            log.error(
                "%s made no progress for %g s", type(service).__name__, self.association.settings.timeouts.handler
            )
            return self.response(PROCESSING_FAILURE, "the service took too long")
        if self._is_answered_by(response):
            return response  # type: ignore[return-value]
        if response is not None:
            log.error("%s gave a %s that is no final response", type(service).__name__, type(response).__name__)
        return self.response(PROCESSING_FAILURE, "the service failed")

    def _is_answered_by(self, response: object) -> bool:
        return (
            isinstance(response, Response)
            and getattr(response, "command_field", None) == self.command.command_field | IS_RESPONSE
            and response.message_id_being_responded_to == self.message_id
            and not _is_pending(response.status)
        )


async def _guarded(service: Service, request: ServiceRequest) -> Response | None:
    """None if it raised."""
    try:
        return await service.perform(request)
    except Exception as error:
        _log_failure(service, error)
    except BaseExceptionGroup as group:  # of a nursery that was cancelled while something failed in it
        errors, stops = group.split(Exception)
        if errors is not None:
            _log_failure(service, errors)
        if stops is not None:
            raise stops from None
    return None


def _log_failure(service: Service, error: BaseException) -> None:
    # What a service says of a failure may name a patient.
    log.error("%s failed with %s (details at DEBUG)", type(service).__name__, type(error).__name__)
    log.debug("the failure", exc_info=error)


def _is_pending(status: object) -> bool:
    is_one = isinstance(status, int) and 0 <= status <= 0xFFFF  # else it will not be encoded
    return is_one and Status(status).category is StatusCategory.PENDING  # type: ignore[arg-type]


class _Refusal(Service):
    """What is not performed."""

    requests = ()

    def __init__(self, status: int) -> None:
        self._status = status

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return None

    async def perform(self, request: ServiceRequest) -> Response:
        return request.response(self._status)


class Performer:
    """The requests that are performed on one association."""

    def __init__(self, association: Association, services: Services, respond: Responder) -> None:
        self.respond = respond
        self._association = association
        self._services = services
        self._settings: AssociationSettings = association.settings
        self._most = association.negotiated.performed_window
        self._running: dict[ServiceRequest, None] = {}  # those that wait among them
        self._by_id: dict[int, list[ServiceRequest]] = {}  # of the same; several if the peer uses an ID twice
        self._waiting: deque[tuple[ServiceRequest, Service]] = deque()  # more than the peer may ask for at once
        self._receiving: ServiceRequest | None = None
        self._buffered = 0
        self._room = trio.Event()
        self._is_awaited = False  # by the reader
        self._mark = (-math.inf, 0)  # when the rate of the message that is coming was last looked at, bytes then
        self._idle_since = -math.inf
        self._scope = trio.CancelScope()  # of the watch
        self._next_look = math.inf  # its deadline
        self._nursery: trio.Nursery
        self._is_leaving = False  # the peer wants to release

    @property
    def is_receiving(self) -> bool:
        """True while the data set of a request is coming in."""
        return self._receiving is not None

    @property
    def is_idle(self) -> bool:
        return not self._running

    def start(self, nursery: trio.Nursery) -> None:
        """Requests are performed in `nursery`."""
        self._nursery = nursery
        self._idle_since = trio.current_time()

    # --- what comes in: called by the reader

    def receive(self, context: AcceptedContext, command: Command) -> None:
        """The peer asks for something. Raises `UnexpectedPDU`."""
        if isinstance(command, CCancelRQ):
            for each in self._by_id.get(command.message_id_being_responded_to, ()):
                each.cancelled.set()
            return
        if not context.as_scp:
            raise UnexpectedPDU(f"a {type(command).__name__} in a role that was not negotiated", 0, 0)
        request = ServiceRequest(self._association, context, command)  # type: ignore[arg-type]  # it is no response
        service = self._services.find(context.abstract_syntax, command) or _Refusal(UNRECOGNIZED_OPERATION)
        same = self._by_id.setdefault(request.message_id, [])
        if same:
            service = _Refusal(DUPLICATE_INVOCATION)
        same.append(request)
        self._running[request] = None
        if not request.is_whole:
            self._receiving = request
            self._mark = (trio.current_time(), 0)
            self.expect(self._mark[0] + RATE_PERIOD)
        if len(self._waiting) == MOST_WAITING:
            raise UnexpectedPDU(
                f"{MOST_WAITING} requests more than the operations window of {self._most} has room for", 0, 0
            )
        if len(self._running) > self._most:
            self._waiting.append((request, service))
        else:
            self._nursery.start_soon(self._perform, request, service)

    def receive_data(self, pieces: Sequence[Buffer], *, is_last: bool) -> None:
        """More of the data set of the last request."""
        request = self._receiving
        if request is None:
            raise UnexpectedPDU("a data set without its command set", 0, 0)
        if is_last:
            self._receiving = None
        self._buffered += request.feed(pieces, is_last=is_last)

    @property
    def is_full(self) -> bool:
        """Whether the reader is to wait for `room`."""
        return self._buffered >= MOST_BUFFERED or len(self._running) > self._most

    async def room(self) -> None:
        """Wait until the services have caught up."""
        while self.is_full:
            self._room = trio.Event()
            self._is_awaited = True
            await self._room.wait()
        self._is_awaited = False
        if self._receiving is not None:  # the peer could not go on
            self._mark = (trio.current_time(), self._receiving.bytes_received)

    def done_with(self, size: int) -> None:
        """A service has no more use for so many bytes."""
        self._buffered -= size
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._is_awaited and not self.is_full:
            self._room.set()

    def give_up_incoming(self) -> None:
        """The rest of the message that is coming in will not come: its task is cancelled, and nothing is answered."""
        if self._receiving is not None:
            self._receiving.abandon()
            self._receiving = None

    # --- what is done about it

    async def _perform(self, request: ServiceRequest, service: Service) -> None:
        try:
            response = await request.perform_by(service, self)
            await request.drop_rest()
            if not request.is_abandoned:
                await self._answer(request, response, service)
        finally:
            del self._running[request]
            same = self._by_id[request.message_id]
            same.remove(request)
            if not same:
                del self._by_id[request.message_id]
            if self._waiting:
                self._nursery.start_soon(self._perform, *self._waiting.popleft())
            self._buffered -= request.forget()
            self._wake_reader()
            if not self._running:
                self._association.check_idle()

    async def _answer(self, request: ServiceRequest, response: Response, service: Service) -> None:
        try:
            await self.respond(request.context, response, None)
        except ValueError as error:
            _log_failure(service, error)
            response = request.response(PROCESSING_FAILURE, "the service failed")
            await self.respond(request.context, response, None)
        self._association.account.note(response, request.bytes_received)

    async def watch(self) -> None:
        """Give up services that make no progress. Raises `AssociationTimeout` when the peer makes none."""
        while True:
            self._next_look = min([self._due(), *(request.due for request in self._running)])
            with trio.CancelScope(deadline=self._next_look) as self._scope:
                await trio.sleep_forever()
            self._check_pace()
            now = trio.current_time()
            for request in self._running:
                if request.due <= now:
                    request.give_up()

    def restart_idle(self) -> None:
        """An operation of ours has ended."""
        self._idle_since = trio.current_time()
        self.expect(self._due())

    def expect(self, due: float) -> None:
        """See that the watch looks up at `due`, or before: to move its deadline costs more than to look in vain."""
        if due < self._next_look:
            self._next_look = self._scope.deadline = due

    def _due(self) -> float:
        """When the peer is to be looked at next."""
        if self._receiving is not None:
            return self._mark[0] + RATE_PERIOD
        if self._running or self._association.is_invoking:
            return math.inf
        return max(self._idle_since + self._settings.timeouts.idle, self._association.end_of_pdu)

    def _check_pace(self) -> None:
        if trio.current_time() < self._due():
            return
        if self._receiving is None:
            raise AssociationTimeout("the next message of the peer", self._settings.timeouts.idle)
        size = self._receiving.bytes_received
        least = max(1, self._settings.limits.minimum_rate * RATE_PERIOD)
        if size - self._mark[1] < least and not self.is_full:
            raise AssociationTimeout(f"receiving {self._settings.limits.minimum_rate} bytes a second", RATE_PERIOD)
        self._mark = (trio.current_time(), size)
