"""Our requests that wait for their responses: message IDs, the asynchronous operations window, and what counts.

A response counts only with the message ID of a request that is in flight, in its presentation context, of its kind,
naming its SOP class and instance if it names any, and after the last PDV of the request was sent (PS3.7 section 7.5).
"""

from __future__ import annotations

from collections.abc import Collection

import trio

from ..errors import InvalidResponse, UnexpectedMessageID, UnexpectedPDU
from ..protocol.command import Response
from ..protocol.message import DataFragment
from ..protocol.status import Status
from .operation import Operation

_UIDS = ("affected_sop_class_uid", "affected_sop_instance_uid")


class InFlight:
    """The operations in flight of one association. Only `wait_room` waits, for one task at a time."""

    def __init__(self, window: int, response_data_set: int) -> None:
        self._operations: dict[int, Operation] = {}
        self._window = window
        self._room: trio.Event | None = None  # somebody waits for it
        self._last_message_id = 0
        self._responding: tuple[Operation, Response, int] | None = None  # whose data set is coming, its bytes so far
        self._response_data_set = response_data_set

    def __bool__(self) -> bool:
        return bool(self._operations)

    @property
    def operations(self) -> Collection[Operation]:
        return self._operations.values()

    @property
    def has_room(self) -> bool:
        """Whether the window takes one more."""
        return len(self._operations) < self._window

    async def wait_room(self) -> None:
        """Wait until the window takes one more, or the association has ended."""
        self._room = trio.Event()
        await self._room.wait()

    def wake(self) -> None:
        """The association has ended, or there is room."""
        if self._room is not None:
            self._room.set()

    def add(self, operation: Operation) -> None:
        """`operation` has a message ID from now on."""
        message_id = self._last_message_id % 65_535 + 1
        while message_id in self._operations:
            message_id = message_id % 65_535 + 1
        self._last_message_id = operation.message_id = message_id
        self._operations[message_id] = operation

    def withdraw(self, operation: Operation) -> None:
        """Nothing of it was sent, and nothing will be."""
        if self._operations.pop(operation.message_id, None) is not None:
            self.wake()

    def receive(self, context_id: int, response: Response) -> tuple[Operation, Response] | None:
        """What is settled by what, or None if a data set follows first. Raises `InvalidResponse`."""
        operation = self._operations.get(response.message_id_being_responded_to)
        if operation is None:
            message_id = response.message_id_being_responded_to
            raise UnexpectedMessageID(f"a response to message ID {message_id}, which is not in flight", 0, 0)
        _check(operation, context_id, response)
        if not response.has_data_set:
            return self._take_out(operation, response)
        self._responding = (operation, response, 0)
        return None

    def receive_data(self, fragment: DataFragment) -> tuple[Operation, Response] | None:
        """A piece of a response's data set; after the last, what is settled by what.

        None of our services has a use for one: it is dropped, within a bound.
        """
        if self._responding is None:
            raise UnexpectedPDU("a data set without its command set", 0, 0)
        operation, response, size = self._responding
        size += len(fragment.data)
        if size > self._response_data_set:
            raise InvalidResponse(f"a response with a data set of over {size - 1} bytes", 0, 0)
        self._responding = None if fragment.is_last else (operation, response, size)
        return self._take_out(operation, response) if fragment.is_last else None

    def _take_out(self, operation: Operation, response: Response) -> tuple[Operation, Response]:
        del self._operations[operation.message_id]
        self.wake()
        return operation, response


def _check(operation: Operation, context_id: int, response: Response) -> None:
    if not operation.is_in_hand:
        raise InvalidResponse("a response before its request", 0, 0)
    if not isinstance(response, operation.response_type):
        wanted = operation.response_type.__name__
        raise InvalidResponse(f"a {type(response).__name__} where a {wanted} was awaited", 0, 0)
    if context_id != operation.request.context.context_id:
        raise InvalidResponse("a response in another presentation context than its request", 2, 5)
    for field in _UIDS:
        answered = getattr(response, field, None)
        if answered and answered != getattr(operation.command, field, None):
            raise InvalidResponse(f"a response whose {field} is not that of its request", 0, 0)
    operation.check(response)
    if not operation.may_be_answered and not Status(response.status).is_failure:
        operation.is_acknowledged_early = True
        raise InvalidResponse("a response before the last PDV of its request was sent", 0, 0)
