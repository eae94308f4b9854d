from __future__ import annotations

import errno
import os
import pathlib
import socket
import struct
import threading

import pytest
import trio

from sources.source_helpers import (
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    SHIPPED,
    data_set,
    decoded,
    drain,
    implicit,
    meta,
    uid,
)
from trio_dicom.errors import InvalidObject, LocalProtocolError, ObjectChanged, ReadError, Retry
from trio_dicom.sources import file as file_module
from trio_dicom.sources.file import open_file, open_files

LARGE = data_set(pixels=bytes(range(256)) * 1200)  # 300 KiB: more than is read at opening


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def write(path, data):
    path.write_bytes(data)


@pytest.fixture(params=["on the loop", "in threads"])
def reading(request, monkeypatch):
    if request.param == "in threads":
        monkeypatch.setattr(file_module, "read_on_loop", False)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(meta() + LARGE)
    return path


def shipped():
    found = []
    for path in sorted(SHIPPED.glob("*.dcm")):
        try:
            head = file_module.read_head(path)
        except InvalidObject:
            continue
        found.append(pytest.param(path, head, id=path.name))
    return found


@pytest.mark.parametrize(("path", "head"), shipped())
async def test_a_file_goes_out_byte_for_byte(path, head, reading):
    async with await open_file(path) as source:
        assert (source.sop_class_uid, source.transfer_syntaxes[0]) == (head.sop_class_uid, head.transfer_syntax_uid)
        await source.prepare(head.transfer_syntax_uid)
        assert await drain(source, 4098) == path.read_bytes()[head.data_set_offset :]


@pytest.mark.parametrize("room", [50, 1000, 65536, 1 << 20])
async def test_any_room_will_do(path, reading, room):
    async with await open_file(path) as source:
        assert await drain(source, room) == LARGE


@pytest.mark.parametrize("room", [2, 1000, 65536, 1 << 20])
async def test_what_is_cached_is_read_at_once(path, room):
    async with await open_file(path) as source:
        buffer, out, finished = memoryview(bytearray(room)), b"", False
        while not finished:
            count, finished = source.read_at_once(buffer)
            out += buffer[:count]
        assert out == LARGE
        assert source.read_at_once(buffer) is None


async def test_reading_at_once_and_waiting_go_on_where_the_other_ended(path):
    buffer, out, finished = memoryview(bytearray(10_000)), b"", False
    async with await open_file(path) as source:
        while not finished:
            count, finished = source.read_at_once(buffer) if len(out) % 20_000 else await source.read_into(buffer)
            out += buffer[:count]
    assert out == LARGE


async def test_nothing_is_read_at_once_that_is_not_cached(path, monkeypatch):
    async with await open_file(path) as source:
        monkeypatch.setattr(file_module, "_read_at_once", lambda fd, target, offset: 0)
        assert source.read_at_once(memoryview(bytearray(100_000))) is None
        assert await drain(source) == LARGE
    assert source.read_at_once(memoryview(bytearray(10))) is None


async def test_the_last_bytes_say_so_even_when_they_fill_the_buffer(path, reading):
    async with await open_file(path) as source:
        assert await source.read_into(memoryview(bytearray(len(LARGE)))) == (len(LARGE), True)
        with pytest.raises(LocalProtocolError):
            await source.read_into(memoryview(bytearray(2)))


async def test_rewind_starts_again(path, reading):
    async with await open_file(path) as source:
        await source.read_into(memoryview(bytearray(100_000)))
        assert await source.rewind()
        assert await drain(source) == LARGE
    assert not await source.rewind()
    with pytest.raises(trio.ClosedResourceError):
        await source.read_into(memoryview(bytearray(2)))


async def test_only_what_is_offered_can_be_prepared(path):
    async with await open_file(path) as source:
        assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
        with pytest.raises(ValueError, match="cannot be sent"):
            await source.prepare("1.2.840.10008.1.2.4.50")


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "JPEG-lossy.dcm"])
async def test_compressed_and_big_endian_files_offer_only_their_own(name):
    async with await open_file(SHIPPED / name) as source:
        assert source.transfer_syntaxes == (source.head.transfer_syntax_uid,)


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, DEFLATED])
async def test_encoded_anew_from_the_open_file(path, reading, target):
    async with await open_file(path) as source:
        await source.prepare(target)
        assert decoded(await drain(source, 10_000), target) == decoded(LARGE, EXPLICIT)
        await source.prepare(EXPLICIT)
        assert await drain(source) == LARGE


# --- what is no file ------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(106)
async def test_fault106_a_directory(tmp_path):
    with pytest.raises(InvalidObject, match="directory") as caught:
        await open_file(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.fault_row(106)
async def test_fault106_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with trio.fail_after(5), pytest.raises(InvalidObject, match="FIFO"):
        await open_file(tmp_path / "fifo")


@pytest.mark.fault_row(106)
async def test_fault106_a_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(InvalidObject, match="socket"):
            await open_file("socket")


@pytest.mark.fault_row(106)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
async def test_fault106_a_device(device):
    with pytest.raises(InvalidObject, match="character device"):
        await open_file(device)


@pytest.mark.fault_row(106)
async def test_fault106_links_that_lead_nowhere(tmp_path):
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    for name, number in (("dangling", errno.ENOENT), ("loop", errno.ELOOP)):
        with pytest.raises(ReadError) as caught:
            await open_file(tmp_path / name)
        assert caught.value.__cause__.errno == number
        assert caught.value.retry is Retry.NEVER


@pytest.mark.fault_row(107)
@pytest.mark.parametrize(("number", "retry"), [(errno.EACCES, Retry.NEVER), (errno.EIO, Retry.LATER),
                                               (errno.ESTALE, Retry.LATER), (errno.EMFILE, Retry.LATER)])  # fmt: skip
async def test_fault107_an_error_of_the_system_says_when_to_try_again(path, monkeypatch, number, retry):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ReadError) as caught:
        await open_file(path)
    assert (caught.value.retry, caught.value.__cause__.errno, caught.value.where) == (retry, number, str(path))


@pytest.mark.fault_row(107)
async def test_fault107_an_error_in_the_middle(path, monkeypatch, reading):
    before = descriptors()
    async with await open_file(path) as source:
        await source.read_into(memoryview(bytearray(70_000)))

        def fail(*args):
            raise OSError(errno.EIO, "no luck")

        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(ReadError) as caught:
            await source.read_into(memoryview(bytearray(70_000)))
        assert caught.value.retry is Retry.LATER
        assert not source.buffer_in_use
    assert descriptors() == before


@pytest.mark.parametrize(
    "data", [b"", b"short", bytes(5000), meta(), meta(None) + data_set(), meta() + data_set() + b"x"]
)
async def test_what_is_no_object_is_refused_and_closed(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    before = descriptors()
    with pytest.raises(InvalidObject) as caught:
        await open_file(tmp_path / "x")
    assert caught.value.where == str(tmp_path / "x")
    assert descriptors() == before


@pytest.mark.fault_row(100)
async def test_fault100_odd_length_is_refused_at_opening(tmp_path):
    (tmp_path / "x").write_bytes(meta() + data_set() + b"x")
    with pytest.raises(InvalidObject, match="odd length"):
        await open_file(tmp_path / "x")


@pytest.mark.fault_row(111)
async def test_fault111_names_are_escaped_in_messages(tmp_path):
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"x" * 255):
        odd = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        write(odd, meta() + data_set())
        async with await open_file(odd) as source:
            assert await drain(source) == data_set()
            assert source.where.isascii()
            assert source.where.isprintable()
    with pytest.raises(ReadError, match="not a path"):
        await open_file("a\0b")


async def test_several_files_in_one_hop(path, tmp_path):
    before = descriptors()
    first, second, third = await open_files([path, tmp_path, path])
    assert isinstance(second, InvalidObject)
    assert await drain(first) == await drain(third) == LARGE
    await first.aclose()
    await third.aclose()
    await third.aclose()
    assert descriptors() == before


# --- files that change ----------------------------------------------------------------------------------------------


def grow(path):
    with path.open("ab") as stream:
        stream.write(b"xx")


def shrink(path):
    os.truncate(path, 1000)


def shrink_a_little(path):
    os.truncate(path, path.stat().st_size - 2)


def rewrite(path):
    with path.open("r+b") as stream:
        stream.write(b"\0")
    os.utime(path, ns=(1, 1))


def replace(path):
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


@pytest.mark.fault_row(108)
@pytest.mark.parametrize("change", [grow, shrink, shrink_a_little, rewrite, replace, pathlib.Path.unlink])
@pytest.mark.parametrize("pixels", [LARGE, data_set()], ids=["large", "small"])
async def test_fault108_a_file_that_changed_never_finishes(tmp_path, reading, change, pixels):
    path = tmp_path / "image.dcm"
    path.write_bytes(meta() + pixels)
    async with await open_file(path) as source:
        await source.read_into(memoryview(bytearray(20)))
        change(path)
        with pytest.raises(ObjectChanged) as caught:
            await drain(source)
        assert caught.value.where == str(path)


@pytest.mark.fault_row(108)
async def test_fault108_a_file_that_changed_never_finishes_at_once(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(meta() + LARGE)
    async with await open_file(path) as source:
        grow(path)
        buffer = memoryview(bytearray(len(LARGE)))
        assert source.read_at_once(buffer[: len(LARGE) - 2]) == (len(LARGE) - 2, False)
        with pytest.raises(ObjectChanged):
            source.read_at_once(buffer)


@pytest.mark.fault_row(108)
async def test_fault108_a_renamed_file_is_the_same_file(path, reading):
    async with await open_file(path) as source:
        path.rename(path.with_suffix(".moved"))
        assert await drain(source) == LARGE


@pytest.mark.fault_row(108)
async def test_fault108_a_changed_file_never_finishes_encoded_anew_either(path, reading):
    async with await open_file(path) as source:
        await source.prepare(IMPLICIT)
        rewrite(path)
        with pytest.raises(ObjectChanged):
            await drain(source)


# --- cancellation ---------------------------------------------------------------------------------------------------


class Gate:
    """Holds threads inside a system call until they are let go."""

    def __init__(self, monkeypatch, name):
        self.entered, self.open, self.left = (threading.Event() for _ in range(3))
        real = getattr(os, name)

        def slow(*args):
            if threading.current_thread() is threading.main_thread():
                return real(*args)
            self.entered.set()
            try:
                assert self.open.wait(30)
                return real(*args)
            finally:
                self.left.set()

        monkeypatch.setattr(os, name, slow)


async def cancelled_inside(gate, operation, *args):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operation, *args)
        await trio.to_thread.run_sync(gate.entered.wait, 30)
        nursery.cancel_scope.cancel()


async def all_closed(gate, before):
    gate.open.set()
    await trio.to_thread.run_sync(gate.left.wait, 30)
    with trio.fail_after(10):
        while descriptors() != before:  # the thread still has to return from the call
            await trio.lowlevel.checkpoint()


@pytest.mark.fault_row(107)
async def test_a_read_that_hangs_is_abandoned_and_its_thread_closes_the_file(path, monkeypatch):
    monkeypatch.setattr(file_module, "read_on_loop", False)
    before = descriptors()
    source = await open_file(path)
    await source.read_into(memoryview(bytearray(65_000)))
    gate = Gate(monkeypatch, "preadv")
    await cancelled_inside(gate, source.read_into, memoryview(bytearray(200_000)))
    assert source.buffer_in_use
    with trio.fail_after(1):
        await source.aclose()
    assert descriptors() == before + 1  # the thread is reading from it
    await all_closed(gate, before)


@pytest.mark.fault_row(107)
@pytest.mark.parametrize("call", ["open", "fstat"])
async def test_an_opening_that_hangs_leaves_no_descriptor(path, monkeypatch, call):
    before = descriptors()
    gate = Gate(monkeypatch, call)
    await cancelled_inside(gate, open_file, path)
    await all_closed(gate, before)


async def test_an_encoding_that_is_cancelled_leaves_no_descriptor(path, monkeypatch):
    before = descriptors()
    source = await open_file(path)
    gate = Gate(monkeypatch, "dup")
    await cancelled_inside(gate, source.prepare, IMPLICIT)
    await source.aclose()
    await all_closed(gate, before)


def test_a_descriptor_that_is_forgotten_warns_and_closes(path):
    before = descriptors()
    descriptor = file_module.Descriptor()
    descriptor.open(path)
    assert descriptors() == before + 1
    with pytest.warns(ResourceWarning, match="not closed"):
        del descriptor
    assert descriptors() == before


async def test_where_the_file_system_cannot_tell_the_thread_reads(path, monkeypatch):
    real = os.preadv

    def refusing(fd, buffers, offset, flags=0):
        if flags:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    async with await open_file(path) as source:
        assert await drain(source) == LARGE


async def test_what_is_not_cached_is_read_by_a_thread(path, monkeypatch):
    real, asked = os.preadv, []

    def partly(fd, buffers, offset, flags=0):
        if flags:
            asked.append(offset)
            if len(asked) % 2:
                raise BlockingIOError
            return real(fd, [buffers[0][:100]], offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", partly)
    async with await open_file(path) as source:
        assert await drain(source, 50_000) == LARGE
    assert len(asked) > 5


def test_the_head_is_read_without_trio(path):
    head = file_module.read_head(path)
    assert (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid) == (CT, INSTANCE, EXPLICIT)


async def test_a_file_that_cannot_be_encoded_anew_says_which(tmp_path):
    path = tmp_path / "odd.dcm"
    write(path, meta() + data_set() + b"\x09\0\x05\0zz\2\0ab")
    async with await open_file(path) as source:
        with pytest.raises(InvalidObject, match="damaged") as caught:
            await source.prepare(IMPLICIT)
        assert caught.value.where == str(path)
        await source.prepare(EXPLICIT)  # as it lies on the disk it can go, for all that is known
        assert (await drain(source)).startswith(data_set())


@pytest.mark.fault_row(107)
async def test_fault107_an_error_while_it_is_encoded_anew(path, monkeypatch):
    def fail(fd):
        raise OSError(errno.ESTALE, "no luck")

    async with await open_file(path) as source:
        monkeypatch.setattr(os, "dup", fail)
        with pytest.raises(ReadError) as caught:
            await source.prepare(IMPLICIT)
        assert caught.value.retry is Retry.LATER


async def test_odd_values_keep_their_bytes_when_encoded_anew(tmp_path):
    odd_values = implicit(0x0010, 0x4000, b"odd") + implicit(0x0010, 0x21B0, b"odd")
    path = tmp_path / "odd.dcm"
    retired = struct.pack("<HHLL", 8, 0, 4, 0)
    write(path, meta(IMPLICIT) + retired + implicit(8, 0x16, uid(CT)) + implicit(8, 0x18, uid(INSTANCE)) + odd_values)
    async with await open_file(path) as source:
        await source.prepare(EXPLICIT)  # two odd values: the whole is even
        assert b"odd" in await drain(source)


async def test_the_file_shrinks_before_its_head_is_read(path, monkeypatch, reading):
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset, *flags: real(fd, [b[:0] for b in buffers], offset))
    with pytest.raises(ObjectChanged, match="shrank"):
        await open_file(path)
