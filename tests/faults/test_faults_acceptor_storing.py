"""Objects that arrive in a folder, or do not: rows 76 to 82 and 90 of the fault table."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from types import SimpleNamespace

import pydicom
import pytest
import trio
import trio.testing

from support.acceptor_link import (
    CONTEXTS,
    CT,
    DATA_SET,
    FILE,
    UID,
    data_set_of,
    memory_server,
    rest,
    store_rq,
)
from trio_dicom import Admission, Duplicates, InstanceFolder, PresentationContext
from trio_dicom.protocol.pdu import Abort, ReleaseRP, ReleaseRQ
from trio_dicom.sources import threads
from trio_dicom.testing.instances import make_instance_file
from trio_dicom.testing.scripted_peer import GONE, association_request, encoded, message
from trio_dicom.testing.streams import loopback_streams
from trio_dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT


@pytest.fixture
def no_threads(monkeypatch):
    """What is done in threads is done at once: so the virtual clock does not run ahead of them."""

    monkeypatch.setattr(threads, "stand_still", SimpleNamespace(get=lambda: True))


def folder(path, **options):
    return InstanceFolder(path, sync=False, min_free=0, **options)


def files(path):
    """The final names, after a look that there are no others."""
    names = sorted(os.listdir(path))
    assert not [name for name in names if name.startswith(".")]
    return names


def check_stored(path, *, data_set=DATA_SET, uid=UID):
    assert files(path) == [f"{uid}.dcm"]
    stored = (path / f"{uid}.dcm").read_bytes()
    assert stored.endswith(data_set)
    pydicom.dcmread(path / f"{uid}.dcm")


# --- 78: cut at every byte --------------------------------------------------------------------------------------------

SESSION = encoded(association_request([CT])) + message(1, store_rq(FILE), DATA_SET, max_pdu_length=128)
ABORT = encoded(Abort())


async def fin(peer):
    await peer.close()


async def reset(peer):
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await peer.close()


async def abort(peer):
    with suppress(*GONE):
        await peer.send(ABORT)
    await peer.close()


@pytest.mark.fault_row(78)
@pytest.mark.parametrize("ending", [fin, abort], ids=lambda ending: f"fault78-{ending.__name__}")
async def test_cut_at_every_byte(ending, tmp_path, no_threads, autojump_clock):
    async with memory_server(folder(tmp_path)) as server:
        for cut in range(len(SESSION)):
            if ending is abort and cut >= len(SESSION) - len(ABORT):
                break  # the A-ABORT would lie in the last PDU, and be the end of the data set
            peer = await server.connect()
            await peer.send(SESSION[:cut] or b"\1")
            await trio.testing.wait_all_tasks_blocked()
            await ending(peer)
            await server.check_empty()
            assert files(tmp_path) == []
        assert trio.current_time() < 1
        peer = await server.connect()
        await peer.send(SESSION)
        await peer.receive_pdu()
        assert (await peer.receive_message())[1].status == 0x0000
        await ending(peer)
    check_stored(tmp_path)


@pytest.mark.fault_row(78)
async def test_fault78_reset_at_every_byte(tmp_path, no_threads):
    async with memory_server(folder(tmp_path)) as server:
        for cut in range(1, len(SESSION), 3):
            streams = await loopback_streams()
            peer = await server.connect(lambda streams=streams: streams)
            await peer.send(SESSION[:cut])
            await reset(peer)
        while server.inside > 1 or server.waiting:  # sockets are not there at once
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert files(tmp_path) == []


@pytest.mark.fault_row(78)
async def test_fault78_through_threads(tmp_path):
    """On the disk as it is: a large object, cut while threads are at work on it."""
    big = bytes(3 << 20)
    raw = message(1, store_rq(FILE), DATA_SET + big)
    admission = Admission(associations_per_host=64)  # threads may be at work for those that have gone
    async with memory_server(folder(tmp_path), admission=admission) as server:
        for cut in range(1000, len(raw), len(raw) // 7):
            for ending in (fin, abort):
                peer = await server.associate()
                await peer.send(raw[:cut])
                await trio.lowlevel.checkpoint()
                await ending(peer)
        while server.inside > 1:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert files(tmp_path) == []
        peer = await server.associate()
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()
    check_stored(tmp_path)


# --- 90 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(71, 90)
@pytest.mark.parametrize(
    ("last", "answer"),
    [
        pytest.param(encoded(ReleaseRQ()), [ReleaseRP()], id="fault90-release"),
        pytest.param(ABORT, [], id="fault90-abort"),
        pytest.param(encoded(association_request(CONTEXTS)), [Abort(2, 2)], id="fault71-request"),
        pytest.param(b"\x09\0\0\0\0\0", [Abort(2, 1)], id="fault71-unknown_pdu"),
    ],
)
async def test_in_the_middle_of_a_data_set(last, answer, tmp_path, no_threads, autojump_clock):
    raw = message(1, store_rq(FILE), DATA_SET, max_pdu_length=128)
    async with memory_server(folder(tmp_path)) as server:
        peer = await server.associate()
        last_pdu = len(message(1, store_rq(FILE))) - len(raw)
        await peer.send(raw[: last_pdu + 128 + 6], last)  # one PDU of the data set, of several
        assert await rest(peer) == answer
        await server.check_empty()
        assert files(tmp_path) == []


# --- 76: the same again -----------------------------------------------------------------------------------------------


def variant(letter: bytes) -> bytes:
    """The same instance with other pixels."""
    assert DATA_SET[-100:] != letter * 100
    return DATA_SET[:-100] + letter * 100


@pytest.mark.fault_row(76)
@pytest.mark.parametrize(
    ("duplicates", "status", "left"),
    [(Duplicates.REPLACE, 0x0000, b"b"), (Duplicates.KEEP, 0x0000, b"a"), (Duplicates.REFUSE, 0x0111, b"a")],
    ids=["fault76-replace", "fault76-keep", "fault76-refuse"],
)
async def test_the_same_instance_twice(duplicates, status, left, tmp_path, no_threads, autojump_clock):
    async with memory_server(folder(tmp_path, duplicates=duplicates)) as server:
        peer = await server.associate()
        await peer.send_message(1, store_rq(FILE), variant(b"a"))
        assert (await peer.receive_message())[1].status == 0x0000
        await peer.send_message(1, store_rq(FILE), variant(b"b"))
        assert (await peer.receive_message())[1].status == status
        assert await peer.release() == ReleaseRP()
    check_stored(tmp_path, data_set=variant(left))


@pytest.mark.fault_row(76)
@pytest.mark.parametrize("duplicates", list(Duplicates), ids="fault76-{.value}".format)
async def test_the_same_instance_on_two_associations_at_once(duplicates, tmp_path, no_threads, autojump_clock):
    one, two = (message(1, store_rq(FILE), variant(letter), max_pdu_length=64) for letter in (b"a", b"b"))
    async with memory_server(folder(tmp_path, duplicates=duplicates)) as server:
        peers = [await server.associate(), await server.associate()]
        for at in range(0, len(one), 50):
            await peers[0].send(one[at : at + 50])
            await peers[1].send(two[at : at + 50])
            await trio.testing.wait_all_tasks_blocked()
        statuses = sorted([(await peer.receive_message())[1].status for peer in peers])
        for peer in peers:
            assert await peer.release() == ReleaseRP()
    assert statuses == [0x0000, 0x0111 if duplicates is Duplicates.REFUSE else 0x0000]
    stored = (tmp_path / f"{UID}.dcm").read_bytes()
    assert stored.endswith((variant(b"a"), variant(b"b")))
    assert len(files(tmp_path)) == 1


# --- 75, 77, 79, 80 ---------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(75, 77, 79)
@pytest.mark.parametrize(
    ("changes", "data_set", "status"),
    [
        pytest.param({"affected_sop_instance_uid": "1.2.3"}, DATA_SET, 0xA900, id="fault77-instance"),
        pytest.param({}, data_set_of(make_instance_file(number=2)), 0xA900, id="fault77-other_object"),
        pytest.param({"affected_sop_instance_uid": "../../x"}, DATA_SET, 0xC000, id="fault75-path"),
        pytest.param({}, b"", 0xC000, id="fault79-no_bytes"),
    ],
)
async def test_what_is_not_filed(changes, data_set, status, tmp_path, no_threads, autojump_clock):
    async with memory_server(folder(tmp_path)) as server:
        peer = await server.associate()
        response, _ = await peer.request(1, store_rq(FILE, **changes), data_set)
        assert response.status == status
        assert files(tmp_path) == []
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()
    check_stored(tmp_path)


@pytest.mark.fault_row(80)
@pytest.mark.parametrize(
    "layout", ["{sop_instance_uid}.dcm", "{patient_id}/{sop_instance_uid}.dcm"], ids=["uid", "patient"]
)
@pytest.mark.parametrize("depth", [60, 10_000])
@pytest.mark.parametrize("where", ["before", "after"])
async def test_fault80_nested_sequences(layout, depth, where, tmp_path, no_threads, autojump_clock):
    """They are stepped over, within a bound and without recursion, or not looked at; with a layout that does not need
    what is behind them, any object is filed."""
    nest = (b"\x08\0\x40\x11" + b"\xff" * 4 + b"\xfe\xff\0\xe0" + b"\xff" * 4) * depth
    head = b"\x08\0\x16\0" + len(CT).to_bytes(4, "little") + CT.encode()
    if len(CT) % 2:
        head = b"\x08\0\x16\0" + (len(CT) + 1).to_bytes(4, "little") + CT.encode() + b"\0"
    uid = UID.encode() + b"\0" * (len(UID) % 2)
    head += b"\x08\0\x18\0" + len(uid).to_bytes(4, "little") + uid
    data = nest + head if where == "before" else head + nest
    async with memory_server(folder(tmp_path, layout=layout)) as server:
        peer = await server.associate(contexts=[PresentationContext(CT, [IMPLICIT])])
        response, _ = await peer.request(1, store_rq(FILE), data)
        assert response.status in (0x0000, 0xC000)
        if where == "after" and "patient" not in layout:
            assert response.status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert len(files(tmp_path)) == (response.status == 0)


# --- 82: the disk -----------------------------------------------------------------------------------------------------

CALLS = ["open", "writev", "fsync", "replace", "link", "close", "dup", "fstatvfs", "stat", "fstat"]


@pytest.mark.fault_row(82)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EMFILE, errno.EACCES],
                         ids=lambda code: f"fault82-{errno.errorcode[code]}")  # fmt: skip
@pytest.mark.parametrize("call", CALLS)
async def test_the_disk_fails(call, code, tmp_path, no_threads, autojump_clock, monkeypatch):
    """Whatever fails, once: A700 and no file, or the file as it should be; then all is well again."""
    duplicates = Duplicates.KEEP if call == "link" else Duplicates.REPLACE
    handler = InstanceFolder(tmp_path, sync=True, min_free=1, duplicates=duplicates)
    real = getattr(os, call)
    failed = 0

    async with memory_server(handler) as server:
        peer = await server.associate()
        assert (await peer.store(make_instance_file(number=9))).status == 0x0000
        os.unlink(tmp_path / next(iter(files(tmp_path))))

        def failing(*args, **kwargs):
            nonlocal failed
            monkeypatch.setattr(os, call, real)
            failed += 1
            if call == "close":
                real(*args, **kwargs)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, call, failing)
        response = await peer.store(FILE)
        monkeypatch.setattr(os, call, real)
        assert failed == 1
        assert response.status in (0x0000, 0xA700)
        if call not in ("close", "fstat", "stat"):
            assert response.status == 0xA700
        assert files(tmp_path) == [f"{UID}.dcm"] * (response.status == 0)
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()
    check_stored(tmp_path)


@pytest.mark.fault_row(82)
async def test_fault82_the_disk_is_full_in_the_middle_of_an_object(tmp_path, no_threads, autojump_clock, monkeypatch):
    real, written = os.writev, 0

    def writev(fd, buffers):
        nonlocal written
        if sum(map(len, buffers)) > 500_000:  # of the object, not of an answer
            written += 1
            if written > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, buffers)

    async with memory_server(folder(tmp_path)) as server:
        peer = await server.associate()
        monkeypatch.setattr(os, "writev", writev)
        response, _ = await peer.request(1, store_rq(FILE), DATA_SET + bytes(5 << 20))
        monkeypatch.setattr(os, "writev", real)
        assert response.status == 0xA700
        assert written == 2
        assert files(tmp_path) == []
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()
    check_stored(tmp_path)


@pytest.mark.fault_row(82)
async def test_fault82_short_of_space(tmp_path, no_threads, autojump_clock):
    handler = InstanceFolder(tmp_path, sync=False, min_free=1 << 62)
    async with memory_server(handler) as server:
        peer = await server.associate()
        response = await peer.store(FILE)
        assert response.status == 0xA700
        assert files(tmp_path) == []
        handler._min_free = 0
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()


@pytest.mark.fault_row(82)
async def test_fault82_an_object_that_is_too_large(tmp_path, no_threads, autojump_clock):
    async with memory_server(folder(tmp_path, max_object_size=2 << 20)) as server:
        peer = await server.associate()
        response, _ = await peer.request(1, store_rq(FILE), DATA_SET + bytes(5 << 20))
        assert response.status == 0xC000
        assert files(tmp_path) == []
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()
