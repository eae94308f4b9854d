"""What happens between two steps of the scheduler, or to two tasks at once."""

from __future__ import annotations

import io
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationError,
    CStoreSCU,
    InvalidResponse,
    Outcome,
    Peer,
    RetryPolicy,
    SenderOptions,
    Timeouts,
    TLSError,
    open_progress_channel,
    open_sender,
    wrap_client_stream,
)
from trio_dicom.association.dialling import dial
from trio_dicom.protocol.pdu import Abort, PDataTF
from trio_dicom.testing import ScriptedPeer, SOPClass, make_instance_file, scripted_link, socket_pair_streams
from trio_dicom.uids import VERIFICATION


@pytest.mark.parametrize("steps", [*range(8)] * 6)  # the order in which trio runs what is ready is random
async def test_an_abort_that_meets_the_writer(steps: int, autojump_clock: trio.testing.MockClock) -> None:
    """Whatever the step at which it comes: an object that the peer gets whole is in doubt."""
    got: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        pdu = await peer.receive_pdu()
        while isinstance(pdu, PDataTF):
            got.extend(len(pdv.data) for pdv in pdu.pdvs if pdv.is_last and not pdv.is_command)
            pdu = await peer.receive_pdu()

    failures: list[AssociationError] = []
    async with scripted_link(script, streams=socket_pair_streams()) as association:
        delivery = CStoreSCU(association).delivery(io.BytesIO(make_instance_file(1000)))

        async def send() -> None:
            try:
                await delivery.run()
            except AssociationError as failure:
                failures.append(failure)

        async def abort() -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await association.abort()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(abort)
    assert failures[0].in_doubt or not got
    assert failures[0].in_doubt == delivery.in_doubt


async def test_two_close_at_once_while_an_operation_is_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await trio.sleep(0.5)
        await peer.answer(context_id, request)
        await peer.serve_requests()

    async with scripted_link(script) as association, trio.open_nursery() as nursery:
        nursery.start_soon(CStoreSCU(association).send, io.BytesIO(make_instance_file()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(association.aclose)
        nursery.start_soon(association.aclose)
    assert trio.current_time() < 1


async def test_an_echo_that_is_refused_ends_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, 0x0122)
        await peer.serve_requests()

    async with scripted_link(script, [SOPClass.CT, VERIFICATION]) as association:
        with pytest.raises(InvalidResponse, match="0x0122"):
            await association.echo()
        assert (await CStoreSCU(association).send(io.BytesIO(make_instance_file()))).is_success


async def test_two_observers_of_one_progress_channel(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = open_progress_channel()
    ended: list[int] = []

    async def observe() -> None:
        async for _ in receive:
            pass
        ended.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(observe)
        nursery.start_soon(observe)
        await trio.testing.wait_all_tasks_blocked()
        send.close()
    assert len(ended) == 2


async def test_an_object_refused_in_mid_write_reports_its_end_last(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request = await peer.receive_command()
        await peer.answer(context_id, request, 0xA700)

    send, receive = trio.open_memory_channel[object](1000)
    streams = trio.testing.lockstep_stream_pair()
    async with scripted_link(script, streams=streams) as association:
        file = io.BytesIO(make_instance_file(3 << 20))
        response = await CStoreSCU(association).send(file, progress=send)
    send.close()
    values = [value async for value in receive]
    assert response.status == 0xA700
    assert [value.is_complete for value in values].index(True) == len(values) - 1


async def test_a_closed_nursery_leaves_no_stream_open(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        pass
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)
    async with trio.open_nursery() as others:
        others.start_soon(peer.serve)
        with pytest.raises(RuntimeError):
            await wrap_client_stream(nursery, ours, [SOPClass.CT])
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        others.cancel_scope.cancel()
    assert peer.pdus[-1] == Abort(0, 0)


async def test_a_server_name_that_is_none_leaves_no_socket_open() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: stream.receive_some(1), 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(TLSError, match="server name"):
            await dial(Peer("PACS", "127.0.0.1", port), Timeouts(), ssl.create_default_context(), ".pacs")
        nursery.cancel_scope.cancel()


def test_clean_up_is_bounded() -> None:
    for name in ("abort_grace", "abort_linger"):
        with pytest.raises(ValueError, match="finite"):
            Timeouts(**{name: float("inf")})


async def test_a_later_attempt_does_not_take_back_the_doubt(tmp_path: Path) -> None:
    """The peer had all of the object in the first one, and aborts in the middle of the second."""
    attempts = 0

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal attempts
        attempts += 1
        peer = ScriptedPeer(stream)
        await peer.accept()
        if attempts == 1:
            await peer.receive_message()
        else:
            await peer.receive_command()
            await peer.send(Abort(2, 0))
        await stream.aclose()

    path = tmp_path / "a.dcm"
    path.write_bytes(make_instance_file(3 << 20))
    options = SenderOptions(retry=RetryPolicy(max_attempts=2, base_delay=0.01))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handler, 0)
        peer = Peer("PACS", "127.0.0.1", listeners[0].socket.getsockname()[1])
        async with open_sender(peer, options=options) as sender:
            report = await sender.send(path)
        nursery.cancel_scope.cancel()
    assert (report.outcome, report.attempts) == (Outcome.IN_DOUBT, 2)
