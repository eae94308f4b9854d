"""ServiceRequest: one request of the peer, from its command to the one final response that a service gives it.

A service that raises, hangs or gives what is no response of its kind costs its request, answered with 0110H, and
nothing else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import trio

from ..protocol.command import IS_RESPONSE, AnsweredRequest, Response, response_to
from ..protocol.negotiation import AcceptedContext
from ..protocol.status import PROCESSING_FAILURE, Status, StatusCategory
from .service import Service
from .transport import Buffer

if TYPE_CHECKING:
    from .association import Association
    from .performing import Performer

log = logging.getLogger(__name__)

SMALL = 1024  # bytes; smaller pieces are joined, for each costs 184 more, and keeps all that it was received with
MOST_WANTED = 1 << 20  # bytes that a service can wait for


class ServiceRequest:
    """A request of the peer on its way: `command`, its presentation `context`, its data set as it comes in.

    `cancelled` is set when the peer asks by C-CANCEL that it be given up (PS3.7 section 9.3.2.3).
    """

    def __init__(self, association: Association, context: AcceptedContext, command: AnsweredRequest) -> None:
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
        return self.command.message_id

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
            self._wanted = 1  # nothing is kept any more: only the end wakes this task
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
            return response
        if response is not None:
            log.error("%s gave a %s that is no final response", type(service).__name__, type(response).__name__)
        return self.response(PROCESSING_FAILURE, "the service failed")

    def _is_answered_by(self, response: object) -> TypeGuard[Response]:
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
        log_failure(service, error)
    except BaseExceptionGroup as group:  # of a nursery that was cancelled while something failed in it
        errors, stops = group.split(Exception)
        if errors is not None:
            log_failure(service, errors)
        if stops is not None:
            raise stops from None
    return None


def log_failure(service: Service, error: BaseException) -> None:
    """That `service` raised `error`; what it says of it is for DEBUG only, for it may name a patient."""
    log.error("%s failed with %s (details at DEBUG)", type(service).__name__, type(error).__name__)
    log.debug("the failure", exc_info=error)


def _is_pending(status: object) -> bool:
    if not isinstance(status, int) or not 0 <= status <= 0xFFFF:
        return False  # it will not be encoded
    return Status(status).category is StatusCategory.PENDING
