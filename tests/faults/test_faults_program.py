"""What a program does: cancels twice, is interrupted, has several tasks, a clock that jumps: rows 113, 114, 117."""

from __future__ import annotations

import ast
import io
import itertools
import pathlib
import time

import pytest
import trio
import trio.testing

import trio_dicom
from support.acceptor_link import FILE, data_set_of, memory_server, store_rq
from trio_dicom import (
    AssociationSettings,
    CStoreSCU,
    OperationTimeout,
    Timeouts,
    open_association,
)
from trio_dicom.protocol.pdu import Abort, AssociateRQ
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    make_instance_file,
    scripted_link,
    scripted_listener,
    socket_pair_streams,
)
from trio_dicom.uids import VERIFICATION

LARGE = 5 << 20


async def hold(peer: ScriptedPeer) -> None:
    await peer.accept()
    await peer.hold()


async def slow(peer: ScriptedPeer) -> None:
    await peer.accept()
    while await peer.receive_pdu() is not None:  # noqa: ASYNC110  # it is slow
        await trio.sleep(0.01)


async def deaf(peer: ScriptedPeer) -> None:
    """It reads no more than the request for the association."""
    await peer.accept()
    await trio.sleep(3600)


def peer_at_the_end_of(streams, script, nursery):
    """A `connect` for `open_association`, and the peer."""
    ours, theirs = streams
    peer = ScriptedPeer(theirs)

    async def follow() -> None:
        try:
            await script(peer)
        finally:
            with trio.CancelScope(shield=True):
                await peer.close()

    async def connect():
        await trio.lowlevel.checkpoint()
        nursery.start_soon(follow)
        return ours

    return connect, ours, peer


async def check_closed(stream) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some(1)


# --- 113: cancelled twice, at once, interrupted -----------------------------------------------------------------------


@pytest.mark.fault_row(113)
@pytest.mark.parametrize("script", [hold, slow, deaf], ids=["fault113-reads", "fault113-slow", "fault113-deaf"])
@pytest.mark.parametrize("streams", [trio.testing.lockstep_stream_pair, socket_pair_streams], ids=["stream", "socket"])
@pytest.mark.parametrize("later", [0.0, 0.2, 0.9])
async def test_cancelled_again_while_it_cleans_up(script, streams, later, autojump_clock):
    async with trio.open_nursery() as nursery:
        connect, ours, peer = peer_at_the_end_of(streams(), script, nursery)
        with trio.move_on_at(1 + later) as outer, trio.move_on_at(1) as inner:
            async with open_association("PACS@memory:104", [SOPClass.CT], connect=connect) as association:
                await CStoreSCU(association).send(io.BytesIO(make_instance_file(LARGE)))
        assert inner.cancelled_caught or outer.cancelled_caught
        assert trio.current_time() <= 3.1
        assert not association.is_open
        await check_closed(ours)
        if script is deaf:
            nursery.cancel_scope.cancel()
    if script is not deaf and streams is socket_pair_streams:
        assert peer.pdus[-1] == Abort(0, 0)


@pytest.mark.fault_row(113)
async def test_fault113_no_time_at_all(autojump_clock):
    """Nothing was done; what was open before stays usable."""
    async with trio.open_nursery() as nursery:
        connect, _, peer = peer_at_the_end_of(trio.testing.memory_stream_pair(), hold, nursery)
        with trio.move_on_after(0) as scope:
            async with open_association("PACS@memory:104", [SOPClass.CT], connect=connect):
                raise AssertionError("it had time")
        assert scope.cancelled_caught
        assert trio.current_time() <= 1.1
        assert peer.pdus == []
        nursery.cancel_scope.cancel()

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.serve_requests()

    async with scripted_link(script, [SOPClass.CT, VERIFICATION]) as association:
        for call in (CStoreSCU(association).send, lambda _: association.echo()):
            with trio.move_on_after(0) as scope:
                await call(io.BytesIO(make_instance_file()))
            assert scope.cancelled_caught
        assert association.is_open
        assert (await CStoreSCU(association).send(io.BytesIO(make_instance_file()))).is_success
        with trio.move_on_after(0):
            await association.aclose()
        assert not association.is_open


class SiblingError(Exception):
    pass


@pytest.mark.fault_row(113)
@pytest.mark.parametrize("error", [SiblingError(), KeyboardInterrupt()], ids=["fault113-crash", "fault113-interrupt"])
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, socket_pair_streams], ids=["memory", "socket"])
async def test_a_neighbour_that_raises(error, streams, autojump_clock):
    """Its exception leaves by the caller's nursery, and nothing of ours with it."""

    async def neighbour() -> None:
        await trio.sleep(1)
        raise error

    async with trio.open_nursery() as peers:
        connect, ours, peer = peer_at_the_end_of(streams(), hold, peers)
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
            async with (
                open_association("PACS@memory:104", [SOPClass.CT], connect=connect) as association,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(neighbour)
                nursery.start_soon(CStoreSCU(association).send, io.BytesIO(make_instance_file()))
        assert caught.value.exceptions == (error,)
        assert trio.current_time() <= 2.1
        await check_closed(ours)
    assert isinstance(peer.pdus[0], AssociateRQ)
    assert peer.pdus[-1] == Abort(0, 0)


@pytest.mark.fault_row(113)
async def test_fault113_a_handler_that_is_interrupted(autojump_clock):
    """It is the program that is to stop, and not a request that failed."""

    async def handler(instance):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        async with memory_server(handler, bystander=False) as server:
            peer = await server.associate()
            await peer.send_message(1, store_rq(FILE), b"xx")
            assert await peer.receive_pdu() == Abort(0, 0)
            await trio.sleep_forever()


# --- 114: several tasks ---------------------------------------------------------------------------------------------


@pytest.mark.fault_row(114)
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, socket_pair_streams],
                         ids=["fault114-memory", "fault114-socket"])  # fmt: skip
@pytest.mark.parametrize("window", [1, 3])
async def test_tasks_that_send_at_once(streams, window, autojump_clock):
    """Each object comes whole: the peer would see any fragment between those of another."""
    files = [make_instance_file(100_000 * number, number=number) for number in range(1, 30)]
    came, stored = [], []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=window)
        for _ in files:
            context_id, request, data = await peer.receive_message()
            came.append(data)
            await peer.answer(context_id, request)

    async def send(file: bytes) -> None:
        stored.append((await CStoreSCU(association).send(io.BytesIO(file))).is_success)

    settings = AssociationSettings(operations_window=window)
    link = scripted_link(script, settings=settings, streams=streams())
    async with link as association, trio.open_nursery() as nursery:
        for file in files:
            nursery.start_soon(send, file)
    assert stored == [True] * len(files)
    assert sorted(came, key=len) == [data_set_of(file) for file in files]
    assert association.failure is None


# --- 117: the wall clock --------------------------------------------------------------------------------------------


@pytest.mark.fault_row(117)
async def test_fault117_a_wall_clock_that_jumps(monkeypatch):
    """Over real sockets and in real time: deadlines pass, and not before."""
    now = time.time()
    jumps = itertools.cycle([now + 1e9, now - 1e9, 0.0, now])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps) * 1e9))
    settings = AssociationSettings(timeouts=Timeouts(release=0.2, abort_linger=0.1, abort_grace=0.1))

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request)
        await peer.hold()

    with trio.fail_after(20):
        async with (
            scripted_listener(script) as listener,
            open_association(listener.address, [VERIFICATION], settings=settings) as association,
        ):
            assert 0 < await association.echo() < 20
            with pytest.raises(OperationTimeout):
                await association.echo(timeout=0.2)


@pytest.mark.fault_row(117)
def test_fault117_only_what_is_kept_or_shown_has_the_wall_clock():
    """The times of a ledger, and of a report: nothing that waits."""
    root = pathlib.Path(trio_dicom.__file__).parent
    asked = set()
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_bytes())
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {f"time.{name.name}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                  and node.module == "time" for name in node.names}  # fmt: skip
        if names & {"time.time", "time.time_ns", "datetime.datetime.now", "datetime.now", "time.localtime"}:
            asked.add(path.relative_to(root).as_posix())
    assert asked == {"cli/ledger_report.py", "cli/receive.py", "sender/ledger.py", "sender/ledger_file.py"}
