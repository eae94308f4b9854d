"""A slow input does not wait until a buffer is full."""

from __future__ import annotations

import trio
from pydicom.data import get_testdata_file
from trio.testing import MockClock, memory_stream_one_way_pair

from trio_dicom.sources.stream import open_stream


async def test_what_a_slow_stream_gave_goes_out_after_a_second(autojump_clock: MockClock) -> None:
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    whole = await trio.Path(path).read_bytes()
    send, receive = memory_stream_one_way_pair()

    async def drip() -> None:
        await send.send_all(whole[:1001])
        for start in range(1001, len(whole), 3001):
            await trio.sleep(0.3)
            await send.send_all(whole[start : start + 3001])
        send.close()

    got, counts, finished = bytearray(), [], False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        source = await open_stream(receive)
        await source.prepare(source.transfer_syntaxes[0])
        buffer = memoryview(bytearray(1 << 20))
        while not finished:
            before = trio.current_time()
            count, finished = await source.read_into(buffer)
            assert trio.current_time() - before < 2.0
            got += buffer[:count]
            counts.append(count)
    assert len(counts) > 2
    assert all(count and count % 2 == 0 for count in counts)
    assert bytes(got) == whole[source.head.data_set_offset :]
    await source.aclose()
