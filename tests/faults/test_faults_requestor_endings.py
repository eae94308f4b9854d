"""Peers that end, stall or flood an association: rows 37 to 50 of the fault table."""

from __future__ import annotations

import io
import random
import socket
import tracemalloc

import attrs
import pytest
import trio
import trio.testing

from support.encounter import BLOCKING, instead_of_accept, instead_of_response, meet, unix_sockets
from support.scripted import (
    CT,
    ScriptedPeer,
    acceptance,
    encoded,
    make_data_set_file,
    message,
    response_to,
    scripted_link,
    whole_pdus,
)
from trio_dicom import (
    AssociationAborted,
    AssociationClosed,
    AssociationSettings,
    AssociationTimeout,
    ConnectionLost,
    CStoreOptions,
    CStoreSCU,
    InvalidObject,
    InvalidPDU,
    OperationTimeout,
    Outcome,
    Timeouts,
    TrioDicomError,
    UnexpectedPDU,
    UnrecognisedPDU,
)
from trio_dicom.protocol.command import CStoreRSP, NEventReportRQ
from trio_dicom.protocol.pdu import Abort, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ

NOT_SENT, IN_DOUBT, STORED = Outcome.NOT_SENT, Outcome.IN_DOUBT, Outcome.STORED
LARGE = 5 << 20  # of which no more than a batch or two fit into what lies between


def success(context_id, request):
    return message(context_id, response_to(request))


# --- 37 to 41: release ----------------------------------------------------------------------------------------------


async def test_fault37_release_in_place_of_the_response(autojump_clock):
    met = await meet(instead_of_response(ReleaseRQ()), files=2)
    assert type(met.error) is AssociationClosed
    assert met.error.in_doubt
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert met.pdus[-1] == ReleaseRP()


@BLOCKING
@pytest.mark.parametrize("size", [3 << 19, LARGE], ids=["fault37-last_part_waiting", "fault37-more_to_be_read"])
async def test_release_in_the_middle_of_a_message(size, streams, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_command()
        await peer.receive_pdv()
        await peer.send(ReleaseRQ())
        await peer.hold()

    met = await meet(script, files=2, size=size, streams=streams())
    assert type(met.error) is AssociationAborted
    assert not met.error.by_peer
    assert met.outcomes == [NOT_SENT, NOT_SENT]
    assert met.data_sets_completed == 0
    if streams is unix_sockets:
        assert met.aborted_with == (0, 0)


async def test_fault37_release_when_idle(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.send(ReleaseRQ())
        assert await peer.receive_pdu() == ReleaseRP()

    async with scripted_link(script) as association:
        await association.wait_closed()
        assert association.failure is None
        with pytest.raises(AssociationClosed) as caught:
            await CStoreSCU(association).send(io.BytesIO(make_data_set_file()))
        assert not caught.value.in_doubt


@pytest.mark.parametrize("unsolicited", [False, True], ids=["fault38", "fault38-with_data_before"])
async def test_release_collision(unsolicited, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.answer(*(await peer.receive_message())[:2])
        assert await peer.receive_pdu() == ReleaseRQ()
        if unsolicited:
            await peer.send(message(1, NEventReportRQ(1, CT, "1.2.3", 1)))
        await peer.send(ReleaseRQ())
        assert await peer.receive_pdu() == ReleaseRP()
        await peer.send(ReleaseRP())
        assert await peer.receive_pdu() is None

    start = trio.current_time()
    met = await meet(script)
    assert met.outcome is STORED
    assert met.association.failure is None
    assert trio.current_time() - start < 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(message(1, NEventReportRQ(1, CT, "1.2.3", 1)), id="fault39-request"),
        pytest.param(message(1, CStoreRSP(1, 0)), id="fault39-stale_response"),
        pytest.param(message(1, attrs.evolve(CStoreRSP(1, 0), has_data_set=True), bytes(99)), id="fault39-with_data"),
    ],
)
async def test_data_while_the_release_is_awaited(data, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.answer(*(await peer.receive_message())[:2])
        assert await peer.receive_pdu() == ReleaseRQ()
        await peer.send(data)
        await peer.send(ReleaseRP())
        assert await peer.receive_pdu() is None

    met = await meet(script)
    assert met.outcome is STORED
    assert met.association.failure is None


async def test_fault39_data_without_end_while_the_release_is_awaited(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        assert await peer.receive_pdu() == ReleaseRQ()
        while True:
            await peer.send(message(1, CStoreRSP(1, 0)))
            await trio.sleep(0.1)

    start = trio.current_time()
    async with scripted_link(script):
        pass
    assert 10 <= trio.current_time() - start <= 13.1


async def test_fault40_no_answer_to_the_release(autojump_clock, caplog):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.answer(*(await peer.receive_message())[:2])
        await peer.hold()

    start = trio.current_time()
    met = await meet(script)
    assert met.outcome is STORED
    assert met.pdus[-2:] == [ReleaseRQ(), Abort(0, 0)]
    assert 10 <= trio.current_time() - start <= 11.1
    assert "release" in caplog.text


async def test_fault41_an_answer_to_no_release(autojump_clock):
    (await meet(instead_of_response(ReleaseRP()))).check_violation(UnexpectedPDU, 2, 2)


@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, unix_sockets], ids=["stream", "socket"])
async def test_a_peer_that_closes_with_its_answer_to_the_release(streams, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        assert await peer.receive_pdu() == ReleaseRQ()
        await peer.send(ReleaseRP())
        await peer.close()

    async with scripted_link(script, streams=streams()) as association:
        pass
    assert association.failure is None


class Slow(trio.abc.ReceiveStream):
    """A stream with a DICOM file that comes after a second."""

    def __init__(self, file: bytes) -> None:
        self.file = file

    async def receive_some(self, max_bytes=None):
        await trio.sleep(1)
        file, self.file = self.file, b""
        return file

    async def aclose(self):
        pass


@pytest.mark.parametrize("file", [make_data_set_file(number=2), b"no DICOM"], ids=["sendable", "not_sendable"])
async def test_a_release_while_an_object_is_still_being_opened(file, autojump_clock):
    results = []

    async def send(association, source):
        try:
            results.append((await CStoreSCU(association).send(source)).is_success)
        except TrioDicomError as error:
            results.append(type(error))

    settings = AssociationSettings(operations_window=2)

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=2)
        await peer.serve_requests()

    start = trio.current_time()
    async with trio.open_nursery() as nursery, scripted_link(script, settings=settings) as association:
        nursery.start_soon(send, association, io.BytesIO(make_data_set_file()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(send, association, Slow(file))
        await trio.testing.wait_all_tasks_blocked()
    assert results == [True, True if len(file) > 100 else InvalidObject]
    assert association.failure is None
    assert trio.current_time() - start < 5


# --- 42 to 44: abort and loss ---------------------------------------------------------------------------------------

ABORTS = [(0, 0), (0, 5), (2, 0), (2, 1), (2, 2), (2, 4), (2, 5), (2, 6), (1, 3), (255, 255)]


@BLOCKING
@pytest.mark.parametrize("abort", ABORTS, ids=lambda abort: "fault42-{}-{}".format(*abort))
async def test_an_abort_while_we_are_blocked_in_a_write(abort, streams, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_command()
        await peer.send(Abort(*abort))
        await trio.sleep(5)  # and reads nothing

    met = await meet(script, files=3, size=LARGE, streams=streams())
    assert [type(error) for error in met.errors] == [AssociationAborted] * 3
    assert all((error.source, error.reason, error.by_peer) == (*abort, True) for error in met.errors)
    assert met.outcomes == [NOT_SENT] * 3
    assert met.seconds == 0
    assert met.data_sets_completed == 0


@BLOCKING
async def test_fault42_an_abort_while_the_last_batch_is_written(streams, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_command()
        await peer.receive_pdv()
        await peer.send(Abort(0, 0))

    met = await meet(script, files=2, size=200_000, streams=streams())
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert type(met.error) is AssociationAborted


@pytest.mark.parametrize("cut", [1, 5, 6, 11, 12, 40, -1], ids="fault43-{}".format)
async def test_the_connection_ends_inside_a_response(cut, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.send(success(context_id, request)[:cut])
        await peer.close()

    met = await meet(script, files=2)
    assert [type(error) for error in met.errors] == [ConnectionLost] * 2
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert met.seconds == 0


async def test_fault43_the_connection_ends_after_the_acceptance(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.close()

    async with scripted_link(script) as association:
        await association.wait_closed()
        with pytest.raises(ConnectionLost) as caught:
            await CStoreSCU(association).send(io.BytesIO(make_data_set_file()))
        assert not caught.value.in_doubt
    assert type(association.failure) is ConnectionLost


async def test_fault43_the_connection_ends_in_place_of_the_release(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.answer(*(await peer.receive_message())[:2])
        assert await peer.receive_pdu() == ReleaseRQ()
        await peer.close()

    start = trio.current_time()
    met = await meet(script)
    assert met.outcome is STORED
    assert trio.current_time() == start


async def test_fault43_half_closed(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await peer.stream.send_eof()
        await peer.hold()

    met = await meet(script, streams=unix_sockets())
    assert type(met.error) is ConnectionLost
    assert met.outcome is IN_DOUBT


async def loopback() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        host, port = listener.socket.getsockname()
        ours = await trio.open_tcp_stream(host, port)
        return ours, await listener.accept()


@pytest.mark.parametrize("cut", [0, 3, 20, None], ids=["in_place_of", "in_the_header", "in_the_body", "after"])
async def test_fault44_reset_around_a_response(cut):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.send(success(context_id, request)[:cut])
        if cut is None:
            await peer.receive_pdv()  # of the second, so that the first was answered
        peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await peer.close()

    met = await meet(script, files=2, streams=await loopback())
    assert met.outcomes == ([STORED, IN_DOUBT] if cut is None else [IN_DOUBT, NOT_SENT])
    assert {type(error) for error in met.errors if error} == {ConnectionLost}


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
        stored.append((await CStoreSCU(association).send(io.BytesIO(make_data_set_file(number=number)))).is_success)

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


async def test_fault47_a_dripping_acceptance(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await drip(peer, encoded(acceptance(await peer.receive_pdu())), 29)

    met = await meet(script)
    assert type(met.error) is AssociationTimeout
    assert 30 <= met.seconds <= 31.1


async def test_fault47_a_dripping_response(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await drip(peer, success(context_id, request), 29)

    met = await meet(script)
    assert isinstance(met.error, OperationTimeout | AssociationTimeout)
    assert met.outcome is IN_DOUBT
    assert 30 <= met.seconds <= 31.1


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


async def test_fault47_a_pdu_that_drips_when_idle(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await drip(peer, encoded(Abort()), 29)

    async with scripted_link(script) as association:
        start = trio.current_time()
        await association.wait_closed()
        assert 30 <= trio.current_time() - start <= 31.1
    assert type(association.failure) is AssociationTimeout


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
        self.head = make_data_set_file(0)[:-12] + b"\xe0\x7f\x10\x00OW\0\0" + (2 << 30).to_bytes(4, "little")
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


async def test_fault48_a_peer_that_never_reads_over_tcp():
    error, _, peak = await offer_two_gigabytes(await loopback(), timeout=0.3, settings=FAST)
    assert type(error) is OperationTimeout
    assert not error.in_doubt
    assert peak < 32 << 20  # with what the peer's end of the socket held


async def test_fault48_the_abort_of_a_peer_that_never_reads_over_tcp():
    start = trio.current_time()
    error, _, peak = await offer_two_gigabytes(await loopback(), timeout=30, settings=FAST, abort=Abort(2, 0))
    assert type(error) is AssociationAborted
    assert (error.source, error.reason, error.by_peer) == (2, 0, True)
    assert not error.in_doubt
    assert trio.current_time() - start < 5
    assert peak < 32 << 20


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


async def test_fault50_the_answer_to_a_request_that_has_timed_out(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        assert await peer.receive_pdu() == Abort(0, 0)
        await peer.answer(context_id, request)

    met = await meet(script, files=2)
    assert [type(error) for error in met.errors] == [OperationTimeout] * 2
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert met.aborted_with == (0, 0)


async def test_fault50_the_answer_to_a_request_whose_caller_has_gone_and_that_has_timed_out(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        assert await peer.receive_pdu() == Abort(0, 0)
        await peer.answer(context_id, request)

    start = trio.current_time()
    async with scripted_link(script) as association:
        with trio.move_on_after(5) as scope:
            await CStoreSCU(association).send(io.BytesIO(make_data_set_file()))
        assert scope.cancelled_caught
        assert association.is_open
        await association.wait_closed()
    assert type(association.failure) is OperationTimeout
    assert trio.current_time() - start <= 5 + 30 + 1.1


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
