"""Servers that stop, are full, or go on for long: rows 67 and 92 of the fault table, draining and cancellation."""

from __future__ import annotations

import gc
import os
from collections import Counter
from contextlib import suppress

import pytest
import trio
import trio.testing

from support.acceptor_link import (
    CONTEXTS,
    DATA_SET,
    FILE,
    Keeper,
    MemoryServer,
    memory_server,
    open_descriptor_count,
    rest,
    store_rq,
)
from trio_dicom import Admission, AssociationSettings, InstanceFolder, StorageSCP, Timeouts, serve_associations
from trio_dicom.protocol.pdu import Abort, AssociateAC, AssociateRJ, ReleaseRP, ReleaseRQ
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing.cancel_sweep import cancel_at_every_checkpoint
from trio_dicom.testing.scripted_peer import GONE, association_request, encoded, message

FULL = AssociateRJ(2, 3, 2)
PARTIAL = message(1, store_rq(FILE), DATA_SET)[: -len(DATA_SET)]


# --- 67: capacity -----------------------------------------------------------------------------------------------------


async def releases(server, peer):
    assert await peer.release() == ReleaseRP()


async def aborts(server, peer):
    await peer.abort()


async def closes(server, peer):
    await peer.close()


async def closes_in_a_message(server, peer):
    await peer.send(PARTIAL)
    await peer.close()


async def violates(server, peer):
    await peer.send(b"\x09\0\0\0\0\0")
    assert await rest(peer) == [Abort(2, 1)]


async def idles(server, peer):
    assert await rest(peer) == [Abort(0, 0)]


async def is_aborted_by_us(server, peer):
    (association,) = server.server.associations
    await association.abort()
    assert await rest(peer) == [Abort(0, 0)]


async def is_released_by_us(server, peer):
    (association,) = server.server.associations
    async with trio.open_nursery() as nursery:
        nursery.start_soon(association.aclose)
        assert await peer.receive_pdu() == ReleaseRQ()
        await peer.send(ReleaseRP())
        await peer.close()


async def has_a_handler_that_fails(server, peer):
    assert (await peer.store(FILE)).status == 0x0110
    await peer.close()


async def breaks(server, peer):
    """A bug on our side of it, whatever it may be."""
    (association,) = server.server.associations
    association._handle = None
    await peer.send(message(3, b""))
    assert await rest(peer) == [Abort(0, 0)]


EXITS = [releases, aborts, closes, closes_in_a_message, violates, idles, is_aborted_by_us, is_released_by_us,
         has_a_handler_that_fails, breaks]  # fmt: skip


@pytest.mark.fault_row(67)
@pytest.mark.parametrize("way_out", EXITS, ids=lambda each: f"fault67-{each.__name__}")
async def test_a_place_is_free_again(way_out, autojump_clock):
    async def handler(instance):
        raise RuntimeError

    settings = AssociationSettings(timeouts=Timeouts(idle=5))
    admission = Admission(associations=1)
    async with memory_server(handler, settings=settings, admission=admission, bystander=False) as server:
        for _ in range(3):
            start = trio.current_time()
            peer = await server.associate()
            other = await server.connect()
            assert await other.associate(CONTEXTS) == FULL
            await other.close()
            assert trio.current_time() == start
            await way_out(server, peer)
            await server.check_empty()
            assert server.inside == 0


@pytest.mark.fault_row(67)
@pytest.mark.parametrize(
    "admission",
    [Admission(associations=3), Admission(associations_per_host=3)],
    ids=["fault67-all", "fault67-of_a_host"],
)
async def test_as_many_as_there_may_be(admission, autojump_clock):
    async with memory_server(Keeper(), admission=admission, bystander=False) as server:
        peers = [await server.associate() for _ in range(3)]
        for _ in range(50):
            other = await server.connect()
            assert await other.associate(CONTEXTS) == FULL
            await other.close()
        for peer in peers:
            assert await peer.echo() == 0x0000
            assert await peer.release() == ReleaseRP()
        await server.check_well()


@pytest.mark.fault_row(67)
async def test_fault67_places_are_not_taken_by_those_who_are_refused(autojump_clock):
    admission = Admission(associations=1, calling_ae_titles=["SCRIPTED"])
    async with memory_server(Keeper(), admission=admission, bystander=False) as server:
        for _ in range(5):
            other = await server.connect()
            assert await other.associate(CONTEXTS, calling_ae_title="OTHER") == AssociateRJ(1, 1, 3)
        await server.check_well()  # while they linger
        await trio.sleep(1)


@pytest.mark.fault_row(67)
async def test_fault67_rejected_ones_that_stay_make_room(autojump_clock):
    """At capacity, those who were told so count among the connections that wait, and the oldest are closed."""
    admission = Admission(associations=1, connections_waiting=8)
    async with memory_server(Keeper(), admission=admission, bystander=False) as server:
        peer = await server.associate()
        others = []
        for _ in range(20):
            others.append(await server.connect())
            assert await others[-1].associate(CONTEXTS) == FULL
            await trio.testing.wait_all_tasks_blocked()
            assert server.waiting == min(len(others), 2)  # a quarter of 8: they all come from one host
        assert trio.current_time() == 0
        assert await peer.release() == ReleaseRP()
        await trio.sleep(1.1)
        assert server.waiting == 0


@pytest.mark.fault_row(61)
async def test_fault61_those_who_wait_longest_make_room(autojump_clock):
    admission = Admission(connections_waiting=8)
    async with memory_server(Keeper(), admission=admission) as server:
        silent = [await server.connect() for _ in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        assert server.waiting == 2  # a quarter: they all come from one host
        await server.check_well()
        assert trio.current_time() == 0
        for peer in silent:
            await peer.close()


# --- draining ---------------------------------------------------------------------------------------------------------


async def stuck(instance):
    await instance.read()
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("state", "told", "seconds"),
    [
        ("nobody", [], 0),
        ("silent", [], 0),
        ("idle", [Abort(0, 0)], 20),
        ("in_a_message", [Abort(0, 0)], 20),
        ("stuck", [Abort(0, 0)], 20),
        ("releases", [ReleaseRP()], 3),
    ],
)
async def test_drain(state, told, seconds, autojump_clock):
    async with memory_server(stuck, bystander=False) as server:
        start = trio.current_time()
        peer = None
        if state == "silent":
            peer = await server.connect()
            await trio.testing.wait_all_tasks_blocked()
        elif state != "nobody":
            peer = await server.associate()
        if state == "in_a_message":
            await peer.send(PARTIAL)
        if state == "stuck":
            await peer.send(message(1, store_rq(FILE), DATA_SET))
        await trio.testing.wait_all_tasks_blocked()

        async def go():
            if state == "releases":
                await trio.sleep(3)
                await peer.send(ReleaseRQ())
            if peer is not None:
                assert await rest(peer) == told

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            await server.server.drain(20)
        assert seconds <= trio.current_time() - start <= seconds + 1


async def test_drain_lets_nobody_in(autojump_clock):
    """Nor those who had connected before, and ask now."""
    async with memory_server(Keeper(), bystander=False) as server:
        peer = await server.associate()
        late = await server.connect()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.server.drain, 20)
            await trio.testing.wait_all_tasks_blocked()
            with suppress(*GONE):
                await late.send(encoded(association_request(CONTEXTS)))
                assert not isinstance(await late.receive_pdu(), AssociateAC)
            with pytest.raises(trio.BrokenResourceError):
                await server.connect()
            assert (await peer.store(FILE)).status == 0x0000  # what is open goes on
            assert await peer.release() == ReleaseRP()
        assert trio.current_time() <= 1


async def test_two_drains(autojump_clock):
    async with memory_server(stuck, bystander=False) as server:
        peer = await server.associate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.server.drain, 50)
            await trio.sleep(1)
            nursery.start_soon(server.server.drain, 5)
            await trio.sleep(1)
            nursery.start_soon(server.server.drain, 50)
            assert await rest(peer) == [Abort(0, 0)]
        assert 6 <= trio.current_time() <= 7
        await server.server.drain(50)  # it has stopped already
        assert trio.current_time() <= 7


async def test_a_drain_that_is_cancelled(autojump_clock):
    async with memory_server(stuck, bystander=False) as server:
        peer = await server.associate()
        with trio.move_on_after(1):
            await server.server.drain(20)
        assert await peer.echo() == 0x0000
        assert await rest(peer) == [Abort(0, 0)]
        assert 20 <= trio.current_time() <= 21


async def test_cancelled_during_a_drain(autojump_clock):
    with trio.CancelScope() as scope:
        async with memory_server(stuck, bystander=False) as server, trio.open_nursery() as nursery:
            peer = await server.associate()
            await peer.send(message(1, store_rq(FILE), DATA_SET))
            nursery.start_soon(server.server.drain, 20)
            await trio.sleep(1)
            scope.cancel()
    assert scope.cancelled_caught
    assert trio.current_time() <= 2
    assert await rest(peer) == [Abort(0, 0)]
    assert server.server.associations == frozenset()


# --- cancellation -----------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(112)
@pytest.mark.parametrize("folder", [False, True], ids=["handler", "folder"])
def test_the_server_is_cancelled_at_every_checkpoint(folder, tmp_path):
    """Of a session of association, C-STORE, half a C-STORE: nothing is left, nothing half written, within seconds."""

    async def scenario(cut):
        stand_still.set(True)
        told, answered = [], []
        handler = InstanceFolder(tmp_path, min_free=0) if folder else Keeper()
        done = trio.Event()

        async def peers(server: MemoryServer) -> None:
            silent = await server.connect()
            peer = await server.connect()
            with suppress(*GONE, AssertionError):
                await peer.associate(CONTEXTS)
                answered.append((await peer.store(FILE)).status)
                await peer.send(PARTIAL)
                await trio.testing.wait_all_tasks_blocked()
                await peer.send(message(1, store_rq(FILE), DATA_SET)[len(PARTIAL) :])
                answered.append((await peer.receive_message())[1].status)
                await peer.send(ReleaseRQ())
            told.extend(await rest(peer))
            await silent.close()
            done.set()

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            with cut:
                async with memory_server(handler, bystander=False) as server:
                    nursery.start_soon(_unless_gone, peers, server)
                    await done.wait()
            nursery.cancel_scope.deadline = trio.current_time() + 5
        if not cut.came_too_late:
            assert trio.current_time() - start <= 2
        assert len(told) <= 1
        assert not set(map(type, told)) - {Abort, ReleaseRP}
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
        if folder and answered:
            assert len(os.listdir(tmp_path)) == 1
        for name in os.listdir(tmp_path):
            assert (tmp_path / name).read_bytes().endswith(DATA_SET)
            (tmp_path / name).unlink()

    assert cancel_at_every_checkpoint(scenario) > 50


async def _unless_gone(function, *args):
    with suppress(*GONE, trio.ClosedResourceError):
        await function(*args)


@pytest.mark.fault_row(112)
async def test_serve_associations_cancelled(autojump_clock):
    """Over sockets, whose descriptors are all closed."""
    before = open_descriptor_count()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_associations, StorageSCP(stuck), 0)
        streams = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(5)]
        nursery.cancel_scope.cancel()
    for stream in streams:
        await stream.aclose()
    assert open_descriptor_count() == before
    assert server.associations == frozenset()


# --- 92: for long -----------------------------------------------------------------------------------------------------

CYCLES = 500


async def cycle(server, number):
    peer = await server.associate()
    match number % 5:
        case 0:
            assert await peer.release() == ReleaseRP()
        case 1:
            await peer.abort()
        case 2:
            await peer.close()
        case 3:
            await peer.send(PARTIAL)
            await peer.close()
        case 4:
            assert (await peer.store(FILE)).status == 0x0000
            assert await peer.release() == ReleaseRP()


@pytest.mark.fault_row(92)
async def test_fault92_associations_leave_nothing(autojump_clock, caplog):
    caplog.set_level("WARNING", "trio_dicom")  # pytest keeps all records
    keeper = Keeper()
    async with memory_server(keeper) as server:
        for number in range(50):
            await cycle(server, number)
        keeper.stored.clear()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        objects, tasks = _objects(), trio.lowlevel.current_statistics().tasks_living
        descriptors = open_descriptor_count()
        for number in range(CYCLES):
            await cycle(server, number)
        assert len(keeper.stored) == CYCLES // 5
        keeper.stored.clear()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert open_descriptor_count() == descriptors
        more = _objects() - objects
        assert not {kind: count for kind, count in more.items() if count > CYCLES // 10}


def _objects() -> Counter[type]:
    """Not those that trio's heap of deadlines keeps, up to a thousand, when they are past."""
    kinds = [type(each) for each in gc.get_objects()]
    return Counter(kind for kind in kinds if kind.__name__ not in ("CancelScope", "CancelReason", "tuple"))
