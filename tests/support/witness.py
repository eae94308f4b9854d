"""A witness of all that goes between a sender and its destinations, and a judge of what the sender says of it.

It stands between the sender and its streams, knows nothing of how the sender works, and takes it at its word:

1. Stored is what a valid answer said so of: on the presentation context, for the message ID and the UIDs of a request
   whose last byte the stream had taken, and the first for it.
2. Refused, or already present, is what the last valid answer said so of.
3. Not sent, or refused, is nothing that once was with the stream as a whole and was not answered with a failure.
4. Every message that is whole has the bytes of the file. Nothing follows an A-ABORT, or a write that was cut off, and
   no data an answer that cannot be.
"""

from __future__ import annotations

import collections
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import attrs
import trio

from trio_dicom.protocol.command import Command, CStoreRQ, CStoreRSP, decode_command
from trio_dicom.protocol.pdu import PDU, PDV, Abort, PDataTF
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.protocol.status import Status
from trio_dicom.sender.outcome import InstanceReport, Outcome, outcome_of_status
from trio_dicom.sender.reports import TransferReport
from trio_dicom.settings import Limits
from trio_dicom.sources.part10 import parse_head

Connect = Callable[[], Awaitable[trio.abc.Stream]]

ANSWERED = (Outcome.STORED, Outcome.STORED_WITH_WARNING, Outcome.ALREADY_PRESENT, Outcome.REFUSED)
FAILED = (Outcome.NOT_SENT, Outcome.REFUSED)


def data_set_of(file: bytes) -> bytes:
    """What is sent of a file."""
    head = parse_head(file, at_end=True)
    assert head is not None
    return file[head.data_set_offset :]


def uid_of(file: bytes) -> str:
    """Its SOP Instance UID."""
    head = parse_head(file, at_end=True)
    assert head is not None
    return head.sop_instance_uid


@attrs.define(eq=False)
class Request:
    """A C-STORE request, as it was seen."""

    context_id: int
    command: CStoreRQ
    data_set: bytearray = attrs.field(factory=bytearray, repr=False)
    is_last_out: bool = False  # the stream was given its last byte
    is_whole: bool = False  # and has taken it
    answer: Status | None = None
    was_acknowledged_early: bool = False

    @property
    def uid(self) -> str:
        return self.command.affected_sop_instance_uid

    @property
    def valid_answer(self) -> Status | None:
        """A failure counts also if it is early."""
        return self.answer if self.is_whole or (self.answer is not None and self.answer.is_failure) else None

    @property
    def is_open(self) -> bool:
        """The peer may have acted on it, and there is no valid answer."""
        return self.was_acknowledged_early or (self.is_last_out and self.valid_answer is None)

    def is_answered_by(self, context_id: int, answer: CStoreRSP) -> bool:
        uids = self.command.affected_sop_class_uid, self.uid
        named = answer.affected_sop_class_uid, answer.affected_sop_instance_uid
        is_named = all(not name or name == uid for name, uid in zip(named, uids, strict=True))
        return is_named and context_id == self.context_id and answer.status >> 8 not in (0xFE, 0xFF)


class _Half:
    """One direction: bytes to PDUs to commands."""

    def __init__(self) -> None:
        self.buffer = ReceiveBuffer(Limits(pdu_length=1 << 30))
        self._command = bytearray()

    def pdus(self, data: bytes | bytearray | memoryview) -> Iterator[PDU]:
        self.buffer.feed(bytes(data))
        while (pdu := self.buffer.next_pdu()) is not None:
            yield pdu

    def command(self, pdv: PDV) -> Command | None:
        self._command += pdv.data
        if not pdv.is_last:
            return None
        raw = bytes(self._command)
        self._command.clear()
        return decode_command(raw)


class Connection(trio.abc.Stream):
    """`stream`, as a sender has it, with somebody who listens."""

    def __init__(self, witness: Witness, stream: trio.abc.Stream) -> None:
        self._witness = witness
        self._stream = stream
        self._sent, self._heard = _Half(), _Half()
        self._requests: dict[int, Request] = {}  # in flight
        self._current: Request | None = None
        self._is_cut = self._is_aborted = self._is_unbelievable = self._is_closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_cut:
            self._witness.complain("something is sent after a write that was cut off")
        ended = self._sending(data)
        self._is_cut = True
        await self._stream.send_all(data)
        self._is_cut = False
        for request in ended:
            request.is_whole = True

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._received(data)
        return data

    async def aclose(self) -> None:
        self._is_closed = True
        await self._stream.aclose()

    def check(self) -> None:
        """It was closed, and not in the middle of a PDU, unless the stream had not taken all of that."""
        assert self._is_closed, "a connection is left open"
        assert self._is_cut or not self._sent.buffer.is_inside_pdu, "the last PDU is cut"

    def _sending(self, data: bytes | bytearray | memoryview) -> list[Request]:
        """The requests whose last byte is in `data`."""
        ended = []
        for pdu in self._sent.pdus(data):
            if self._is_aborted:
                self._witness.complain("something is sent after an A-ABORT")
            self._is_aborted |= isinstance(pdu, Abort)
            if self._is_unbelievable and isinstance(pdu, PDataTF):
                self._witness.complain("data is sent to a peer that cannot be believed")
            for pdv in pdu.pdvs if isinstance(pdu, PDataTF) else ():
                if pdv.is_command:
                    self._begun(pdv)
                elif self._current is not None:
                    self._current.data_set += pdv.data
                    if pdv.is_last:
                        request, self._current = self._current, None
                        self._witness.ended(request)
                        ended.append(request)
        return ended

    def _begun(self, pdv: PDV) -> None:
        command = self._sent.command(pdv)
        if command is None:
            return
        if not isinstance(command, CStoreRQ) or self._current is not None or command.message_id in self._requests:
            self._witness.complain(f"{command} comes amiss")
            return
        self._current = self._requests[command.message_id] = Request(pdv.context_id, command)
        self._witness.begun(self._current)

    def _received(self, data: bytes | bytearray) -> None:
        for pdu in self._heard.pdus(data):
            for pdv in pdu.pdvs if isinstance(pdu, PDataTF) else ():
                answer = self._heard.command(pdv)
                if isinstance(answer, CStoreRSP) and not self._is_unbelievable:
                    self._answered(pdv.context_id, answer)

    def _answered(self, context_id: int, answer: CStoreRSP) -> None:
        request = self._requests.get(answer.message_id_being_responded_to)
        status = Status(answer.status)
        if request is None or not request.is_answered_by(context_id, answer):
            self._is_unbelievable = True
        elif not request.is_last_out and not status.is_failure:
            self._is_unbelievable = request.was_acknowledged_early = True
        else:
            request.answer = status
            del self._requests[request.command.message_id]


class Witness:
    """See above. `files` are those of the objects that may be sent, by SOP Instance UID; `past` was the witness of an
    earlier run with the same ledger, before which nothing was sent, or that had one of its own."""

    def __init__(self, files: Mapping[str, bytes], past: Witness | None = None) -> None:
        self.requests: dict[str, list[Request]] = collections.defaultdict(list)
        self._past = {} if past is None else past.all_requests()
        self._files = files
        self._connections: list[Connection] = []
        self._complaints: list[str] = []

    def watching(self, connect: Connect) -> Connect:
        """`connect`, for `open_sender`, with the witness in between."""

        async def connect_watched() -> trio.abc.Stream:
            self._connections.append(Connection(self, await connect()))
            return self._connections[-1]

        return connect_watched

    def all_requests(self) -> dict[str, list[Request]]:
        """Of the past, too."""
        return {uid: self._past.get(uid, []) + self.requests.get(uid, []) for uid in {**self._past, **self.requests}}

    # --- for connections

    def complain(self, complaint: str) -> None:
        """Said at the end: the sender could take an exception for one of its stream's."""
        self._complaints.append(complaint)

    def begun(self, request: Request) -> None:
        if request.uid not in self._files:
            self.complain(f"{request.uid} is none of the objects")
        self.requests[request.uid].append(request)

    def ended(self, request: Request) -> None:
        if request.data_set != data_set_of(self._files[request.uid]):
            self.complain(f"{request.uid} has other bytes than its file")
        request.data_set.clear()
        request.is_last_out = True

    # --- the judge

    def check(self, reports: Sequence[InstanceReport], report: TransferReport, uids: Sequence[str]) -> None:
        """`reports` are of all inputs of the sender that were taken, whose SOP Instance UIDs are `uids`, in order."""
        assert not self._complaints
        assert len(reports) == report.inputs == sum(report.counts.values()) <= len(uids)
        assert report.counts == collections.Counter(each.outcome for each in reports)
        assert sorted(each.number for each in reports) == list(range(len(reports)))
        for each in reports:
            self.check_one(uids[each.number], each)
        self._check_sums(reports, report)
        for connection in self._connections:
            connection.check()

    def check_one(self, uid: str, report: InstanceReport) -> None:
        """Whether what is told of this input is so."""
        now, past = self.requests.get(uid, []), self._past.get(uid, [])
        told = f"{report}; {past}, {now}"
        outcome = report.outcome
        counting = past if report.is_earlier else now
        answers = [each.valid_answer for each in counting if each.valid_answer is not None]
        assert report.sop_instance_uid in (uid, None), told
        assert outcome in ANSWERED or outcome in (Outcome.NOT_SENT, Outcome.IN_DOUBT), told
        assert not (report.is_earlier and now), f"it was settled, and is sent again: {told}"
        if outcome in ANSWERED:
            assert answers, f"nobody said so: {told}"
            assert report.status == answers[-1], f"it was the last answer that counts: {told}"
            assert outcome is outcome_of_status(answers[-1]), told
        if outcome in FAILED:
            assert not any(each.is_open for each in past + now), f"it may have arrived: {told}"
            assert all(answer.is_failure for answer in answers), f"it was acknowledged: {told}"
        if outcome is Outcome.IN_DOUBT or report.was_in_doubt:
            assert report.attempts or past, f"there is nothing to doubt: {told}"
        if any(each.is_whole and each.is_open for each in past + now):
            assert report.was_in_doubt or outcome is Outcome.IN_DOUBT, f"a doubt is forgotten: {told}"
        assert report.is_earlier or len(now) <= report.attempts, told

    @staticmethod
    def _check_sums(reports: Sequence[InstanceReport], report: TransferReport) -> None:
        now = [each for each in reports if not each.is_earlier]
        assert report.pending == report.under_way == report.open_associations == 0
        assert report.earlier == len(reports) - len(now)
        assert report.attempts == sum(each.attempts for each in now)
        assert report.retries == sum(max(0, each.attempts - 1) for each in now)
        assert report.delivered == sum(each.is_delivered for each in reports)
        assert report.bytes_stored == sum(each.bytes_sent for each in now if each.outcome.is_stored)
