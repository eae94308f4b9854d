"""The Storage service class user: C-STORE, one object at a time (PS3.4 annex B, PS3.7 section 9.1.1)."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast, overload

import attrs
import trio

from ..association.association import Association
from ..association.operation import Delivery, Operation, Request
from ..errors import InvalidResponse, LocalProtocolError, StatusError
from ..protocol.command import Command, CStoreRQ, CStoreRSP, Priority
from ..protocol.negotiation import AcceptedContext
from ..protocol.status import Status, StatusCategory
from ..sources.open import open_source, open_source_now
from ..sources.pixels import PixelSource
from ..sources.source import Source
from .progress import ProgressReporter, TransferProgress

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

LONGEST_RETRY_DELAY = 60.0  # s

ProgressChannel = trio.abc.SendChannel[TransferProgress]


def _positive_seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{attribute.name} must be a number of seconds above 0 (math.inf for none), not {value!r}")


def _retry_delay(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"retry_delay must be a finite number of seconds, 0 or more, not {value!r}")


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{attribute.name} must be a whole number, 0 or more, not {value!r}")


@attrs.frozen(kw_only=True)
class CStoreOptions:
    """How objects are sent.

    - `timeout`: the longest, in seconds, that a send may go without progress: no byte taken by the transport, or no
      response after the last. `math.inf` for none. The system takes up to 512 KiB ahead of the network, so a link of
      less than 20 kB/s needs more than 30.
    - `max_duration`: the longest that one attempt may take in all, in seconds.
    - `priority`: the Priority of the request, (0000,0700).
    - `max_retries`: how many times an object is sent again after status A7xx or 0213, on the same association.
    - `retry_delay`: seconds before the first retry; doubled for each further one up to 60; never part of `timeout`.
    - `report_progress`: False switches off what is sent to the progress channel.
    """

    timeout: float = attrs.field(default=30.0, validator=_positive_seconds)
    max_duration: float = attrs.field(default=math.inf, validator=_positive_seconds)
    priority: Priority = attrs.field(default=Priority.MEDIUM, converter=Priority)
    max_retries: int = attrs.field(default=0, validator=_count)
    retry_delay: float = attrs.field(default=1.0, validator=_retry_delay)
    report_progress: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))


@attrs.frozen
class CStoreResponse:
    """The peer's final answer to a C-STORE (PS3.7 9.1.1). A failure is a value here, too: see `raise_for_status`."""

    status: Status = attrs.field(converter=Status)
    sop_class_uid: str
    sop_instance_uid: str
    error_comment: str | None = None  #: (0000,0902), as it came: escape it before it is shown
    attempts: int = 1
    bytes_sent: int = 0  #: of the data set, in the last attempt
    elapsed: float = 0.0  #: seconds, all attempts and the delays between them

    @property
    def is_success(self) -> bool:
        """Status 0000."""
        return self.status.is_success

    @property
    def is_warning(self) -> bool:
        """Stored, but not quite as sent: B000, B006 or B007 (PS3.4 B.2.3)."""
        return self.status.is_warning

    @property
    def is_failure(self) -> bool:
        """Not stored."""
        return self.status.is_failure

    def raise_for_status(self) -> CStoreResponse:
        """This response, unless it is a failure: then `StatusError`."""
        if self.is_failure:
            raise StatusError(self, repr(self.status), self.status.retry)
        return self


class CStoreSCU:
    """Sends objects over an association with C-STORE.

    Any number of tasks may call `send` at once; see `Association` for the order.
    """

    def __init__(self, association: Association, options: CStoreOptions | None = None) -> None:
        if not callable(getattr(association, "perform", None)):
            raise TypeError(f"CStoreSCU needs an Association, not {type(association).__name__}")
        self.association = association
        self.options = CStoreOptions() if options is None else options

    @overload
    async def send(
        self, source: str | os.PathLike[str] | FileDataset, /, *, progress: ProgressChannel | None = None
    ) -> CStoreResponse: ...

    @overload
    async def send(
        self, source: BinaryIO | trio.abc.ReceiveStream, /, *, progress: ProgressChannel | None = None
    ) -> CStoreResponse: ...

    @overload
    async def send(
        self, source: Dataset, pixels: PixelSource | None = None, /, *, progress: ProgressChannel | None = None
    ) -> CStoreResponse: ...

    async def send(
        self,
        source: str | os.PathLike[str] | FileDataset | BinaryIO | trio.abc.ReceiveStream | Dataset,
        pixels: PixelSource | None = None,
        /,
        *,
        progress: ProgressChannel | None = None,
    ) -> CStoreResponse:
        """Send one object and return the peer's answer.

        1. `send(file)`: a path, or a pydicom `FileDataset`. The file at a path is not parsed if its transfer syntax was
           accepted: the data set goes out byte for byte as it lies there. A `FileDataset` is encoded anew, as in 3.
        2. `send(stream)`: a binary file object, or a trio `ReceiveStream`, that starts with preamble and File Meta. It
           is read as the network takes it, is never wholly in memory, and stays the caller's to close.
        3. `send(dataset, pixels)`: a `Dataset` without Pixel Data, and a `PixelSource` that has them. Without `pixels`
           the data set goes out as it is, in the accepted transfer syntax.

        A file or data set in one of Explicit, Implicit and Deflated Little Endian is encoded anew when only another of
        these was accepted. Pixels are never transcoded: `NoPresentationContext` is raised before a byte is sent.

        `progress`, the sending end of `open_progress_channel` or of any channel with `send_nowait`, gets a
        `TransferProgress` after each batch of PDUs and one, `is_complete`, after the response; it never slows or fails
        a send.

        Raises `InvalidObject`, `ReadError` or `ObjectChanged` for the input (after the first byte this aborts the
        association); `OperationTimeout`, `AssociationAborted`, `ConnectionLost`, `AssociationClosed` or a
        `ProtocolViolation` for the association, whose `in_doubt` tells whether the peer may have stored the object. A
        status is no exception.

        Cancelled before its first byte was queued, it has done nothing. In the middle of the object it aborts the
        association: a truncated object is never completed. After the last byte the association stays usable, and
        whether the object was stored remains unknown.
        """
        return await self.delivery(source, pixels, progress=progress).run()

    def delivery(
        self, source: Any, pixels: PixelSource | None = None, /, *, progress: ProgressChannel | None = None
    ) -> StoreDelivery:
        """What `send` does, not begun yet: `await delivery.run()` does it.

        Kept by the caller, it tells what became of the object also after a cancellation. Parameters as for `send`.
        """
        return StoreDelivery(self.association, self.options, source, pixels, progress)


class StoreDelivery:
    """One object on its way over an association, through its attempts: see `CStoreSCU.delivery`.

    It knows at any time what became of it. `status` is that of the peer's answer, if one came. Without one, `in_doubt`
    is True if the peer may have stored the object, and False if it never had all of it. `attempts` were begun, and
    `bytes_sent` bytes of the data set went to the transport in the last of them.
    """

    def __init__(
        self,
        association: Association,
        options: CStoreOptions,
        item: object,
        pixels: PixelSource | None = None,
        progress: ProgressChannel | None = None,
    ) -> None:
        self._association = association
        self._options = options
        self._item = item
        self._pixels = pixels
        if progress is not None and not callable(getattr(progress, "send_nowait", None)):
            raise TypeError(f"a progress channel needs send_nowait, which {type(progress).__name__} does not have")
        self._progress = progress if options.report_progress else None
        self.source: Source | None = item if isinstance(item, Source) else None
        self.transfer_syntax_uid: str | None = None  # as sent
        self.attempts = 0
        self._start: float | None = None  # of the first attempt
        self.operation: _Store | None = None  # of the last attempt

    @property
    def has_begun(self) -> bool:
        """True once some of the object was handed to the writer, in the last attempt."""
        return self.operation is not None and self.operation.delivery > Delivery.NOTHING_SENT

    @property
    def in_doubt(self) -> bool:
        """True when the peer may have stored the object and no valid answer says so."""
        return self.operation is not None and self.operation.in_doubt

    @property
    def status(self) -> Status | None:
        """The peer's answer to the last attempt, even if the caller had gone when it came."""
        if self.operation is None or self.operation.delivery is not Delivery.ANSWERED:
            return None
        return Status(cast(CStoreRSP, self.operation.response).status)

    @property
    def bytes_sent(self) -> int:
        """Of the data set, in the last attempt."""
        return self.operation.bytes_sent if self.operation is not None else 0

    async def run(self) -> CStoreResponse:
        """Send, and send again as the options say. See `CStoreSCU.send`."""
        delay = min(self._options.retry_delay, LONGEST_RETRY_DELAY)
        try:
            while True:
                operation = self._new_operation()
                answer: CStoreRSP = await self._association.perform(operation)  # type: ignore[assignment]
                if not answer.status or not await self._may_retry(Status(answer.status)):
                    break
                await trio.sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY_DELAY)
        finally:
            if self.source is not None:
                await self.source.aclose()
        return self._response(operation, answer)

    async def begin(self) -> Operation:
        """The first half of one attempt: see `Association.begin`. Then comes `response` or `leave`."""
        operation = self._new_operation()
        try:
            await self._association.begin(operation)
        finally:
            if self.source is not None:
                await self.source.aclose()
        return operation

    def response(self) -> CStoreResponse:
        """The answer to what was begun, once its operation is settled. Raises the error that ended the association."""
        operation = self.operation
        if operation is None:
            raise LocalProtocolError("nothing was begun")
        return self._response(operation, self._association.response_to(operation))  # type: ignore[arg-type]

    def leave(self) -> None:
        """Nobody waits for the answer to what was begun."""
        if self.operation is not None:
            self._association.leave(self.operation)

    def _new_operation(self) -> _Store:
        if self._start is None:
            self._start = trio.current_time()
        self.attempts += 1
        self.operation = operation = _Store(self, self._options)
        return operation

    def _response(self, operation: _Store, answer: CStoreRSP) -> CStoreResponse:
        operation.report(is_complete=True)
        command: CStoreRQ = operation.command  # type: ignore[assignment]
        return CStoreResponse(
            answer.status,
            command.affected_sop_class_uid,
            command.affected_sop_instance_uid,
            answer.error_comment,
            self.attempts,
            operation.bytes_sent,
            trio.current_time() - (self._start or 0.0),
        )

    async def _may_retry(self, status: Status) -> bool:
        is_transient = status >> 8 == 0xA7 or status == 0x0213
        is_left = self.attempts <= self._options.max_retries and self._association.is_open
        return is_transient and is_left and self.source is not None and await self.source.rewind()

    async def request(self) -> Request:
        """What the next attempt sends."""
        if self.source is None:
            self.source = await open_source(self._item, self._pixels)
        source = self.source
        context = self._association.context_for(source.sop_class_uid, source.transfer_syntaxes)
        if self.transfer_syntax_uid is None:
            await source.prepare(context.transfer_syntax)
        return self._request(source, context)

    def request_now(self) -> Request | None:
        """The same, if nothing has to be waited for."""
        if self.source is None:
            self.source = None if self._pixels is not None else open_source_now(self._item)
        source = self.source
        if source is None:
            return None
        context = self._association.context_for(source.sop_class_uid, source.transfer_syntaxes)
        if source.is_prepared_for(context.transfer_syntax):
            return self._request(source, context)
        return None

    def _request(self, source: Source, context: AcceptedContext) -> Request:
        self.transfer_syntax_uid = context.transfer_syntax
        return Request(context, partial(_command, source, self._options.priority), source)

    def reporter(self) -> ProgressReporter | None:
        """For one attempt."""
        if self._progress is None or self.source is None:
            return None
        return ProgressReporter(self._progress, self.source.sop_instance_uid, self.source.size, self.attempts)


def _command(source: Source, priority: Priority, message_id: int) -> CStoreRQ:
    return CStoreRQ(message_id, source.sop_class_uid, source.sop_instance_uid, priority)


class _Store(Operation):
    """One attempt."""

    response_type = CStoreRSP

    def __init__(self, delivery: StoreDelivery, options: CStoreOptions) -> None:
        super().__init__(timeout=options.timeout, max_duration=options.max_duration)
        self._delivery: StoreDelivery | None = delivery
        self._reporter: ProgressReporter | None = None

    def ready(self) -> Request | None:
        delivery = self._delivery
        request = None if delivery is None else delivery.request_now()
        if delivery is None or request is None:
            return None
        self._delivery = None
        return self._begun(delivery, request)

    async def prepare(self) -> Request:
        delivery, self._delivery = self._delivery, None  # which has this: the two would be garbage to be collected
        if delivery is None:
            raise LocalProtocolError("an operation is performed once")
        return self._begun(delivery, await delivery.request())

    def _begun(self, delivery: StoreDelivery, request: Request) -> Request:
        self._reporter = delivery.reporter()
        return request

    def check(self, response: Command) -> None:
        if not response.status:  # type: ignore[union-attr]
            return
        status = Status(response.status)  # type: ignore[union-attr]
        if status.category in (StatusCategory.PENDING, StatusCategory.CANCEL):
            raise InvalidResponse(f"C-STORE was answered with {status!r}, which is not one of its statuses", 0, 0)

    def written(self) -> None:
        if self._reporter is not None:
            self._reporter.report(self.bytes_sent)

    def report(self, *, is_complete: bool = False) -> None:
        """To the progress channel, if there is one."""
        if self._reporter is not None:
            self._reporter.report(self.bytes_sent, is_complete=is_complete)
