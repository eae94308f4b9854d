"""A session, from the request for an association to its release, that stalls, breaks or half ends at every byte.

Both sides are ours. The fault is at either of them and in either direction; the clock is virtual. Wherever it is, both
sides come to their end in time, with a documented error; what is told of the object is so; and it is what can be told
when the fault is at that byte.
"""

from __future__ import annotations

import functools
import io
import itertools

import attrs
import pytest
import trio
import trio.testing

from trio_dicom import (
    Association,
    AssociationAborted,
    AssociationError,
    AssociationSettings,
    AssociationTimeout,
    ConnectionLost,
    Instance,
    OperationTimeout,
    Outcome,
    PresentationContext,
    StorageSCP,
    wrap_client_stream,
    wrap_server_stream,
)
from trio_dicom.association import outgoing, writer
from trio_dicom.protocol.pdu import AssociateAC, AssociateRQ, PDataTF
from trio_dicom.sender.outcome import report_of_failure, report_of_response
from trio_dicom.services.storage_scu import CStoreOptions, StoreDelivery
from trio_dicom.testing import (
    Direction,
    Fault,
    FaultyStream,
    HalfClose,
    RecordedStream,
    Reset,
    SOPClass,
    Stall,
    make_instance_file,
)
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

SENDING, RECEIVING = Direction.SENDING, Direction.RECEIVING
NOT_SENT, IN_DOUBT, STORED = Outcome.NOT_SENT, Outcome.IN_DOUBT, Outcome.STORED
CONTEXTS = (PresentationContext(SOPClass.CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),)
# s, with 1 to let the last PDUs out and 1 to let the other side close: an answer to the association request or to the
# C-STORE, the release, the longest that an acceptor waits.
ANSWER, RELEASE, ACCEPTOR = 30 + 2, 10 + 2, 60 + 2
PIECE, PDU_LENGTH = 4096, 1030  # bytes of a batch, and of a PDU
AT_ONCE = 2.0  # what is left to be said when the connection breaks
ERRORS = {
    Stall: (AssociationTimeout, OperationTimeout, AssociationAborted, ConnectionLost),
    Reset: (ConnectionLost, AssociationAborted),
    HalfClose: (ConnectionLost, AssociationAborted),
}
FAULTS = pytest.mark.parametrize("fault", ERRORS, ids=lambda each: each.__name__)
AT_THE_REQUESTOR = pytest.mark.parametrize("at_the_requestor", [True, False], ids=["requestor", "acceptor"])
DIRECTIONS = pytest.mark.parametrize("direction", Direction, ids=lambda each: each.value)


@attrs.define
class Session:
    """What came of one. The seconds are those until that side had come to its end."""

    file: bytes
    backpressure: bool = False
    settings: AssociationSettings = attrs.field(factory=AssociationSettings)
    outcome: Outcome = NOT_SENT
    error: Exception | None = None
    object_seconds: float = 0.0
    requestor_seconds: float = 0.0
    acceptor_seconds: float = 0.0
    acceptor_error: Exception | None = None
    kept: list[bytes] = attrs.field(factory=list)

    def run(self, *faults: Fault, at_the_requestor: bool = True) -> RecordedStream:
        async def main() -> RecordedStream:
            pair = trio.testing.lockstep_stream_pair if self.backpressure else trio.testing.memory_stream_pair
            ours, theirs = pair()
            recorded = RecordedStream(FaultyStream(ours, *(faults if at_the_requestor else ())))
            faulty = FaultyStream(theirs, *(() if at_the_requestor else faults))
            with trio.fail_after(1000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._accept, faulty)
                    await self._request(recorded)
            return recorded

        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    async def _request(self, stream: trio.abc.Stream) -> None:
        start = trio.current_time()
        delivery = None
        try:
            async with trio.open_nursery() as nursery:
                association = await self._opened(nursery, stream)
                if association is None:
                    return
                delivery = StoreDelivery(association, CStoreOptions(), io.BytesIO(self.file))
                try:
                    self.outcome = report_of_response(None, delivery, await delivery.run()).outcome
                except AssociationError as error:
                    self.error = error
                    self.outcome = report_of_failure(None, delivery, error).outcome
                self.object_seconds = trio.current_time() - start
                await association.aclose()
        finally:
            self.requestor_seconds = trio.current_time() - start
            self.object_seconds = self.object_seconds or self.requestor_seconds

    async def _opened(self, nursery: trio.Nursery, stream: trio.abc.Stream) -> Association | None:
        try:
            return await wrap_client_stream(nursery, stream, CONTEXTS, settings=self.settings)
        except AssociationError as error:
            self.error = error
            return None

    async def _accept(self, stream: trio.abc.Stream) -> None:
        start = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                association = await wrap_server_stream(nursery, stream, StorageSCP(self._keep))
            self.acceptor_error = association.failure
        except* AssociationError as group:
            self.acceptor_error = group.exceptions[0]
        self.acceptor_seconds = trio.current_time() - start

    async def _keep(self, instance: Instance) -> int:
        self.kept.append(await instance.read())
        return 0


@attrs.frozen
class Zone:
    """Bytes of one direction, up to `end`, and what becomes of the object when the fault is there."""

    end: int
    outcomes: frozenset[Outcome]


def zones(session: Session, direction: Direction, in_a_batch: int | None = None) -> list[Zone]:
    """Of a session without faults. An object is in doubt once the last of its batches, of so many PDUs, is written."""
    recorded = session.run().recording
    assert session.outcome is STORED
    assert len(session.kept) == 1
    pdus = recorded.pdus(direction)
    ends = itertools.accumulate(len(each.data) for each in recorded.split() if each.direction is direction)
    last_batch = 0
    if in_a_batch is not None:
        data = [number for number, pdu in enumerate(pdus) if isinstance(pdu, PDataTF) and not pdu.pdvs[0].is_command]
        last_batch = data[(len(data) - 1) // in_a_batch * in_a_batch]
    found = []
    for number, (pdu, end) in enumerate(zip(pdus, ends, strict=True)):
        if isinstance(pdu, AssociateRQ | AssociateAC):
            outcome = NOT_SENT
        elif isinstance(pdu, PDataTF):
            outcome = IN_DOUBT if number >= last_batch else NOT_SENT
        else:
            outcome = STORED
        found.append(Zone(end, frozenset((outcome,))))
    return found


def expected(zones: list[Zone], byte: int) -> set[Outcome]:
    """Between two zones it may be as in either of them."""
    starts = [0, *(zone.end for zone in zones)]
    return set().union(*(z.outcomes for start, z in zip(starts, zones, strict=False) if start <= byte <= z.end))


def check(session: Session, fault: Fault, allowed: set[Outcome], where: object) -> None:
    assert session.outcome in allowed, where
    # The truth, as the acceptor knows it.
    assert len(session.kept) <= 1, where
    assert session.outcome is not STORED or session.kept, where
    assert session.outcome is not NOT_SENT or not session.kept, where
    assert (session.error is None) is (session.outcome is STORED), where
    assert session.error is None or isinstance(session.error, ERRORS[type(fault)]), where
    assert isinstance(session.acceptor_error, AssociationError | None), where
    if isinstance(fault, Stall):
        assert session.object_seconds <= ANSWER, where
        assert session.requestor_seconds <= session.object_seconds + RELEASE, where
        assert session.acceptor_seconds <= ACCEPTOR, where
    else:
        assert max(session.requestor_seconds, session.acceptor_seconds) <= AT_ONCE, where


def way_of(direction: Direction, at_the_requestor: bool) -> Direction:
    """As the requestor sees it."""
    return SENDING if (direction is SENDING) is at_the_requestor else RECEIVING


@pytest.mark.fault_row(43, 44, 45, 78)
@FAULTS
@DIRECTIONS
@AT_THE_REQUESTOR
def test_a_small_object(at_the_requestor: bool, direction: Direction, fault: type[Fault]) -> None:
    file = make_instance_file(2)
    table = zones(Session(file), way_of(direction, at_the_requestor))
    seen = set()
    for byte in range(table[-1].end):
        session, failing = Session(file), fault(byte, direction=direction)  # type: ignore[call-arg]
        session.run(failing, at_the_requestor=at_the_requestor)
        check(session, failing, expected(table, byte), byte)
        seen.add(session.outcome)
    assert seen == {NOT_SENT, IN_DOUBT, STORED}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.fault_row(43, 44, 45, 78)
@FAULTS
@AT_THE_REQUESTOR
def test_an_object_of_many_batches(monkeypatch: pytest.MonkeyPatch, at_the_requestor: bool, fault: type[Fault]) -> None:
    """Nothing is taken before it is read: what is not in the last batch is not sent. Every byte around the headers."""
    monkeypatch.setattr(outgoing, "POOL_BUFFER_SIZE", PIECE)
    monkeypatch.setattr(writer, "POOL_BUFFER_SIZE", PIECE)
    monkeypatch.setattr(writer, "WRITTEN_TOGETHER", 1)
    file, settings = make_instance_file(2 * PIECE + 300), AssociationSettings(send_pdu_length=PDU_LENGTH)
    make = functools.partial(Session, file, backpressure=True, settings=settings)
    direction = SENDING if at_the_requestor else RECEIVING
    table = zones(make(), SENDING, PIECE // (PDU_LENGTH - 6))
    starts = [0, *(zone.end for zone in table[:-1])]
    near = {byte for start in starts for byte in range(max(0, start - 2), start + 14)}
    seen = set()
    for byte in sorted({*near, *range(0, table[-1].end, 17)} & {*range(table[-1].end)}):
        session, failing = make(), fault(byte, direction=direction)  # type: ignore[call-arg]
        session.run(failing, at_the_requestor=at_the_requestor)
        allowed = expected(table, byte)
        if fault is HalfClose and NOT_SENT in allowed and byte >= starts[1]:
            allowed.add(IN_DOUBT)  # it goes on writing, to nobody
        check(session, failing, allowed, byte)
        seen.add(session.outcome)
    assert seen == {NOT_SENT, IN_DOUBT, STORED}
