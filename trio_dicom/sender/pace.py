"""Pace: a token bucket for bytes, and sources that keep to it."""

from __future__ import annotations

import trio

from ..sources.source import Source

BURST = 0.25  # s that the bucket holds
LEAST_READ, MOST_READ = 2, 256 << 10  # bytes; PDVs are even


class TokenBucket:
    """Lets `rate` bytes a second through, all sources together, with bursts of a quarter of a second."""

    def __init__(self, rate: float) -> None:
        if not rate > 0:
            raise ValueError(f"a rate is above 0 bytes a second, not {rate!r}")
        self._rate = rate
        self._empty_at: float | None = None  # when all that was taken is paid for

    def take(self, count: int, now: float) -> float:
        """Seconds to wait before so many bytes may go."""
        start = now - BURST if self._empty_at is None else max(self._empty_at, now - BURST)
        self._empty_at = start + count / self._rate
        return max(0.0, self._empty_at - now)

    @property
    def portion(self) -> int:
        """Bytes that are let through at once."""
        return max(LEAST_READ, min(MOST_READ, int(self._rate * BURST) // 2 * 2))


class PacedSource(Source):
    """Another source, read no faster than the bucket lets it."""

    def __init__(self, source: Source, bucket: TokenBucket) -> None:
        self._source = source
        self._bucket = bucket
        self.sop_class_uid = source.sop_class_uid
        self.sop_instance_uid = source.sop_instance_uid
        self.transfer_syntaxes = source.transfer_syntaxes
        self.size = source.size

    async def prepare(self, transfer_syntax_uid: str) -> None:
        await self._source.prepare(transfer_syntax_uid)
        self.size = self._source.size

    async def read_into(self, buffer: memoryview) -> tuple[int, bool]:
        part = buffer[: self._bucket.portion]
        try:
            count, is_last = await self._source.read_into(part)
        finally:
            self.buffer_in_use = self._source.buffer_in_use
        delay = self._bucket.take(count, trio.current_time())
        if delay:
            await trio.sleep(delay)
        return count, is_last

    async def rewind(self) -> bool:
        return await self._source.rewind()

    async def aclose(self) -> None:
        await self._source.aclose()

    def discard(self) -> None:
        self._source.discard()
