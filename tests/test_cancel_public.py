"""Every public coroutine is cancelled at every checkpoint: here, or in a test of its own that is named here.

Whatever the moment, nothing is left open, the other side heard whole PDUs only and came to its end, and what still
lives can be used.
"""

from __future__ import annotations

import ast
import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy
import pydicom
import pytest
import trio
import trio.testing

import trio_dicom
from support.acceptor_link import memory_server
from support.sending import objects, sender_to
from trio_dicom import (
    ArrayPixelSource,
    Association,
    CStoreSCU,
    Instance,
    Outcome,
    Sender,
    Service,
    ServiceRequest,
    StorageSCP,
    TransferProgress,
    TrioDicomError,
    connect_association,
    contexts_for,
    echo,
    open_association,
    open_progress_channel,
    send_file,
    wrap_client_stream,
    wrap_server_stream,
)
from trio_dicom.association import requestor
from trio_dicom.association.service import ANY
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.other_services import CFindRQ
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import (
    Cut,
    Direction,
    RecordedStream,
    ScriptedPeer,
    SOPClass,
    cancel_at_every_checkpoint,
    make_instance_file,
    storage_scp,
    whole_pdus,
)
from trio_dicom.uids import VERIFICATION

CONTEXTS = (SOPClass.CT, VERIFICATION)
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PEER = "PACS@host:104"
FILE = make_instance_file(256)
TESTS = Path(__file__).parent


class World:
    """Connections in memory, to an acceptor of ours each."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.nursery = nursery
        self.folder = folder
        self.stored: list[str] = []
        self.services: Service = StorageSCP(self._keep)
        self._streams: list[tuple[trio.abc.Stream, RecordedStream]] = []

    @property
    def path(self) -> Path:
        path = self.folder / "1.dcm"
        if not path.exists():
            path.write_bytes(FILE)
        return path

    def streams(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams.append((ours, RecordedStream(theirs)))
        return self._streams[-1]

    async def dial(self, *_: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = self.streams()
        self.nursery.start_soon(self.serve, theirs)
        return ours

    async def serve(self, stream: trio.abc.Stream) -> None:
        with suppress(TrioDicomError):
            await wrap_server_stream(self.nursery, stream, self.services)

    @asynccontextmanager
    async def association(self) -> AsyncIterator[Association]:
        async with open_association(PEER, CONTEXTS) as association:
            yield association

    async def _keep(self, instance: Instance) -> int:
        await instance.read()
        self.stored.append(instance.sop_instance_uid)
        return 0

    async def check(self) -> None:
        for ours, theirs in self._streams:
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
            whole_pdus(theirs.recording.data(Direction.RECEIVING))


Scenario = Callable[[World, Cut], Awaitable[None]]
TABLE: dict[str, Scenario] = {}


def covers(*names: str) -> Callable[[Scenario], Scenario]:
    def note(scenario: Scenario) -> Scenario:
        TABLE.update(dict.fromkeys(names, scenario))
        return scenario

    return note


# --- associations -----------------------------------------------------------------------------------------------------


@covers("echo")
async def an_echo(world: World, cut: Cut) -> None:
    with cut:
        assert await echo(PEER) >= 0


@covers("send_file")
async def a_file(world: World, cut: Cut) -> None:
    response = None
    with cut:
        response = await send_file(PEER, world.path)
    assert response is None or (response.is_success and world.stored)


@covers("contexts_for")
async def heads_of_files(world: World, cut: Cut) -> None:
    contexts = None
    with cut:
        contexts = await contexts_for([world.path] * 300)
    assert contexts is None or contexts[0].abstract_syntax == SOPClass.CT


@covers("open_association", "Association.echo", "Association.perform")
async def a_block(world: World, cut: Cut) -> None:
    with cut:
        async with world.association() as association:
            await association.echo()


@covers("connect_association")
async def in_a_nursery(world: World, cut: Cut) -> None:
    async with trio.open_nursery() as nursery:
        association = None
        with cut:
            association = await connect_association(nursery, PEER, CONTEXTS)
        if association is not None:
            await association.echo()
            await association.aclose()


@covers("wrap_client_stream")
async def over_a_stream(world: World, cut: Cut) -> None:
    async with trio.open_nursery() as nursery:
        association = None
        with cut:
            association = await wrap_client_stream(nursery, await world.dial(), CONTEXTS)
        if association is not None:
            await association.echo()
            await association.aclose()


@covers("wrap_server_stream")
async def asked_over_a_stream(world: World, cut: Cut) -> None:
    ours, theirs = world.streams()
    heard = []

    async def ask() -> None:
        try:
            async with trio.open_nursery() as nursery:
                association = await wrap_client_stream(nursery, ours, CONTEXTS)
                heard.append(await association.echo())
                await association.aclose()
        except* TrioDicomError as group:
            heard.append(group.exceptions[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        association = None
        with cut:
            association = await wrap_server_stream(nursery, theirs, world.services)
        if association is not None:
            await association.wait_closed()
    assert len(heard) == 1
    assert isinstance(heard[0], float) is (association is not None)


@covers("Association.abort")
async def an_abort(world: World, cut: Cut) -> None:
    async with trio.open_nursery() as nursery:
        association = await connect_association(nursery, PEER, CONTEXTS)
        with cut:
            await association.abort()
        assert not association.is_open
        await association.wait_closed()


@covers("Association.wait_closed")
async def a_wait(world: World, cut: Cut) -> None:
    async with trio.open_nursery() as nursery:
        association = await connect_association(nursery, PEER, CONTEXTS)
        nursery.start_soon(_close_later, association)
        with cut:
            await association.wait_closed()
        if cut.was_cancelled and association.is_open:
            await association.echo()


async def _close_later(association: Association) -> None:
    await trio.sleep(5)
    await association.aclose()


@covers("ArrayPixelSource.chunks")
async def pixels_of_an_array(world: World, cut: Cut) -> None:
    dataset = pydicom.dcmread(io.BytesIO(FILE))
    del dataset.PixelData
    path = world.folder / "pixels"
    if not path.exists():
        numpy.arange(640 * 1024, dtype="<u2").tofile(path)
    response = None
    async with world.association() as association:
        with cut:
            array = numpy.memmap(path, "<u2", "r", shape=(640, 1024))
            response = await CStoreSCU(association).send(dataset, ArrayPixelSource(array))
    assert response is None or world.stored


# --- a server ---------------------------------------------------------------------------------------------------------


@covers("AssociationServer.drain")
async def a_drain_of_a_server(world: World, cut: Cut) -> None:
    async with memory_server(world.services, bystander=False) as memory:
        peer = await memory.associate()
        start = trio.current_time()
        with cut:
            await memory.server.drain(3)
        if cut.was_cancelled:
            with trio.fail_after(5):
                await memory.server._stopped.wait()
        assert trio.current_time() <= start + 5
        await peer.close()


@covers("AssociationServer.next_association")
async def the_next_of_a_server(world: World, cut: Cut) -> None:
    async with memory_server(world.services, bystander=False) as memory, trio.open_nursery() as nursery:
        nursery.start_soon(_come_and_go, memory)
        association = None
        with cut:
            association = await memory.server.next_association()
        if association is None and not memory.server.associations:
            association = await memory.server.next_association()
        assert association is None or isinstance(association, Association)


async def _come_and_go(memory: Any) -> None:
    peer = await memory.associate()
    await trio.sleep(1)
    await peer.release()


# --- handlers and services --------------------------------------------------------------------------------------------

Read = Callable[[Any, bytearray], Awaitable[None]]  # of an instance, or a request


async def _pieces(source: Any, data: bytearray) -> None:
    while pieces := await source.receive_pieces():
        data += b"".join(pieces)


async def _some(instance: Instance, data: bytearray) -> None:
    while some := await instance.receive_some(5000):
        data += some


async def _whole(instance: Instance, data: bytearray) -> None:
    data += await instance.read()


async def _parsed(instance: Instance, data: bytearray) -> None:
    assert (await instance.dataset()).SOPInstanceUID


async def _some_and_the_rest(instance: Instance, data: bytearray) -> None:
    data += await instance.receive_some(5000)
    data += b"".join(await instance.receive_pieces())


async def _closed(instance: Instance, data: bytearray) -> None:
    await instance.aclose()


def in_a_handler(read: Read, *, loses: bool = False) -> Scenario:
    """A handler is cut while it reads, and then reads the rest; nothing is lost, unless it `loses`."""

    async def scenario(world: World, cut: Cut) -> None:
        seen: list[bytearray] = []

        async def handle(instance: Instance) -> int:
            seen.append(bytearray())
            if len(seen) == 1:
                with cut:
                    await read(instance, seen[0])
            with suppress(trio.ClosedResourceError):
                await _whole(instance, seen[-1])
            return 0

        world.services = StorageSCP(handle)
        await _store_two(world)
        assert len(seen) == 2
        assert loses or len(seen[0]) == len(seen[1])

    return scenario


async def _store_two(world: World) -> None:
    async with world.association() as association:
        for number in (1, 2):
            file = io.BytesIO(make_instance_file(300_000, number=number))
            assert (await CStoreSCU(association).send(file)).is_success


covers("Instance.receive_pieces")(in_a_handler(_pieces))
covers("Instance.receive_some")(in_a_handler(_some))
covers("Instance.receive_pieces after receive_some")(in_a_handler(_some_and_the_rest))
covers("Instance.read")(in_a_handler(_whole, loses=True))
covers("Instance.dataset")(in_a_handler(_parsed, loses=True))
covers("Instance.aclose")(in_a_handler(_closed, loses=True))


class Cutting(Service):
    """Takes what it is asked to store, and finds one thing; the first time it is cut."""

    requests = (CStoreRQ, CFindRQ)

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.received: list[bytearray] = []

    def transfer_syntaxes(self, abstract_syntax: str) -> Any:
        return ANY

    async def perform(self, request: ServiceRequest) -> Any:
        data = bytearray()
        self.received.append(data)
        if len(self.received) == 1:
            with self.cut:
                if isinstance(request.command, CFindRQ):
                    await request.respond(request.response(0xFF00), b"\0" * 64)
                else:
                    await _pieces(request, data)
        await _pieces(request, data)
        return request.response(0)


@covers("ServiceRequest.receive_pieces")
async def in_a_service(world: World, cut: Cut) -> None:
    world.services = service = Cutting(cut)
    await _store_two(world)
    first, second = service.received
    assert len(first) == len(second)


@covers("ServiceRequest.respond")
async def a_pending_response(world: World, cut: Cut) -> None:
    world.services = Cutting(cut)
    peer = ScriptedPeer(await world.dial())
    await peer.associate([FIND])
    for number in (1, 2):
        await peer.send_message(1, CFindRQ(number, FIND), bytes(8))
        statuses = []
        while not statuses or statuses[-1]:
            statuses.append((await peer.receive_message())[1].status)
        assert statuses in ([0xFF00, 0], [0])
        assert number == 1 or statuses == [0]
    await peer.release()


# --- senders ----------------------------------------------------------------------------------------------------------


def _check_sums(sender: Sender) -> None:
    report = sender.report
    assert report.pending == 0
    assert sum(report.counts.values()) == report.inputs


@covers("Sender.send")
async def one_object_of_a_sender(world: World, cut: Cut) -> None:
    async with storage_scp() as scp:
        async with sender_to(scp) as sender:
            with cut:
                await sender.send(*objects(1))
            assert (await sender.send(*objects(1, first=2))).outcome is Outcome.STORED
        _check_sums(sender)


@covers("Sender.drain")
async def a_drain_of_a_sender(world: World, cut: Cut) -> None:
    async with storage_scp() as scp:
        async with sender_to(scp) as sender, sender.send_many(objects(3)) as reports:
            first = await reports.receive()
            with cut:
                await sender.drain()
            rest = [report async for report in reports]
        assert len([first, *rest]) == sender.report.inputs
        _check_sums(sender)


@covers("Sender.send_tree", "Reports.receive")
async def reports_of_a_tree(world: World, cut: Cut) -> None:
    async with storage_scp() as scp:
        got = []
        async with sender_to(scp) as sender, sender.send_tree(world.path.parent) as reports:
            with cut:
                got.append(await reports.receive())
            got += [report async for report in reports]
        assert [report.outcome for report in got] == [Outcome.STORED]
        _check_sums(sender)


@covers("ProgressReceiveChannel.receive", "ProgressSendChannel.send", "open_progress_channel")
async def progress(world: World, cut: Cut) -> None:
    send, receive = open_progress_channel()

    async def tell() -> None:
        with send:
            for number in range(5):
                await trio.sleep(1)
                await send.send(TransferProgress("1.2", number, 4, 0.0, is_complete=number == 4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        got = []
        with cut:
            while not got or not got[-1].is_complete:
                got.append(await receive.receive())
        got += [each async for each in receive]
    assert got[-1].is_complete
    assert sum(each.is_complete for each in got) == 1


# --- all of them ------------------------------------------------------------------------------------------------------

ELSEWHERE = {
    "CStoreSCU.send": "association/test_cancel_everywhere.py::test_send",
    "StoreDelivery.run": "association/test_cancel_everywhere.py::test_send",
    "StoreDelivery.begin": "sender/test_sender_cancel.py::test_cancelled_anywhere",
    "Association.begin": "association/test_cancel_everywhere.py::test_send",
    "Association.aclose": "association/test_cancel_everywhere.py::test_aclose",
    "serve_associations": "faults/test_faults_acceptor_stopping.py::test_the_server_is_cancelled_at_every_checkpoint",
    "StorageSCP.perform": "faults/test_faults_acceptor_stopping.py::test_the_server_is_cancelled_at_every_checkpoint",
    "InstanceFolder.store": "services/test_instance_folder_faults.py::test_cancelled_at_every_checkpoint_fault112",
    "InstanceFolder.__call__": "services/test_instance_folder_faults.py::test_cancelled_at_every_checkpoint_fault112",
    "open_sender": "sender/test_sender_cancel.py::test_cancelled_anywhere",
    "Sender.send_many": "sender/test_sender_cancel.py::test_cancelled_anywhere",
}
# They have no underscore for the sake of other modules of the library, and are no part of the documentation.
NOT_FOR_USERS = {
    "Association.discard",
    "Association.run",
    "AssociationServer.run",
    "ServiceRequest.drop_rest",
    "ServiceRequest.perform_by",
    "StoreDelivery.request",
}
ABSTRACT = {"Service.perform"}
NOT_EXPORTED = {
    "Instance.receive_pieces after receive_some",
    "ProgressReceiveChannel.receive",
    "ProgressSendChannel.send",
    "Reports.receive",
    "Sender.send_tree",
    "open_progress_channel",
}  # what is given by what is, or is no coroutine itself


NAMES = [[name for name in TABLE if TABLE[name] is scenario] for scenario in dict.fromkeys(TABLE.values())]


def public_coroutines() -> Iterator[str]:
    for name in trio_dicom.__all__:
        thing = getattr(trio_dicom, name)
        if inspect.isclass(thing):
            members = [each for each in dir(thing) if each == "__call__" or not each.startswith("_")]
            yield from (f"{name}.{each}" for each in members if _is_async(inspect.getattr_static(thing, each)))
        elif _is_async(thing):
            yield name


def _is_async(thing: Any) -> bool:
    function = inspect.unwrap(getattr(thing, "__func__", thing))
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def test_no_public_coroutine_is_forgotten() -> None:
    swept = TABLE.keys() - NOT_EXPORTED
    assert set(public_coroutines()) == swept | ELSEWHERE.keys() | NOT_FOR_USERS | ABSTRACT
    assert not swept & ELSEWHERE.keys()


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_are_elsewhere_are_there(test: str) -> None:
    path, name = test.split("::")
    functions = [node for node in ast.walk(ast.parse((TESTS / path).read_text())) if isinstance(node, ast.FunctionDef)]
    assert name in {function.name for function in functions}
    assert "cancel_at_every_checkpoint" in (TESTS / path).read_text()


@pytest.mark.fault_row(112)
@pytest.mark.parametrize("names", NAMES, ids=" and ".join)
def test_cancelled_at_every_checkpoint(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cut: Cut) -> None:
        stand_still.set(True)
        async with trio.open_nursery() as nursery:
            world = World(nursery, tmp_path)
            monkeypatch.setattr(requestor, "dial", world.dial)
            await TABLE[names[0]](world, cut)
            nursery.cancel_scope.deadline = trio.current_time() + 5
        assert not nursery.cancel_scope.cancelled_caught, "something goes on"
        await world.check()

    assert cancel_at_every_checkpoint(scenario) >= 1
