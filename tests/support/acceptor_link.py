"""A server for scripted requestors, in memory, so that it goes with the virtual clock; and what it leaves behind."""

from __future__ import annotations

import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import attrs
import trio
import trio.testing

from trio_dicom import Admission, AssociationServer, AssociationSettings, Instance, Service, StorageSCP
from trio_dicom.association.service import Services
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.pdu import PDU, Abort, AssociateAC, ReleaseRP
from trio_dicom.sources.part10 import parse_head
from trio_dicom.testing.identity import SOPClass
from trio_dicom.testing.instances import make_instance_file
from trio_dicom.testing.scripted_peer import GONE, ScriptedPeer
from trio_dicom.uids import VERIFICATION

CT = SOPClass.CT
CONTEXTS = (CT, VERIFICATION)  # IDs 1 and 3

Streams = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


def data_set_of(file: bytes) -> bytes:
    head = parse_head(file, at_end=True)
    assert head is not None
    return file[head.data_set_offset :]


def uid_of(file: bytes) -> str:
    head = parse_head(file, at_end=True)
    assert head is not None
    return head.sop_instance_uid


def store_rq(file: bytes, message_id: int = 1, **changes: object) -> CStoreRQ:
    head = parse_head(file, at_end=True)
    assert head is not None
    return attrs.evolve(CStoreRQ(message_id, head.sop_class_uid, head.sop_instance_uid), **changes)


FILE = make_instance_file(256)
DATA_SET = data_set_of(FILE)
UID = uid_of(FILE)


class Keeper:
    """A handler that keeps what came whole, and counts what began and what was cut off."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.begun = self.cancelled = 0

    async def __call__(self, instance: Instance) -> int:
        self.begun += 1
        try:
            data = await instance.read()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        self.stored.append((instance.sop_instance_uid, data))
        return 0x0000


class MemoryServer:
    """`serve_associations` without sockets: everybody comes from the same host, None."""

    def __init__(
        self,
        server: AssociationServer,
        connections: trio.MemorySendChannel[trio.abc.Stream],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.server = server
        self._connections = connections
        self._tls = tls  # of those who connect

    async def connect(self, streams: Streams = trio.testing.memory_stream_pair) -> ScriptedPeer:
        stream = await self.reach(streams)
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_hostname="server.example")
        return ScriptedPeer(stream)

    async def reach(self, streams: Streams = trio.testing.memory_stream_pair) -> trio.abc.Stream:
        """Connect, and no more."""
        theirs, ours = streams()
        await self._connections.send(ours)
        return theirs

    async def associate(self, **request: object) -> ScriptedPeer:
        """A peer with an association: contexts 1 (CT) and 3 (Verification), unless told otherwise."""
        streams = request.pop("streams", trio.testing.memory_stream_pair)
        peer = await self.connect(streams)
        answer = await peer.associate(request.pop("contexts", CONTEXTS), **request)
        assert isinstance(answer, AssociateAC), answer
        return peer

    async def check_well(self) -> None:
        """A newcomer is served."""
        peer = await self.associate()
        assert await peer.echo() == 0x0000
        assert await peer.release() == ReleaseRP()

    async def check_empty(self) -> None:
        """But for the bystander, if there is one."""
        await trio.testing.wait_all_tasks_blocked()
        assert self.inside == len(self.server.associations) <= 1
        assert not self.waiting

    @property
    def inside(self) -> int:
        return self.server._door.inside.total()

    @property
    def waiting(self) -> int:
        return len(self.server._door.waiting)


class _Listener(trio.abc.Listener[trio.abc.Stream]):
    socket = SimpleNamespace(getsockname=lambda: ("memory", 0))

    def __init__(self, connections: trio.MemoryReceiveChannel[trio.abc.Stream]) -> None:
        self._connections = connections

    async def accept(self) -> trio.abc.Stream:
        return await self._connections.receive()

    async def aclose(self) -> None:
        self._connections.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def memory_server(
    services: Service | Iterable[Service] | Callable[[Instance], object],
    *,
    settings: AssociationSettings | None = None,
    admission: Admission | None = None,
    bystander: bool = True,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[MemoryServer]:
    """A server; `services` may be the handler of a `StorageSCP`. Meanwhile another association is in use.

    `tls` has the contexts of the server and of those who connect, to server.example.

    Afterwards nobody is inside, nothing is left, and that other association never noticed anything.
    """
    if callable(services):
        services = StorageSCP(services)
    settings = settings or AssociationSettings()
    for_server, for_peers = tls or (None, None)
    server = AssociationServer(Services(services), settings, admission or Admission(), for_server)
    send, receive = trio.open_memory_channel[trio.abc.Stream](0)
    descriptors = open_descriptor_count()
    memory = MemoryServer(server, send, for_peers)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, [_Listener(receive)])
            other = await memory.associate(contexts=[VERIFICATION]) if bystander else None
            async with trio.open_nursery() as watching:
                if other is not None:
                    watching.start_soon(_keep_in_use, other, settings.timeouts.idle)
                yield memory
                watching.cancel_scope.cancel()
            if other is not None:
                assert await other.echo() == 0x0000
                assert await other.release() == ReleaseRP()
            await server.drain(5)
    except BaseExceptionGroup as group:
        raise _first(group) from None
    assert server.associations == frozenset()
    assert server._door.inside == Counter()
    assert server._door.waiting == []
    assert open_descriptor_count() == descriptors


def _first(error: BaseException) -> BaseException:
    """What a test ran into, and not what was cancelled for it."""
    while isinstance(error, BaseExceptionGroup):
        error = (error.split(trio.Cancelled)[1] or error).exceptions[0]
    return error


async def _keep_in_use(peer: ScriptedPeer, idle: float) -> None:
    while True:
        await trio.sleep(idle / 3)
        with trio.CancelScope(shield=True):
            assert await peer.echo() == 0x0000


def open_descriptor_count() -> int:
    """Of this process, where /proc tells."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def rest(peer: ScriptedPeer) -> list[PDU]:
    """What the peer is still told, to the end; then it closes."""
    pdus: list[PDU] = []
    with suppress(*GONE):
        while (pdu := await peer.receive_pdu()) is not None:
            pdus.append(pdu)
    await peer.close()
    return pdus


async def aborted_with(peer: ScriptedPeer) -> tuple[int, int] | None:
    """Source and reason of the A-ABORT that is all that the peer is still told; None if there is nothing."""
    pdus = await rest(peer)
    assert len(pdus) <= 1
    assert all(isinstance(pdu, Abort) for pdu in pdus), pdus
    return (pdus[0].source, pdus[0].reason) if pdus else None
