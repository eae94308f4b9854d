"""The demo's receiver, by what it is sent: it stores what is whole, and nothing that a peer does stops it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pydicom
import pytest
import trio
import trio.testing

from support.scripted import CT, make_data_set_file, message, whole_pdus
from trio_dicom import AssociationAborted, AssociationSettings, CStoreSCU, echo, send_file, wrap_client_stream
from trio_dicom.cli.receiver import IDLE, Receiver, file_head
from trio_dicom.protocol.command import CEchoRQ, CFindRQ, CStoreRQ, CStoreRSP, decode_command
from trio_dicom.protocol.negotiation import as_presentation_contexts, propose
from trio_dicom.protocol.pdu import PDU, Abort, AssociateAC, AssociateRJ, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

INSTANCE = "2.25.1000.1"
_FILE = make_data_set_file()
DATA_SET = _FILE[_FILE.index(b"\x08\0\x16\0") :]
GOOD = CStoreRQ(1, CT, INSTANCE)


def request(*contexts: str, **settings: Any) -> AssociateRQ:
    return propose(as_presentation_contexts(contexts or (CT, VERIFICATION)), "DEMO", AssociationSettings(**settings))


def encoded(*what: PDU | bytes) -> bytes:
    return b"".join(each if isinstance(each, bytes) else b"".join(each.encode()) for each in what)


async def conversation(receiver: Receiver, *what: PDU | bytes, close: bool = True) -> list[PDU]:
    """Say `what`, and perhaps close; gives the PDUs that came back, the A-ASSOCIATE-AC left out."""
    ours, theirs = trio.testing.memory_stream_pair()
    heard = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.serve_stream, theirs)
        await ours.send_all(encoded(*what))
        if close:
            await ours.send_eof()
        async for piece in ours:
            heard += piece
        await ours.aclose()
    return [pdu for pdu in whole_pdus(heard) if not isinstance(pdu, AssociateAC)]


def statuses(pdus: list[PDU]) -> list[int]:
    responses = [decode_command(pdu.pdvs[0].data) for pdu in pdus if isinstance(pdu, PDataTF)]
    assert all(isinstance(each, CStoreRSP) for each in responses)
    return [each.status for each in responses if isinstance(each, CStoreRSP)]


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path)


@asynccontextmanager
async def served(receiver: Receiver) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(receiver.serve)
        yield f"DEMO@127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


def test_a_file_is_one_that_pydicom_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(file_head(CT, INSTANCE, EXPLICIT_VR_LITTLE_ENDIAN) + DATA_SET)
    meta = pydicom.dcmread(path).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, INSTANCE)
    assert meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    pydicom.dataset.validate_file_meta(meta)
    assert path.read_bytes()[132 + 12 + meta.FileMetaInformationGroupLength :] == DATA_SET


async def test_it_stores_what_is_sent(receiver: Receiver, tmp_path: Path) -> None:
    sent = make_data_set_file(5 << 20)
    path = tmp_path / "sent.dcm"
    path.write_bytes(sent)
    async with served(receiver) as address:
        assert await echo(address) > 0
        assert (await send_file(address, path)).is_success
        assert (await send_file(address, path)).is_success  # the same once more: both are kept
    first, second = receiver.stored
    assert first.path != second.path
    for stored in (first, second):
        assert sent.endswith(stored.path.read_bytes()[stored.data_set_offset :])
        assert stored.size == stored.path.stat().st_size - stored.data_set_offset > 5 << 20
        assert (stored.sop_class_uid, stored.sop_instance_uid) == (CT, INSTANCE)


BAD: dict[str, tuple[PDU | bytes, ...]] = {
    "nothing": (),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n",),
    "length": (b"\x01\x00\xff\xff\xff\xff",),
    "data first": (message(1, GOOD, DATA_SET),),
    "half a request": (encoded(request())[:100],),
    "half an object": (request(), message(1, GOOD, DATA_SET)[:-50]),
    "abort in an object": (request(), message(1, GOOD, DATA_SET)[: -len(DATA_SET) - 12], Abort(0, 0)),
    "release in an object": (request(), message(1, GOOD), ReleaseRQ()),
    "another request in an object": (request(), message(1, GOOD), request()),
    "context not accepted": (request(), message(77, GOOD, DATA_SET)),
    "C-FIND": (request(), message(1, CFindRQ(1, CT), DATA_SET)),
    "a response": (request(), message(1, CStoreRSP(1, 0))),
    "no data set": (request(), message(1, attrs.evolve(GOOD, has_data_set=False))),
    "no command": (request(), message(1, b"\0" * 11)),
}


@pytest.mark.parametrize("what", BAD.values(), ids=BAD)
async def test_what_is_wrong_ends_its_association_only(
    receiver: Receiver, what: tuple[PDU | bytes, ...], tmp_path: Path
) -> None:
    answers = await conversation(receiver, *what)
    assert all(isinstance(each, Abort | ReleaseRP) for each in answers)
    assert receiver.stored == []
    assert os.listdir(tmp_path) == []
    answers = await conversation(receiver, request(), message(1, GOOD, DATA_SET), ReleaseRQ())
    assert statuses(answers) == [0]
    assert isinstance(answers[-1], ReleaseRP)


async def test_bad_peers_at_the_port_do_not_stop_it(receiver: Receiver, tmp_path: Path) -> None:
    async with served(receiver) as address:
        port = int(address.rpartition(":")[2])
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        for what in BAD.values():
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(encoded(*what))
        assert await echo(address) > 0
        for stream in silent:
            await stream.aclose()


@pytest.mark.parametrize(
    ("changes", "data_set", "status"),
    [
        ({"affected_sop_instance_uid": "../../1.2.3"}, DATA_SET, 0xC000),
        ({"affected_sop_instance_uid": "/etc/passwd"}, DATA_SET, 0xC000),
        ({"affected_sop_instance_uid": ""}, DATA_SET, 0xC000),
        ({"affected_sop_instance_uid": "1.2.\u0663"}, DATA_SET, 0xC000),
        ({"affected_sop_class_uid": "1.2.3"}, DATA_SET, 0x0122),
        ({}, b"", 0xC000),
    ],
)
async def test_what_cannot_be_stored_is_refused(
    receiver: Receiver, tmp_path: Path, changes: dict[str, str], data_set: bytes, status: int
) -> None:
    if "\u0663" in str(changes):
        raw = message(1, GOOD, data_set).replace(
            INSTANCE.encode(), "1.2.\u0663\u0663.1".encode().ljust(len(INSTANCE), b"\0")
        )
    else:
        raw = message(1, attrs.evolve(GOOD, **changes), data_set)
    answers = await conversation(receiver, request(), raw, message(1, GOOD, DATA_SET))
    assert statuses(answers) == [status, 0]
    assert len(os.listdir(tmp_path)) == len(receiver.stored) == 1


async def test_a_disk_that_fails_is_answered(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_dicom.cli import receiver as module

    write = module._write_all

    def fail_once(file: Any, data: Any) -> None:
        if len(data) == len(DATA_SET):
            monkeypatch.setattr(module, "_write_all", write)
            raise OSError(28, "No space left on device")
        write(file, data)

    monkeypatch.setattr(module, "_write_all", fail_once)
    answers = await conversation(receiver, request(), *[message(1, GOOD, DATA_SET)] * 2)
    assert statuses(answers) == [0xA700, 0]
    assert len(os.listdir(tmp_path)) == 1


async def test_a_bug_of_its_own_ends_an_association_only(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(receiver, "_open", lambda *_: 1 / 0)
        answers = await conversation(receiver, request(), message(1, GOOD, DATA_SET))
    assert answers == [Abort(0, 0)]
    assert "a bug of the receiver" in caplog.text
    assert statuses(await conversation(receiver, request(), message(1, GOOD, DATA_SET))) == [0]


async def test_a_request_of_another_protocol_version_is_rejected(receiver: Receiver) -> None:
    assert await conversation(receiver, attrs.evolve(request(), protocol_version=2)) == [AssociateRJ(1, 2, 2)]


Said = tuple[PDU | bytes, ...]


@pytest.mark.parametrize(
    ("what", "seconds", "answers"),
    [
        ((), 10, []),
        ((encoded(request())[:50],), 10, []),
        ((request(),), IDLE, [Abort(0, 0)]),
        ((request(), message(1, GOOD, DATA_SET)[:-50]), IDLE, [Abort(0, 0)]),
        ((request(), ReleaseRQ()), 10, [ReleaseRP()]),
        ((request(), b"garbage"), 10, [Abort(2, 1)]),
    ],
    ids=["silent", "half a request", "idle", "half an object", "open after release", "open after abort"],
)
async def test_silence_has_an_end(
    receiver: Receiver, autojump_clock: trio.testing.MockClock, what: Said, seconds: float, answers: list[PDU]
) -> None:
    start = trio.current_time()
    assert await conversation(receiver, *what, close=False) == answers
    assert trio.current_time() - start == pytest.approx(seconds)


async def test_bytes_that_drip_in_do_not_count(receiver: Receiver, autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.serve_stream, theirs)

        async def drip() -> None:
            for byte in encoded(request()):
                await trio.sleep(1)
                await ours.send_all(bytes([byte]))

        with pytest.raises(trio.BrokenResourceError):
            await drip()
    assert trio.current_time() - start == pytest.approx(11, abs=1)


async def test_cancelled_it_aborts_and_leaves_nothing(receiver: Receiver, tmp_path: Path) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    heard = bytearray()
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as serving:
            serving.start_soon(receiver.serve_stream, theirs)
            await ours.send_all(encoded(request(), message(1, GOOD, bytes(1 << 20))[:-50]))
            await trio.testing.wait_all_tasks_blocked()
            serving.cancel_scope.cancel()
        async for piece in ours:
            heard += piece
        nursery.cancel_scope.cancel()
    assert whole_pdus(heard)[-1] == Abort(0, 0)
    assert os.listdir(tmp_path) == []


async def test_cancelled_its_peers_hear_of_it(receiver: Receiver, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(make_data_set_file())
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as serving:
            serving.start_soon(receiver.serve_stream, theirs)
            association = await wrap_client_stream(nursery, ours, [CT])
            assert (await CStoreSCU(association).send(path)).is_success
            serving.cancel_scope.cancel()
        await association.wait_closed()
        assert isinstance(association.failure, AssociationAborted)


async def test_echoes_are_answered_between_objects(receiver: Receiver) -> None:
    echo_request = message(3, CEchoRQ(7, VERIFICATION))
    answers = await conversation(
        receiver, request(), echo_request, message(1, GOOD, DATA_SET), echo_request, ReleaseRQ()
    )
    commands = [decode_command(pdu.pdvs[0].data) for pdu in answers if isinstance(pdu, PDataTF)]
    assert [type(each).__name__ for each in commands] == ["CEchoRSP", "CStoreRSP", "CEchoRSP"]
    assert [each.message_id_being_responded_to for each in commands] == [7, 1, 7]  # type: ignore[union-attr]
