"""The token bucket, and a source that keeps to it."""

from __future__ import annotations

import io

import pytest
import trio

from trio_dicom.sender.pace import PacedSource, TokenBucket
from trio_dicom.sources.open import open_source
from trio_dicom.testing import make_instance_file


def test_a_burst_is_free_and_the_rest_has_its_price():
    bucket = TokenBucket(1000.0)
    assert bucket.take(250, 10.0) == 0  # a quarter of a second
    assert bucket.take(500, 10.0) == pytest.approx(0.5)
    assert bucket.take(500, 10.0) == pytest.approx(1.0)
    assert bucket.take(250, 100.0) == 0  # rest does not add up beyond the burst
    assert bucket.take(1000, 100.0) == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(rate)


async def read(source, size=1 << 20):
    data, is_last, buffer = bytearray(), False, memoryview(bytearray(size))
    while not is_last:
        count, is_last = await source.read_into(buffer)
        data += buffer[:count]
    return bytes(data)


async def test_a_source_is_read_no_faster_than_the_rate(autojump_clock):
    file = make_instance_file(size=1_000_000)
    plain = await open_source(io.BytesIO(file))
    await plain.prepare(plain.transfer_syntaxes[0])
    wanted = await read(plain)
    source = PacedSource(await open_source(io.BytesIO(file)), TokenBucket(10_000.0))
    await source.prepare(source.transfer_syntaxes[0])
    assert source.size == len(wanted)
    assert source.whole() is None  # or it would go out at once
    start = trio.current_time()
    assert await read(source) == wanted
    seconds = trio.current_time() - start
    assert seconds == pytest.approx(len(wanted) / 10_000 - 0.25, rel=0.01)
    await source.aclose()


async def test_two_sources_share_the_rate(autojump_clock):
    bucket = TokenBucket(100_000.0)

    async def one():
        source = PacedSource(await open_source(io.BytesIO(make_instance_file(size=500_000))), bucket)
        await source.prepare(source.transfer_syntaxes[0])
        await read(source)
        await source.aclose()

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    assert trio.current_time() - start == pytest.approx(10, rel=0.05)
