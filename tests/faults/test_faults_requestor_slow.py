"""Peers that stall, drip, do not read or do not stop: rows 45 to 50 of the fault table."""

from __future__ import annotations

import io
import random
import tracemalloc

import attrs
import pytest
import trio
import trio.testing

from support.encounter import BLOCKING, meet
from trio_dicom import (
    AssociationAborted,
    AssociationSettings,
    AssociationTimeout,
    CStoreOptions,
    CStoreSCU,
    InvalidPDU,
    OperationTimeout,
    Outcome,
    Timeouts,
    TrioDicomError,
    UnrecognisedPDU,
)
from trio_dicom.protocol.command import CStoreRSP
from trio_dicom.protocol.pdu import Abort, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.testing import (
    ScriptedPeer,
    acceptance,
    encoded,
    instead_of_accept,
    loopback_streams,
    make_instance_file,
    message,
    response_to,
    scripted_link,
    whole_pdus,
)

NOT_SENT, IN_DOUBT, STORED = Outcome.NOT_SENT, Outcome.IN_DOUBT, Outcome.STORED
LARGE = 5 << 20  # of which no more than a batch or two fit into what lies between


def success(context_id, request):
    return message(context_id, response_to(request))


# --- 45 to 47: slow peers -------------------------------------------------------------------------------------------


async def sizes_of_a_session() -> tuple[int, int]:
    """The bytes of the acceptance and of the response below."""
    sizes = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.receive_pdu()
        sizes.append(len(encoded(acceptance(request))))
        await peer.send(acceptance(request))
        context_id, request, _ = await peer.receive_message()
        sizes.append(len(success(context_id, request)))
        await peer.answer(context_id, request)

    await meet(script)
    return sizes[0], sizes[1]


@pytest.mark.fault_row(45)
async def test_fault45_stalls_at_every_byte(autojump_clock):
    ac, rsp = await sizes_of_a_session()
    rp = 10
    places = [(ac_at, None, None) for ac_at in range(ac)]
    places += [(None, rsp_at, None) for rsp_at in range(rsp)]
    places += [(None, None, rp_at) for rp_at in range(rp)]
    assert len(places) > 250
    for place in places:
        await stall(*place)


async def stall(ac_at: int | None, rsp_at: int | None, rp_at: int | None) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.receive_pdu()
        await peer.send(encoded(acceptance(request))[:ac_at])
        if ac_at is None:
            context_id, request, _ = await peer.receive_message()
            await peer.send(success(context_id, request)[:rsp_at])
            if rsp_at is None:
                assert await peer.receive_pdu() == ReleaseRQ()
                await peer.send(encoded(ReleaseRP())[:rp_at])
        await peer.hold()

    start = trio.current_time()
    met = await meet(script)
    seconds = trio.current_time() - start
    where = (ac_at, rsp_at, rp_at)
    assert met.aborted_with == (0, 0), where
    if rp_at is not None:
        assert met.outcome is STORED, where
        assert 10 <= seconds <= 11.1, where
    else:
        assert 30 <= met.seconds <= 31.1, where
        expected = (AssociationTimeout,) if ac_at is not None else (OperationTimeout, AssociationTimeout)
        assert type(met.error) in expected, where
        assert met.outcome is (NOT_SENT if ac_at is not None else IN_DOUBT), where


@attrs.define(eq=False)
class Segmented(trio.abc.Stream):
    """A stream that gives what it has in pieces of `size` bytes, as if the network had cut it so."""

    stream: trio.abc.Stream
    size: int

    async def receive_some(self, max_bytes=None):
        return await self.stream.receive_some(self.size)

    async def send_all(self, data):
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self):
        await self.stream.aclose()


@pytest.mark.fault_row(46)
@pytest.mark.parametrize("size", [1, 2, 5, 7, 100_000], ids="fault46-{}".format)
async def test_segments_of_any_size(size, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=3)
        requests = [await peer.receive_message() for _ in range(3)]
        answers = [success(context_id, request) for context_id, request, _ in requests]
        await peer.send(*answers, ReleaseRQ())

    ours, theirs = trio.testing.memory_stream_pair()
    settings = AssociationSettings(operations_window=3)
    stored = []

    async def send(number):
        stored.append((await CStoreSCU(association).send(io.BytesIO(make_instance_file(number=number)))).is_success)

    async with scripted_link(script, settings=settings, streams=(Segmented(ours, size), theirs)) as association:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(send, number)
        await association.wait_closed()
    assert stored == [True] * 3
    assert association.failure is None


async def drip(peer: ScriptedPeer, data: bytes, seconds: float) -> None:
    for byte in data:
        await peer.send(bytes((byte,)))
        await trio.sleep(seconds)


@pytest.mark.fault_row(47)
async def test_fault47_a_dripping_acceptance(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await drip(peer, encoded(acceptance(await peer.receive_pdu())), 29)

    met = await meet(script)
    assert type(met.error) is AssociationTimeout
    assert 30 <= met.seconds <= 31.1


@pytest.mark.fault_row(47)
async def test_fault47_a_dripping_response(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await drip(peer, success(context_id, request), 29)

    met = await meet(script)
    assert isinstance(met.error, OperationTimeout | AssociationTimeout)
    assert met.outcome is IN_DOUBT
    assert 30 <= met.seconds <= 31.1


@pytest.mark.fault_row(47)
async def test_fault47_a_response_of_dripping_fragments(autojump_clock):
    """Each PDU is whole and in time; the response is not."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        for _ in range(100):
            await peer.send(b"\4\0\0\0\0\10\0\0\0\4\1\1\0\0")
            await trio.sleep(20)

    met = await meet(script)
    assert type(met.error) is OperationTimeout
    assert 30 <= met.seconds <= 31.1


@pytest.mark.fault_row(47)
async def test_fault47_a_pdu_that_drips_when_idle(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await drip(peer, encoded(Abort()), 29)

    async with scripted_link(script) as association:
        start = trio.current_time()
        await association.wait_closed()
        assert 30 <= trio.current_time() - start <= 31.1
    assert type(association.failure) is AssociationTimeout


@pytest.mark.fault_row(47)
async def test_fault47_a_dripping_answer_to_the_release(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        assert await peer.receive_pdu() == ReleaseRQ()
        await drip(peer, encoded(ReleaseRP()), 9)

    start = trio.current_time()
    async with scripted_link(script):
        pass
    assert 10 <= trio.current_time() - start <= 13.1


# --- 48 to 50 -------------------------------------------------------------------------------------------------------


class TwoGigabytes(trio.abc.ReceiveStream):
    """A DICOM file of 2 GiB, made while it is read."""

    def __init__(self) -> None:
        self.head = make_instance_file(0)[:-12] + b"\xe0\x7f\x10\x00OW\0\0" + (2 << 30).to_bytes(4, "little")
        self.left = 2 << 30
        self.taken = 0

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        data, self.head = self.head, b""
        if not data:
            data = bytes(min(self.left, 1 << 16))
            self.left -= len(data)
        self.taken += len(data)
        return data

    async def aclose(self):
        pass


async def offer_two_gigabytes(
    streams, *, timeout: float, settings=None, abort: Abort | None = None
) -> tuple[TrioDicomError, int, int]:
    """The error, the bytes taken from the source, and the peak of memory; the peer reads nothing, but may abort."""
    source, failed = TwoGigabytes(), trio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        if abort is not None:
            await peer.receive_command()
            await trio.testing.wait_all_tasks_blocked(0.05)  # until nothing more goes out
            await peer.send(abort)
        await failed.wait()

    tracemalloc.start()
    try:
        async with scripted_link(script, streams=streams, settings=settings) as association:
            with pytest.raises(TrioDicomError) as caught:
                await CStoreSCU(association, CStoreOptions(timeout=timeout)).send(source)
            failed.set()
        return caught.value, source.taken, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.fault_row(48)
@BLOCKING
async def test_fault48_a_peer_that_never_reads(streams, autojump_clock):
    start = trio.current_time()
    error, taken, peak = await offer_two_gigabytes(streams(), timeout=30)
    assert type(error) is OperationTimeout
    assert not error.in_doubt
    assert 30 <= trio.current_time() - start <= 34
    assert taken < 8 << 20
    assert peak < 16 << 20


FAST = AssociationSettings(timeouts=Timeouts(abort_grace=0.1, abort_linger=0.1))


@pytest.mark.fault_row(48)
async def test_fault48_a_peer_that_never_reads_over_tcp():
    error, _, peak = await offer_two_gigabytes(await loopback_streams(), timeout=0.3, settings=FAST)
    assert type(error) is OperationTimeout
    assert not error.in_doubt
    assert peak < 32 << 20  # with what the peer's end of the socket held


@pytest.mark.fault_row(48)
async def test_fault48_the_abort_of_a_peer_that_never_reads_over_tcp():
    start = trio.current_time()
    error, _, peak = await offer_two_gigabytes(await loopback_streams(), timeout=30, settings=FAST, abort=Abort(2, 0))
    assert type(error) is AssociationAborted
    assert (error.source, error.reason, error.by_peer) == (2, 0, True)
    assert not error.in_doubt
    assert trio.current_time() - start < 5
    assert peak < 32 << 20


@pytest.mark.fault_row(49)
@BLOCKING
@pytest.mark.parametrize("first", [0, 4, 9], ids="fault49-first_byte_{}".format)
async def test_garbage_without_end_while_we_send(first, streams, autojump_clock):
    garbage = bytes((first,)) + random.Random(49).randbytes(65_535)

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_command()
        while True:
            await peer.send(garbage)
            await trio.sleep(0.05)

    start = trio.current_time()
    met = await meet(script, size=LARGE, streams=streams())
    assert type(met.error) in (UnrecognisedPDU, InvalidPDU)
    assert met.outcome is NOT_SENT
    assert met.seconds < 1
    assert trio.current_time() - start <= 3
    assert met.data_sets_completed == 0


@pytest.mark.fault_row(50)
async def test_fault50_the_answer_to_a_request_that_has_timed_out(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        assert await peer.receive_pdu() == Abort(0, 0)
        await peer.answer(context_id, request)

    met = await meet(script, files=2)
    assert [type(error) for error in met.errors] == [OperationTimeout, AssociationAborted]
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert met.aborted_with == (0, 0)


@pytest.mark.fault_row(50)
async def test_fault50_the_answer_to_a_request_whose_caller_has_gone_and_that_has_timed_out(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        assert await peer.receive_pdu() == Abort(0, 0)
        await peer.answer(context_id, request)

    start = trio.current_time()
    async with scripted_link(script) as association:
        with trio.move_on_after(5) as scope:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file()))
        assert scope.cancelled_caught
        assert association.is_open
        await association.wait_closed()
    assert type(association.failure) is OperationTimeout
    assert trio.current_time() - start <= 5 + 30 + 1.1


@pytest.mark.fault_row(50)
async def test_fault50_the_answer_together_with_the_deadline(autojump_clock):
    """Whoever is first, it is either a success or in doubt, and never both or neither."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await trio.sleep(30)
        await peer.answer(context_id, request)
        await peer.serve_requests()

    met = await meet(script, files=2)
    assert met.outcomes in ([STORED, STORED], [IN_DOUBT, NOT_SENT])


def test_whole_pdus_sees_a_cut():
    raw = encoded(Abort()) + message(1, CStoreRSP(1, 0))
    assert [type(pdu) for pdu in whole_pdus(raw)] == [Abort, PDataTF]
    with pytest.raises(ValueError, match="cut off after 1"):
        whole_pdus(raw[:-1])


async def test_the_peer_sees_nothing_but_a_request_of_a_caller_who_is_rejected_by_silence(autojump_clock):
    met = await meet(instead_of_accept(b""))
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ, Abort]
