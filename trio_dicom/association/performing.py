"""Performing: the requests of the peer, and the services that answer them (PS3.7 section 7.5, the performing side).

1. A request runs as a task in the association's nursery, with a deadline of its own, and ends in one final response.
   When the association ends, its tasks are cancelled.
2. The data set is handed on as it comes. What a service has not taken yet is bounded: the reader waits then, and so
   does the peer. Whatever a service leaves is taken and dropped before the answer goes out.
3. The peer has to keep going, too: between messages for `timeouts.idle`, inside one at `limits.minimum_rate`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from ..errors import AssociationTimeout, UnexpectedPDU
from ..protocol.command import CCancelRQ, Command, Response
from ..protocol.negotiation import AcceptedContext
from ..protocol.status import DUPLICATE_INVOCATION, PROCESSING_FAILURE, UNRECOGNIZED_OPERATION
from ..settings import AssociationSettings
from .service import Refusal, Service, Services
from .service_request import ServiceRequest, log_failure
from .transport import Buffer

if TYPE_CHECKING:
    from .association import Association

MOST_BUFFERED = 4 << 20  # bytes of data sets that came and that services are not done with, before the reader waits
MOST_WAITING = 256  # requests beyond the window
RATE_PERIOD = 60.0  # s over which the rate of a message is looked at

Responder = Callable[[AcceptedContext, Response, bytes | None], Awaitable[None]]


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
    def is_more_due(self) -> bool:
        """Whether more comes before our next response: the rest of a message, or one that need not wait for that."""
        return self._receiving is not None or self._most > 1

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
        service = self._services.find(context.abstract_syntax, command) or Refusal(UNRECOGNIZED_OPERATION)
        same = self._by_id.setdefault(request.message_id, [])
        if same:
            service = Refusal(DUPLICATE_INVOCATION)
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
            log_failure(service, error)
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
