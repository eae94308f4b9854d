from __future__ import annotations

import gzip
import io
import os
import tempfile
import threading

import pytest
import trio
import trio.testing

from sources.source_helpers import EXPLICIT, INSTANCE, data_set, drain, meta
from trio_dicom.errors import InvalidObject, LocalProtocolError, ObjectChanged, ReadError
from trio_dicom.sources.stream import open_stream

BODY = data_set(pixels=bytes(range(256)) * 1000)
WHOLE = meta() + BODY


class Drip(trio.abc.ReceiveStream):
    """Gives what it has in pieces, then raises or ends."""

    def __init__(self, data, piece, error=None):
        self.data, self.piece, self.error, self.closed = data, piece, error, False

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        if not self.data and self.error:
            raise self.error
        count = min(self.piece, max_bytes or self.piece)
        chunk, self.data = self.data[:count], self.data[count:]
        return chunk

    async def aclose(self):
        self.closed = True


class Bare:
    """The least that is a file object: `read`."""

    def __init__(self, data, error=None):
        self.data, self.error, self.closed, self.sizes = io.BytesIO(data), error, False, []

    def read(self, size):
        self.sizes.append(size)
        chunk = self.data.read(size // 2 + 1)
        if not chunk and self.error:
            raise self.error
        return chunk

    def close(self):
        self.closed = True


@pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
async def test_a_trio_stream(piece):
    whole = meta() + data_set() if piece == 1 else WHOLE
    stream = Drip(whole, piece)
    async with await open_stream(stream) as source:
        assert (source.sop_instance_uid, source.transfer_syntaxes, source.size) == (INSTANCE, (EXPLICIT,), None)
        await source.prepare(EXPLICIT)
        assert await drain(source, 1000) == whole[len(meta()) :]
        assert not await source.rewind()
    assert not stream.closed


async def test_file_objects_of_all_kinds_are_read_and_left_open(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(WHOLE)
    with gzip.open(tmp_path / "image.gz", "wb") as packed:
        packed.write(WHOLE)
    with (
        tempfile.NamedTemporaryFile() as temporary,
        io.FileIO(path) as raw,
        io.BufferedReader(io.FileIO(path)) as plain,
    ):
        temporary.write(WHOLE)
        temporary.seek(0)
        with gzip.open(tmp_path / "image.gz") as unpacked:
            streams = [(plain, True), (raw, True), (unpacked, False), (temporary, True), (io.BytesIO(WHOLE), True)]
            for stream, known in streams:
                async with await open_stream(stream) as source:
                    assert source.size == (len(BODY) if known else None)
                    await source.prepare(EXPLICIT)
                    assert await drain(source, 9000) == BODY
                    assert await source.rewind()
                    assert await drain(source) == BODY
                assert not stream.closed


async def test_a_file_that_trio_opened(tmp_path):
    (tmp_path / "image.dcm").write_bytes(WHOLE)
    async with await trio.open_file(tmp_path / "image.dcm", "rb") as stream, await open_stream(stream) as source:
        assert await drain(source) == BODY


async def test_a_file_object_that_can_only_read():
    stream = Bare(WHOLE)
    async with await open_stream(stream) as source:
        assert source.size is None
        assert await drain(source) == BODY
        assert not await source.rewind()
        with pytest.raises(ReadError, match="second time"):
            await source.prepare(EXPLICIT)
    assert not stream.closed
    assert max(stream.sizes) <= 1 << 20


async def test_reading_begins_where_the_stream_stands():
    stream = io.BytesIO(b"x" * 99 + WHOLE)
    stream.seek(99)
    async with await open_stream(stream) as source:
        assert await drain(source) == BODY
        assert await source.rewind()
        assert await drain(source) == BODY


async def test_a_pipe():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb") as other:
        threading.Thread(target=lambda: (other.write(WHOLE), other.close())).start()
        async with await open_stream(stream) as source:
            assert source.size is None
            assert await drain(source) == BODY
            assert not await source.rewind()


@pytest.mark.parametrize("thing", [io.StringIO("text"), b"bytes", 7, None, object()])
async def test_what_is_no_stream_of_bytes(thing):
    with pytest.raises(TypeError, match="binary file object"):
        await open_stream(thing)


async def test_a_read_that_gives_text():
    class Text:
        def read(self, size):
            return "text"

    with pytest.raises(TypeError, match="str"):
        await open_stream(Text())


@pytest.mark.parametrize("data", [b"", WHOLE[:100], b"x" * 5000, meta(None) + BODY, meta()])
async def test_a_stream_without_an_object(data):
    with pytest.raises(InvalidObject):
        await open_stream(Drip(data, 50))
    with pytest.raises(InvalidObject):
        await open_stream(io.BytesIO(data))


@pytest.mark.fault_row(100)
async def test_fault100_an_odd_stream_never_finishes():
    with pytest.raises(InvalidObject, match="odd length"):
        await open_stream(io.BytesIO(WHOLE + b"x"))
    async with await open_stream(Drip(WHOLE + b"x", 5000)) as source:
        with pytest.raises(InvalidObject, match="odd length"):
            await drain(source)
        with pytest.raises(LocalProtocolError):  # and does not finish when asked again
            await source.read_into(memoryview(bytearray(10)))


@pytest.mark.fault_row(99)
@pytest.mark.parametrize("cut", [2, 1000, len(WHOLE) - len(meta()) - 40])
async def test_fault99_bytes_that_were_cut_off_are_refused_at_opening(cut):
    stream = io.BytesIO(b"before" + WHOLE[:-cut])
    stream.seek(6)
    with pytest.raises(InvalidObject, match="stream: the data set is cut off"):
        await open_stream(stream)
    stream.write(b"it can still be written to")


@pytest.mark.fault_row(99)
@pytest.mark.parametrize(
    "make", [lambda data: Drip(data, 5000), lambda data: io.BufferedReader(io.BytesIO(data)), Bare]
)
@pytest.mark.parametrize("cut", [2, 1000, len(WHOLE) - len(meta()) - 40])
async def test_fault99_a_stream_that_was_cut_off_never_finishes(make, cut):
    async with await open_stream(make(WHOLE[:-cut])) as source:
        with pytest.raises(InvalidObject, match="stream: the data set is cut off"):
            await drain(source)
        with pytest.raises(LocalProtocolError):
            await source.read_into(memoryview(bytearray(10)))


@pytest.mark.fault_row(115)
@pytest.mark.parametrize("error", [OSError(5, "no luck"), trio.BrokenResourceError("gone"), RuntimeError("a bug")])
@pytest.mark.parametrize("make", [lambda e: Drip(WHOLE, 5000, e), lambda e: Bare(WHOLE, e)])
async def test_fault115_a_stream_that_raises(error, make):
    async with await open_stream(make(error)) as source:
        with pytest.raises(ReadError) as caught:
            await drain(source)
        assert caught.value.__cause__ is error
        with pytest.raises(LocalProtocolError):
            await source.read_into(memoryview(bytearray(10)))


@pytest.mark.fault_row(108)
@pytest.mark.parametrize("data", [WHOLE + b"xx", WHOLE[:-2]])
async def test_fault108_a_file_object_that_changes(data):
    stream = io.BytesIO(WHOLE)
    async with await open_stream(stream) as source:
        stream.truncate(len(data))
        stream.getbuffer()[:]
        if len(data) > len(WHOLE):
            stream.seek(0, io.SEEK_END)
            stream.write(b"xx")
            stream.seek(len(meta()) + len(source._first))
        with pytest.raises(ObjectChanged):
            await drain(source)


async def test_a_cancelled_read_cannot_be_mistaken_for_the_end():
    class Hangs(Drip):
        async def receive_some(self, max_bytes=None):
            return await super().receive_some(max_bytes) or await trio.sleep_forever()

    async with await open_stream(Hangs(WHOLE, 5000)) as source:
        with trio.CancelScope() as scope:
            scope.cancel()
            await drain(source)
        assert scope.cancelled_caught
        with pytest.raises(LocalProtocolError):
            await drain(source)


async def test_a_thread_that_is_still_reading_forbids_another_try():
    entered, proceed, left = (threading.Event() for _ in range(3))

    class Slow(io.BufferedReader):
        def read(self, size=-1):
            if self.tell() > len(meta()):
                entered.set()
                proceed.wait(30)
            try:
                return super().read(size)
            finally:
                if entered.is_set():
                    left.set()

    stream = Slow(io.BytesIO(WHOLE))
    source = await open_stream(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, source)
        await trio.to_thread.run_sync(entered.wait, 30)
        nursery.cancel_scope.cancel()
    assert not await source.rewind()
    assert not source.buffer_in_use
    await source.aclose()
    proceed.set()
    await trio.to_thread.run_sync(left.wait, 30)


async def test_a_closed_source():
    source = await open_stream(io.BytesIO(WHOLE))
    await source.aclose()
    await source.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await source.read_into(memoryview(bytearray(10)))
    assert not await source.rewind()
