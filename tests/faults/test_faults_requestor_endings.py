"""Peers that end an association, well or not: rows 37 to 44 of the fault table."""

from __future__ import annotations

import io
import socket

import attrs
import pytest
import trio
import trio.testing

from support.encounter import BLOCKING, meet
from trio_dicom import (
    AssociationAborted,
    AssociationClosed,
    AssociationSettings,
    ConnectionLost,
    CStoreSCU,
    InvalidObject,
    Outcome,
    TrioDicomError,
    UnexpectedPDU,
)
from trio_dicom.protocol.command import CStoreRSP
from trio_dicom.protocol.other_services import NEventReportRQ
from trio_dicom.protocol.pdu import Abort, ReleaseRP, ReleaseRQ
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    instead_of_response,
    loopback_streams,
    make_instance_file,
    message,
    response_to,
    scripted_link,
    socket_pair_streams,
)

NOT_SENT, IN_DOUBT, STORED = Outcome.NOT_SENT, Outcome.IN_DOUBT, Outcome.STORED
LARGE = 5 << 20  # of which no more than a batch or two fit into what lies between


def success(context_id, request):
    return message(context_id, response_to(request))


# --- 37 to 41: release ----------------------------------------------------------------------------------------------


@pytest.mark.fault_row(37)
async def test_fault37_release_in_place_of_the_response(autojump_clock):
    met = await meet(instead_of_response(ReleaseRQ()), files=2)
    assert type(met.error) is AssociationClosed
    assert met.error.in_doubt
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert met.pdus[-1] == ReleaseRP()


@pytest.mark.fault_row(37)
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
    if streams is socket_pair_streams:
        assert met.aborted_with == (0, 0)


@pytest.mark.fault_row(37)
async def test_fault37_release_when_idle(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.send(ReleaseRQ())
        assert await peer.receive_pdu() == ReleaseRP()

    async with scripted_link(script) as association:
        await association.wait_closed()
        assert association.failure is None
        with pytest.raises(AssociationClosed) as caught:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file()))
        assert not caught.value.in_doubt


@pytest.mark.fault_row(38)
@pytest.mark.parametrize("unsolicited", [False, True], ids=["fault38", "fault38-with_data_before"])
async def test_release_collision(unsolicited, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.answer(*(await peer.receive_message())[:2])
        assert await peer.receive_pdu() == ReleaseRQ()
        if unsolicited:
            await peer.send(message(1, NEventReportRQ(1, SOPClass.CT, "1.2.3", 1)))
        await peer.send(ReleaseRQ())
        assert await peer.receive_pdu() == ReleaseRP()
        await peer.send(ReleaseRP())
        assert await peer.receive_pdu() is None

    start = trio.current_time()
    met = await meet(script)
    assert met.outcome is STORED
    assert met.association.failure is None
    assert trio.current_time() - start < 1


@pytest.mark.fault_row(39)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(message(1, NEventReportRQ(1, SOPClass.CT, "1.2.3", 1)), id="fault39-request"),
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


@pytest.mark.fault_row(39)
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


@pytest.mark.fault_row(40)
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


@pytest.mark.fault_row(41)
async def test_fault41_an_answer_to_no_release(autojump_clock):
    (await meet(instead_of_response(ReleaseRP()))).check_violation(UnexpectedPDU, 2, 2)


@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, socket_pair_streams], ids=["stream", "socket"])
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


@pytest.mark.parametrize("file", [make_instance_file(number=2), b"no DICOM"], ids=["sendable", "not_sendable"])
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
        nursery.start_soon(send, association, io.BytesIO(make_instance_file()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(send, association, Slow(file))
        await trio.testing.wait_all_tasks_blocked()
    assert results == [True, True if len(file) > 100 else InvalidObject]
    assert association.failure is None
    assert trio.current_time() - start < 5


# --- 42 to 44: abort and loss ---------------------------------------------------------------------------------------

ABORTS = [(0, 0), (0, 5), (2, 0), (2, 1), (2, 2), (2, 4), (2, 5), (2, 6), (1, 3), (255, 255)]


@pytest.mark.fault_row(42)
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


@pytest.mark.fault_row(42)
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


@pytest.mark.fault_row(43)
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


@pytest.mark.fault_row(43)
async def test_fault43_the_connection_ends_after_the_acceptance(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.close()

    async with scripted_link(script) as association:
        await association.wait_closed()
        with pytest.raises(ConnectionLost) as caught:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file()))
        assert not caught.value.in_doubt
    assert type(association.failure) is ConnectionLost


@pytest.mark.fault_row(43)
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


@pytest.mark.fault_row(43)
async def test_fault43_half_closed(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await peer.stream.send_eof()
        await peer.hold()

    met = await meet(script, streams=socket_pair_streams())
    assert type(met.error) is ConnectionLost
    assert met.outcome is IN_DOUBT


@pytest.mark.fault_row(44)
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

    met = await meet(script, files=2, streams=await loopback_streams())
    assert met.outcomes == ([STORED, IN_DOUBT] if cut is None else [IN_DOUBT, NOT_SENT])
    assert {type(error) for error in met.errors if error} == {ConnectionLost}
