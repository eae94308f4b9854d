from __future__ import annotations

import io
import os
import random
import struct
import threading
import tracemalloc
import zipfile

import pytest
import trio

from inputs.input_helpers import all_items, descriptors, names, sent, why_not, zip_of
from sources.source_helpers import DEFLATED, EXPLICIT, IMPLICIT, data_set, drain, meta
from trio_dicom.errors import InvalidObject, ObjectChanged
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.inputs.item import open_items
from trio_dicom.sources import zip_archive, zip_member
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import make_instance_file

WHOLE = meta() + data_set()
LARGE_BODY = data_set(pixels=random.Random(0).randbytes(3 << 20))  # does not shrink
LARGE = meta() + LARGE_BODY


async def test_the_files_of_an_archive(tmp_path):
    files = {f"study/{name}": make_instance_file(number=number) for number, name in enumerate("abc", 1)}
    archive = zip_of(tmp_path / "a.zip", {**files, "empty/": b"", "b": WHOLE})
    for most in (1, 3, 100):
        items = await all_items(archive, most)
        assert names(items) == [f"{archive}!{name}" for name in (*files, "b")]
    assert [await sent(item) for item in items] == [
        file[file.index(b"\x08\0\x16\0") :] for file in [*files.values()]
    ] + [data_set()]


async def test_it_is_told_by_its_first_bytes(tmp_path):
    zip_of(tmp_path / "study", {"a": WHOLE})
    (item,) = await all_items(tmp_path / "study")
    assert item.name == f"{tmp_path}/study!a"
    assert await all_items(zip_of(tmp_path / "empty", {})) == []
    both = tmp_path / "image.zip"  # a DICOM file whose preamble is somebody else's
    both.write_bytes(b"PK\3\4" + WHOLE[4:])
    (item,) = await all_items(both)
    assert await sent(item) == data_set()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("size", [0, 1 << 20, 3 << 20])
async def test_every_method_gives_the_bytes(tmp_path, method, size):
    before = descriptors()
    body = data_set(pixels=random.Random(1).randbytes(size // 2) + bytes(size // 2))
    (item,) = await all_items(zip_of(tmp_path / "a.zip", {"it": meta() + body}, method))
    async with await item.open() as source:
        assert source.memory == (source.size + len(meta()) if size == 0 else 0)
        assert source.size == len(body)
        for room in (1000, 65536, 1 << 20):
            await source.prepare(EXPLICIT)
            assert await drain(source, room) == body
        for syntax in (IMPLICIT, DEFLATED):
            await source.prepare(syntax)
            assert len(await drain(source)) == source.size
        await source.prepare(EXPLICIT)
        await source.read_into(memoryview(bytearray(1000)))
        assert await source.rewind()
        assert await drain(source) == body
    assert not await source.rewind()
    with pytest.raises(trio.ClosedResourceError):
        await source.read_into(memoryview(bytearray(10)))
    assert await sent(item) == body
    assert descriptors() == before


@pytest.mark.fault_row(99)
async def test_fault99_a_large_member_that_was_cut_off_never_finishes(tmp_path):
    """The archive is as it should be; what was packed is not."""
    (item,) = await all_items(zip_of(tmp_path / "a.zip", {"it": LARGE[:-2]}))
    async with await item.open() as source:
        for _ in range(2):
            await source.prepare(EXPLICIT)
            with pytest.raises(InvalidObject, match="cut off"):
                await drain(source)


async def test_a_small_one_is_whole_at_once(tmp_path):
    small, large = await all_items(zip_of(tmp_path / "a.zip", {"small": WHOLE, "large": LARGE}))
    async with await large.open() as source:
        assert source.whole() is None
    source = await small.open()
    view = source.whole()
    assert source.whole() is None  # it was had
    assert await source.rewind()
    await source.prepare(IMPLICIT)
    assert source.whole() is None
    await source.prepare(EXPLICIT)
    await source.read_into(memoryview(bytearray(10)))
    assert source.whole() is None
    await source.aclose()
    assert view == data_set()


async def test_what_zipfile_writes_is_read_alike(tmp_path):
    """Its comments, ZIP64, what stands before the archive, names of all kinds, and lengths that come after the data."""
    path = tmp_path / "a.zip"

    class OnlyWrite(io.RawIOBase):
        def __init__(self, file):
            self.file = file

        def writable(self):
            return True

        def write(self, data):
            return self.file.write(data)

    with path.open("wb") as file, zipfile.ZipFile(OnlyWrite(file), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("plain", make_instance_file(number=1))
        archive.writestr("Aufnahmen/Schädel", make_instance_file(number=2))
    with zipfile.ZipFile(path, "a") as archive:
        with archive.open("sixty-four", "w", force_zip64=True) as member:
            member.write(make_instance_file(number=3))
        info = zipfile.ZipInfo("with more")
        info.extra = struct.pack("<HH4s", 0x9999, 4, b"abcd")
        info.comment = b"comment of a member"
        archive.writestr(info, make_instance_file(number=4))
        archive.comment = b"comment " * 5000
    prefixed = tmp_path / "unpacking.zip"
    prefixed.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    for each in (path, prefixed):
        items = await all_items(each)
        with zipfile.ZipFile(each) as archive:
            assert names(items) == [f"{each}!{name}" for name in archive.namelist()]
            for item, name in zip(items, archive.namelist(), strict=True):
                assert archive.read(name).endswith(await sent(item))


@pytest.mark.parametrize("junk", [b"", b"and then something else"])
@pytest.mark.parametrize("comment", [b"", b"PK\5\6" * 100, b"PK\5\6" + bytes(60)])
async def test_comments_that_look_like_the_end(tmp_path, comment, junk):
    path = zip_of(tmp_path / "a.zip", {"a": WHOLE})
    data = (tmp_path / "a.zip").read_bytes()
    data = data[:-2] + struct.pack("<H", len(comment)) + comment
    (tmp_path / "a.zip").write_bytes(data + (junk if not comment else b""))
    assert names(await all_items(path)) == [f"{path}!a"]


async def test_an_archive_of_more_members_than_memory_should_hold(tmp_path):
    zip_of(tmp_path / "one.zip", {"x" * 200: b""})
    data = (tmp_path / "one.zip").read_bytes()
    entry_at, end_at = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    count = 70_000  # more than 16 bits can say
    directory = data[entry_at:end_at] * count
    end = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), entry_at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, entry_at + len(directory), 1)
    last = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "many.zip"
    path.write_bytes(data[:entry_at] + directory + end + locator + last)
    del directory
    tracemalloc.start()
    try:
        async with Inputs(path) as inputs:
            found = 0
            while items := await inputs.take(1000):
                found += len(items)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20  # the directory is of 17 MB
    finally:
        tracemalloc.stop()
    assert found == count
    path.write_bytes(b"something before" + path.read_bytes())
    assert len(await all_items(path, 10_000)) == count
    with zipfile.ZipFile(path) as archive:  # which finds them, too
        assert len(archive.filelist) == count


@pytest.mark.fault_row(109)
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_fault109_a_member_of_more_than_four_gigabytes(tmp_path):
    path = tmp_path / "large.zip"
    pixels = 0xFFFFFFF0
    head = meta() + data_set(pixels=b"")[:-4] + struct.pack("<L", pixels)
    tail = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 1 << 20) + bytes(1 << 20)
    size = len(head) + pixels + len(tail)
    assert size > 1 << 32
    zeros = bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("it", "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(pixels >> 20):
            member.write(zeros)
        member.write(zeros[: pixels & 0xFFFFF])
        member.write(tail)
    (item,) = await all_items(path)
    tracemalloc.start()
    try:
        async with await item.open() as source:
            assert source.size == size - len(meta())
            buffer = memoryview(bytearray(1 << 20))
            total, finished = 0, False
            while not finished:
                count, finished = await source.read_into(buffer)
                total += count
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert total == source.size


# --- what is wrong with an archive ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"PK\5\6" + bytes(10), b"PK\3\4" + bytes(1000), b"no archive" * 100])
async def test_an_archive_that_is_none(tmp_path, data):
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    (item,) = await all_items(path)
    assert (item.name, await why_not(item)) == (
        str(path),
        f"{path}: the ZIP archive is damaged: it has no end, or is no ZIP archive",
    )


@pytest.mark.parametrize("field", [12, 16])
@pytest.mark.parametrize("value", [1000, 0xFFFFFFF0])
async def test_a_directory_that_is_nowhere(tmp_path, field, value):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\5\6") + field
    data[at : at + 4] = struct.pack("<L", value)
    path.write_bytes(data)
    (item,) = await all_items(path)
    assert await why_not(item) == f"{path}: the ZIP archive is damaged: its directory is not where it should be"


async def test_an_archive_that_cannot_be_opened(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", {"a": WHOLE})
    inputs = Inputs([path])
    real = zip_archive.open_regular
    monkeypatch.setattr(zip_archive, "open_regular", lambda descriptor, path: real(descriptor, path + "gone"))
    (item,) = await inputs.take(5)
    assert await why_not(item) == f"{path}: cannot be read: No such file or directory"
    assert await inputs.take(5) == []


async def test_a_directory_that_breaks_off_gives_what_came_before(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"a": WHOLE, "b": WHOLE, "c": WHOLE})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    third = data.rindex(b"PK\1\2")
    data[third : third + 4] = b"junk"
    (tmp_path / "a.zip").write_bytes(data)
    a, b, broken = await all_items(path)
    assert await sent(a) == await sent(b) == data_set()
    assert await why_not(broken) == f"{path}: the ZIP archive is damaged: its directory"


async def test_encrypted_members(tmp_path):
    path = tmp_path / "a.zip"
    zip_of(path, {"open": WHOLE, "secret": WHOLE})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    ours, secret = await all_items(path)
    assert await sent(ours) == data_set()
    assert await why_not(secret) == f"{path}!secret: encrypted: unpack the archive, and send the folder"


async def test_members_that_are_not_read(tmp_path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link")
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lzma", WHOLE, zipfile.ZIP_LZMA)
        archive.writestr(link, "/etc/passwd")
    lzma, link = await all_items(path)
    assert "compressed by a method (14) that is not read here: unpack the archive" in await why_not(lzma)
    assert "not a file but a symbolic link" in await why_not(link)


async def test_volumes(tmp_path):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 34] = 3
    path.write_bytes(data)
    (item,) = await all_items(path)
    assert "in another volume" in await why_not(item)
    data[data.rindex(b"PK\5\6") + 4] = 3
    path.write_bytes(data)
    (item,) = await all_items(path)
    assert "the ZIP archive is in several volumes: join them first" in await why_not(item)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("whole", [WHOLE, LARGE], ids=["small", "large"])
async def test_a_member_whose_checksum_is_wrong_is_never_finished(tmp_path, method, whole):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": whole}, method)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 16] ^= 1
    path.write_bytes(data)
    (item,) = await all_items(path)
    before = descriptors()
    if whole is WHOLE:
        assert await why_not(item) == f"{path}!a: the ZIP archive is damaged: the checksum of this member is wrong"
    else:
        async with await item.open() as source:
            with pytest.raises(InvalidObject, match="!a: the ZIP archive is damaged: the checksum"):
                await drain(source)
            with pytest.raises(InvalidObject, match="!a: the ZIP archive is damaged: the checksum"):
                await source.prepare(IMPLICIT)
    assert descriptors() == before


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("whole", [WHOLE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", [1000, -300, -60])
async def test_a_member_of_another_size_than_is_said(tmp_path, method, whole, change):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": whole}, method)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<L", len(whole) + change)
    path.write_bytes(data)
    (item,) = await all_items(path)
    before = descriptors()
    with pytest.raises(InvalidObject):
        async with await item.open() as source:
            await drain(source)
    assert descriptors() == before


async def test_members_that_are_not_where_they_should_be(tmp_path):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2") + 42
    for offset, reason in ((5, "a member is not where it should be"), (len(data) - 10, "a member is cut short")):
        data[at : at + 4] = struct.pack("<L", offset)
        path.write_bytes(data)
        (item,) = await all_items(path)
        assert reason in await why_not(item)


async def test_every_byte_of_an_archive_may_be_wrong(tmp_path):
    """It ends in the same object, or in an `InvalidObject`; nothing else is sent, and no descriptor is left."""
    stand_still.set(True)  # no threads: these are many
    path = tmp_path / "a.zip"
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2):
        zip_of(path, {"a": WHOLE}, method)
        good = path.read_bytes()
        before = descriptors()
        for at in range(len(good)):
            for value in (0, 0xFF, good[at] ^ 1):
                path.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
                for result in await open_items(await all_items(path)):
                    if isinstance(result, InvalidObject):
                        continue
                    async with result as source:
                        assert await drain(source) == data_set()
            if not at % 5:
                path.write_bytes(good[:at])
                for result in await open_items(await all_items(path)):
                    assert isinstance(result, InvalidObject)
        assert descriptors() == before


@pytest.mark.fault_row(108)
async def test_fault108_an_archive_that_changes(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"small": WHOLE, "large": LARGE})
    small, large = await all_items(path)
    async with await large.open() as source:
        await source.read_into(memoryview(bytearray(1000)))
        os.utime(path, ns=(1, 1))
        with pytest.raises(ObjectChanged, match="the ZIP archive was changed") as caught:
            await drain(source)
        assert caught.value.where == large.name
    for item in (small, large):
        assert "the ZIP archive was changed after its members were listed" in await why_not(item)
    with pytest.raises(ObjectChanged):
        small.read_dataset()
    os.unlink(path)
    assert "No such file" in await why_not(small)


async def test_an_archive_that_is_renamed_while_a_member_is_sent(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"large": LARGE})
    (item,) = await all_items(path)
    async with await item.open() as source:
        os.rename(path, tmp_path / "b.zip")
        assert await drain(source) == LARGE_BODY


# --- memory, threads, descriptors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
async def test_a_bomb_costs_no_memory(tmp_path, method):
    path = tmp_path / "bomb.zip"
    pixels = 96 << 20
    body = data_set(pixels=b"")[:-4] + struct.pack("<L", pixels)
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("it", "w") as member:
        member.write(meta() + body)
        for _ in range(96):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 200_000
    stand_still.set(True)  # so that all of it is traced
    tracemalloc.start()
    try:
        (item,) = await all_items(path)
        async with await item.open() as source:
            for syntax in (EXPLICIT, IMPLICIT):
                await source.prepare(syntax)
                buffer = memoryview(bytearray(1 << 20))
                finished = False
                while not finished:
                    _, finished = await source.read_into(buffer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


async def test_members_are_sent_side_by_side(tmp_path):
    bodies = [data_set(pixels=random.Random(number).randbytes(2 << 20)) for number in range(4)]
    path = zip_of(tmp_path / "a.zip", {str(number): meta() + body for number, body in enumerate(bodies)})
    items = await all_items(path)
    before = descriptors()
    sources = await open_items(items)
    done = {}

    async def send(number):
        async with sources[number] as source:
            done[number] = await drain(source, 50_000)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(send, number)
    assert [done[number] for number in range(4)] == bodies
    assert descriptors() == before


@pytest.mark.fault_row(107)
async def test_a_read_that_hangs_is_abandoned_and_the_member_sent_again(tmp_path, monkeypatch):
    (item,) = await all_items(zip_of(tmp_path / "a.zip", {"a": LARGE}, zipfile.ZIP_STORED))
    before = descriptors()
    source = await item.open()
    entered, let_go = threading.Event(), threading.Event()
    real = zip_member.read_at

    def slow(*args):
        if not entered.is_set():
            entered.set()
            assert let_go.wait(30)
        return real(*args)

    monkeypatch.setattr(zip_member, "read_at", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, source)
        await trio.to_thread.run_sync(entered.wait, 30)
        nursery.cancel_scope.cancel()
    assert not source.buffer_in_use
    assert await source.rewind()
    assert await drain(source) == LARGE_BODY  # while the thread still hangs
    await source.aclose()
    assert descriptors() == before + 1
    let_go.set()
    with trio.fail_after(10):
        while descriptors() != before:
            await trio.lowlevel.checkpoint()


async def test_an_opening_that_hangs_leaves_no_descriptor(tmp_path, monkeypatch):
    items = await all_items(zip_of(tmp_path / "a.zip", {"a": WHOLE, "b": LARGE}))
    entered, let_go = threading.Event(), threading.Event()
    real = zip_member.read_at

    def slow(*args):
        entered.set()
        assert let_go.wait(30)
        return real(*args)

    monkeypatch.setattr(zip_member, "read_at", slow)
    before = descriptors()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_items, items)
        await trio.to_thread.run_sync(entered.wait, 30)
        nursery.cancel_scope.cancel()
    let_go.set()
    with trio.fail_after(10):
        while descriptors() != before:
            await trio.lowlevel.checkpoint()


@pytest.mark.fault_row(107)
async def test_fault107_an_archive_on_a_server_that_is_gone(tmp_path, monkeypatch):
    small, large = await all_items(zip_of(tmp_path / "a.zip", {"small": WHOLE, "large": LARGE}))
    before = descriptors()
    async with await large.open() as source:

        def fail(*args):
            raise OSError(116, "Stale file handle")

        monkeypatch.setattr(zip_member, "read_at", fail)
        with pytest.raises(InvalidObject, match="large: cannot be read: Stale file handle"):
            await drain(source)
        assert "small: cannot be read: Stale file handle" in await why_not(small)
    assert descriptors() == before


async def test_discarded_unread(tmp_path):
    items = await all_items(zip_of(tmp_path / "a.zip", {"small": WHOLE, "large": LARGE}))
    before = descriptors()
    for source in await open_items(items):
        source.discard()
        assert not await source.rewind()
    assert descriptors() == before


async def test_an_archive_that_is_given_up_in_the_middle(tmp_path):
    path = zip_of(tmp_path / "a.zip", {str(number): WHOLE for number in range(100)})
    before = descriptors()
    async with Inputs([path, "x"]) as inputs:
        await inputs.take(10)
        assert descriptors() == before + 1
        held = list(inputs._seen)  # so that it is closed, not only forgotten
        rest = inputs.rest()
        assert descriptors() == before
    assert names(rest) == [path, "x"]
    assert held
    async with Inputs(path) as inputs:
        await inputs.take(10)
    assert descriptors() == before


@pytest.mark.fault_row(111)
async def test_fault111_names_in_archives(tmp_path):
    path = tmp_path / "a.zip"
    odd = ["../../x", "/etc/x", "a\nb", "-rf", "x" * 255, "\x1b[2J", "C:\\x", "ü"]
    zip_of(path, dict.fromkeys(odd, WHOLE))
    items = await all_items(path)
    for item, name in zip(items, odd, strict=True):
        assert item.name == f"{path}!{name}"  # a name, and never a path
        assert item.identity(None).name == os.fsencode(path) + b"!" + name.encode()
        assert await sent(item) == data_set()
        async with await item.open() as source:
            assert source.where.isprintable()
            assert source.where.isascii()
    data = path.read_bytes().replace("ü".encode(), b"\xff\xfe")
    path.write_bytes(data)
    item = (await all_items(path))[-1]
    assert item.identity(None).name.endswith(b"!\xff\xfe")
    assert await sent(item) == data_set()


# --- ZIP64 ----------------------------------------------------------------------------------------------------------


def widened(data, extra):
    """The archive `data`, of one member, whose directory entry has `extra` in place of its sizes and its offset."""
    entry_at, end_at = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry, end = bytearray(data[entry_at:end_at]), bytearray(data[end_at:])
    entry[20:28] = entry[42:46] * 0 + b"\xff" * 8
    entry[42:46] = b"\xff" * 4
    entry[30:32] = struct.pack("<H", len(extra))
    end[12:16] = struct.pack("<L", len(entry) + len(extra))
    return data[:entry_at] + bytes(entry) + extra + bytes(end)


async def test_sizes_of_more_than_32_bits(tmp_path):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    other = struct.pack("<HHL", 0x9999, 4, 0)
    sizes = struct.pack("<HHQQQ", 1, 24, len(WHOLE), len(WHOLE), 0)
    for extra in (sizes, other + sizes, sizes + other):
        path.write_bytes(widened(data, extra))
        with zipfile.ZipFile(path) as archive:
            assert archive.infolist()[0].file_size == len(WHOLE)
        (item,) = await all_items(path)
        assert await sent(item) == data_set()


@pytest.mark.parametrize(
    "extra",
    [
        b"",
        struct.pack("<HHL", 0x9999, 4, 0),
        struct.pack("<HHQ", 1, 8, 500),
        struct.pack("<HHQ", 1, 24, 500),
        struct.pack("<HHQQQ", 1, 24, 500, 500, 0)[:-1],
    ],
)
async def test_sizes_of_more_than_32_bits_that_are_missing(tmp_path, extra):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE})
    path.write_bytes(widened(path.read_bytes(), extra))
    (item,) = await all_items(path)
    assert await why_not(item) == f"{path}: the ZIP archive is damaged: sizes are missing (ZIP64)"


async def test_sizes_of_more_than_32_bits_that_are_not_true(tmp_path):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE})
    data = path.read_bytes()
    for size, packed, offset in ((1 << 63, 1 << 63, 0), (400, 400, 1 << 63), (400, (1 << 64) - 1, (1 << 64) - 1)):
        path.write_bytes(widened(data, struct.pack("<HHQQQ", 1, 24, size, packed, offset)))
        (item,) = await all_items(path)
        assert await why_not(item) == f"{path}!a: the ZIP archive is damaged: a member is cut short"


@pytest.mark.parametrize("position", [0, 5, 1 << 63])
async def test_an_end_of_an_archive_that_is_nowhere(tmp_path, position):
    path = tmp_path / "a.zip"
    zip_of(path, {"a": WHOLE})
    data = path.read_bytes()
    at = data.index(b"PK\5\6")
    path.write_bytes(data[:at] + struct.pack("<4sLQL", b"PK\6\7", 0, position, 1) + data[at:])
    (item,) = await all_items(path)
    assert await why_not(item) == f"{path}: the ZIP archive is damaged: its end (ZIP64) is not where it should be"
