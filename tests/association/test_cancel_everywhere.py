"""Cancelled at any moment, an operation leaves one of three things behind, and nothing else:

- the peer saw nothing of it, and the association is usable;
- the peer saw whole PDUs and then an A-ABORT, or just the end, and the association is over;
- the peer saw all of it, and the association is usable; the response that nobody waits for is dropped.
"""

from __future__ import annotations

import functools
import io
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pydicom
import pytest
import trio
import trio.testing

from trio_dicom import (
    Association,
    AssociationAborted,
    AssociationSettings,
    CStoreOptions,
    CStoreSCU,
    PresentationContext,
    Timeouts,
    open_association,
    wrap_client_stream,
)
from trio_dicom.association import outgoing, requestor, writer
from trio_dicom.association.operation import Delivery
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.pdu import Abort, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.services.storage_scu import StoreDelivery
from trio_dicom.sources import file
from trio_dicom.testing import (
    Cut,
    ScriptedPeer,
    SOPClass,
    cancel_at_every_checkpoint,
    make_instance_file,
    scripted_link,
    whole_pdus,
)
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

PIECE = 4096  # bytes of a batch in these tests: many batches from a small object
SIZE = 7 * PIECE
CONTEXTS = (PresentationContext(SOPClass.CT, (EXPLICIT_VR_LITTLE_ENDIAN,)), VERIFICATION)
SETTINGS = AssociationSettings(send_pdu_length=1030)
LOCKSTEP = "lockstep"  # takes nothing that is not read
SOCKET = "socket"
KINDS = pytest.mark.parametrize("kind", ["memory", LOCKSTEP, SOCKET])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(outgoing, "POOL_BUFFER_SIZE", PIECE)
    monkeypatch.setattr(writer, "POOL_BUFFER_SIZE", PIECE)
    monkeypatch.setattr(file, "_SMALL", PIECE)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def sweep(scenario: Callable[[Cut], Awaitable[None]], **options: Any) -> int:
    """The same, and no temporary file is left, whatever happened."""

    def check(cut: Cut) -> None:
        assert list(pathlib.Path(tempfile.gettempdir()).rglob("*")) == []

    return cancel_at_every_checkpoint(scenario, check=check, **options)


class Archive:
    """Keeps what came whole, answers it, and reads to the end."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []  # also of objects that never came whole
        self.received = bytearray()

    async def __call__(self, peer: ScriptedPeer) -> None:
        self.received = peer.received
        try:
            await peer.accept()
        except AssertionError:  # nobody asked for an association
            return None
        while True:
            try:
                context_id, request, data_set = await peer.receive_message()
            except AssertionError:  # no P-DATA: the end
                if self.is_whole and isinstance(peer.pdus[-1], ReleaseRQ):
                    await peer.send(ReleaseRP())
                return await peer.close()
            if isinstance(request, CStoreRQ):
                assert request.affected_sop_instance_uid not in self.stored
                self.stored[request.affected_sop_instance_uid] = data_set
            await peer.answer(context_id, request)

    @property
    def is_whole(self) -> bool:
        try:
            whole_pdus(self.received)
        except ValueError:
            return False
        return True

    def has_heard_of(self, uid: str) -> bool:
        return uid.encode() in bytes(self.received)


def stream_pair(kind: str) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    if kind == SOCKET:
        ours, theirs = trio.socket.socketpair()
        return trio.SocketStream(ours), trio.SocketStream(theirs)
    return trio.testing.lockstep_stream_pair() if kind == LOCKSTEP else trio.testing.memory_stream_pair()


class OneWay(trio.abc.ReceiveStream):
    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        chunk, self.data = self.data[:3000], self.data[3000:]
        return bytes(chunk)

    async def aclose(self) -> None: ...


class Camera:
    transfer_syntax_uid = None
    length: int | None = SIZE

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(7):
            await trio.lowlevel.checkpoint()
            yield bytes(PIECE)


def dataset(number: int) -> pydicom.Dataset:
    read = pydicom.dcmread(io.BytesIO(make_instance_file(2, number=number)))
    del read.PixelData
    return read


FORMS: dict[str, Callable[[int, pathlib.Path], tuple[object, ...]]] = {
    "file": lambda number, folder: (folder / f"{number}.dcm",),
    "bytes": lambda number, folder: (io.BytesIO(make_instance_file(SIZE, number=number)),),
    "stream": lambda number, folder: (OneWay(make_instance_file(SIZE, number=number)),),
    "pixels": lambda number, folder: (dataset(number), Camera()),
    "small": lambda number, folder: (io.BytesIO(make_instance_file(64, number=number)),),
}


@pytest.mark.fault_row(112)
@KINDS
@pytest.mark.parametrize("form", FORMS)
def test_send(form: str, kind: str, tmp_path: pathlib.Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.dcm").write_bytes(make_instance_file(SIZE, number=number))
    rows: set[Delivery] = set()

    async def scenario(cut: Cut) -> None:
        archive = Archive()
        async with scripted_link(archive, CONTEXTS, settings=SETTINGS, streams=stream_pair(kind)) as association:
            first = StoreDelivery(association, CStoreOptions(), *FORMS[form](1, tmp_path))  # type: ignore[arg-type]
            response = None
            with cut:
                response = await first.run()
            assert (response is None) is cut.was_cancelled
            reached = first.operation.delivery if first.operation is not None else Delivery.NOTHING_SENT
            assert first.in_doubt is (Delivery.ALL_QUEUED <= reached < Delivery.ANSWERED)
            assert (first.status == 0) is (reached is Delivery.ANSWERED)
            rows.add(reached)
            second = CStoreSCU(association).send(*FORMS[form](2, tmp_path))  # type: ignore[arg-type]
            if reached is Delivery.PARTLY_SENT:
                assert not association.is_open
                with pytest.raises(AssociationAborted) as caught:
                    await second
                assert not caught.value.by_peer
                assert not caught.value.in_doubt
                await association.wait_closed()
            else:
                assert association.is_open
                assert (await second).is_success
                assert reached < Delivery.ALL_QUEUED or first.status == 0  # the late response was heard
        check_bytes(archive, reached, kind)

    # Neither threads nor sockets go with virtual time.
    checkpoints = sweep(scenario, virtual_clock=form not in ("file", "pixels") and kind != SOCKET)
    assert checkpoints > 5
    assert rows >= {Delivery.NOTHING_SENT, Delivery.ANSWERED}
    assert (Delivery.PARTLY_SENT in rows) is (form != "small")


def check_bytes(archive: Archive, reached: Delivery, kind: str) -> None:
    """What the peer saw of object 1, and that it is what our side says."""
    one, two = "2.25.1000.1", "2.25.1000.2"
    assert (one in archive.stored) is (reached >= Delivery.ALL_QUEUED)
    if reached is Delivery.NOTHING_SENT:
        assert not archive.has_heard_of(one)
    if reached is Delivery.PARTLY_SENT:
        assert not archive.has_heard_of(two)
        # After a cancelled `send_all` only a socket can be written to again: else there is just the end.
        if kind == SOCKET:
            assert whole_pdus(archive.received)[-1] == Abort(0, 0)
        assert kind == LOCKSTEP or archive.is_whole
        return
    assert two in archive.stored
    pdus = whole_pdus(archive.received)
    assert isinstance(pdus[-1], ReleaseRQ)
    assert len({len(data_set) for data_set in archive.stored.values()}) == 1  # whole, each of them


@pytest.mark.fault_row(112)
@pytest.mark.parametrize("seed", range(1, 4))
def test_send_with_other_dice(seed: int) -> None:
    """The same, with two more objects on the way and a window of 3."""

    async def scenario(cut: Cut) -> None:
        archive = Archive()

        async def script(peer: ScriptedPeer) -> None:
            accept = peer.accept
            peer.accept = functools.partial(accept, window=3)  # type: ignore[method-assign]
            await archive(peer)

        settings = AssociationSettings(send_pdu_length=1030, operations_window=3)
        deliveries = {}
        ends: dict[int, object] = {}
        async with scripted_link(script, CONTEXTS, settings=settings) as association:

            async def send(number: int) -> None:
                item = FORMS["stream"](number, pathlib.Path())
                deliveries[number] = StoreDelivery(association, CStoreOptions(), *item)  # type: ignore[arg-type]
                try:
                    ends[number] = (await deliveries[number].run()).status
                except AssociationAborted as error:
                    ends[number] = error

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, 2)
                nursery.start_soon(send, 3)
                with cut:
                    await send(1)
            was_open = association.is_open
            if was_open:
                await send(4)
        assert whole_pdus(archive.received)
        for number, delivery in deliveries.items():
            uid = f"2.25.1000.{number}"
            end = ends.get(number)
            if end == 0:
                assert uid in archive.stored
                assert not delivery.in_doubt
            elif isinstance(end, AssociationAborted):
                assert not was_open
                assert end.in_doubt or uid not in archive.stored
            else:  # cancelled
                assert number == 1
                assert delivery.in_doubt or delivery.status == 0 or uid not in archive.stored
        assert not was_open or ends[2] == ends[3] == ends[4] == 0

    assert sweep(scenario, seed=seed) > 30


@pytest.mark.fault_row(112)
@KINDS
def test_echo(kind: str) -> None:
    async def scenario(cut: Cut) -> None:
        archive = Archive()
        async with scripted_link(archive, CONTEXTS, streams=stream_pair(kind)) as association:
            with cut:
                await association.echo()
            assert association.is_open
            await association.echo()
            assert (await CStoreSCU(association).send(*FORMS["small"](1, pathlib.Path()))).is_success  # type: ignore[call-overload]
        assert isinstance(whole_pdus(archive.received)[-1], ReleaseRQ)

    assert sweep(scenario, virtual_clock=kind != SOCKET) > 3


@pytest.mark.fault_row(112)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@KINDS
def test_aclose(kind: str, busy: bool) -> None:
    async def scenario(cut: Cut) -> None:
        archive = Archive()
        ours, theirs = stream_pair(kind)
        peer = ScriptedPeer(theirs)
        failures = []

        async def send(association: Association) -> None:
            try:
                await CStoreSCU(association).send(*FORMS["stream"](1, pathlib.Path()))  # type: ignore[call-overload]
            except AssociationAborted as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, archive, peer)
            association = await wrap_client_stream(nursery, ours, CONTEXTS, settings=SETTINGS)
            if busy:
                nursery.start_soon(send, association)
                await trio.testing.wait_all_tasks_blocked()
            with cut:
                await association.aclose()
            assert not association.is_open
            await association.wait_closed()
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
            await association.aclose()
        assert association.failure is None or cut.was_cancelled
        last = whole_pdus(archive.received)[-1] if archive.is_whole else None
        assert kind != SOCKET or isinstance(last, ReleaseRQ | Abort)
        if not cut.was_cancelled:
            assert isinstance(last, ReleaseRQ)
            assert not failures

    assert sweep(scenario, virtual_clock=kind != SOCKET) > 3


async def follow(archive: Archive, peer: ScriptedPeer) -> None:
    try:
        await archive(peer)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await peer.finish()


@pytest.mark.fault_row(112)
@KINDS
def test_a_nursery_with_an_association_in_it(kind: str) -> None:
    async def scenario(cut: Cut) -> None:
        archive = Archive()
        ours, theirs = stream_pair(kind)
        has_ended = trio.Event()

        async def peer() -> None:
            await follow(archive, ScriptedPeer(theirs))
            has_ended.set()

        async with trio.open_nursery() as peers:
            peers.start_soon(peer)
            with cut:
                async with trio.open_nursery() as nursery:
                    association = await wrap_client_stream(nursery, ours, CONTEXTS, settings=SETTINGS)
                    scu = CStoreSCU(association)
                    nursery.start_soon(scu.send, *FORMS["bytes"](1, pathlib.Path()))
                    await scu.send(*FORMS["bytes"](2, pathlib.Path()))  # type: ignore[call-overload]
                    await association.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
            with trio.fail_after(2):  # the peer has seen the end
                await has_ended.wait()
        check_the_end(archive, cut, kind)

    assert sweep(scenario, virtual_clock=kind != SOCKET) > 20


@pytest.mark.fault_row(112)
@KINDS
def test_open_association(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cut: Cut) -> None:
        archive = Archive()
        ours, theirs = stream_pair(kind)

        async def dial(*_: object) -> trio.abc.Stream:
            return ours

        monkeypatch.setattr(requestor, "dial", dial)
        async with trio.open_nursery() as peers:
            peers.start_soon(follow, archive, ScriptedPeer(theirs))
            with cut:
                async with open_association("PACS@host:104", CONTEXTS, settings=SETTINGS) as association:
                    await CStoreSCU(association).send(*FORMS["bytes"](1, pathlib.Path()))  # type: ignore[call-overload]
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
        check_the_end(archive, cut, kind)

    assert sweep(scenario, virtual_clock=kind != SOCKET) > 15


def check_the_end(archive: Archive, cut: Cut, kind: str) -> None:
    if not archive.is_whole:
        assert kind == LOCKSTEP
        assert cut.was_cancelled
        return
    pdus = whole_pdus(archive.received)
    if not cut.was_cancelled:
        assert isinstance(pdus[-1], ReleaseRQ)
    elif len(pdus) > 1 and kind == SOCKET:
        assert isinstance(pdus[-1], Abort | ReleaseRQ)
    assert not pdus or isinstance(pdus[0], AssociateRQ)
    assert all(isinstance(pdu, PDataTF) for pdu in pdus[1:-1] if not isinstance(pdu, ReleaseRQ))


@pytest.mark.fault_row(112)
def test_open_association_over_tcp() -> None:
    """With real sockets and real time, where the moments are not the same twice."""
    settings = AssociationSettings(send_pdu_length=1030, timeouts=Timeouts(abort_linger=0.2, abort_grace=0.2))

    async def scenario(cut: Cut) -> None:
        archive = Archive()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]

        async def accept() -> None:
            async with listener:
                stream = await listener.accept()
            await follow(archive, ScriptedPeer(stream))

        async with trio.open_nursery() as peers:
            peers.start_soon(accept)
            with cut:
                async with open_association(f"PACS@127.0.0.1:{port}", CONTEXTS, settings=settings) as association:
                    await CStoreSCU(association).send(*FORMS["bytes"](1, pathlib.Path()))  # type: ignore[call-overload]
            await trio.testing.wait_all_tasks_blocked(0.01)
            peers.cancel_scope.cancel()  # where nobody ever came
        if not archive.is_whole:
            assert cut.was_cancelled
        elif not cut.was_cancelled:
            assert list(archive.stored) == ["2.25.1000.1"]

    assert sweep(scenario, virtual_clock=False) > 10
