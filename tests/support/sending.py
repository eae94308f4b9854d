"""A sender whose associations go to a Storage SCP in memory, so that the clock can be virtual."""

from __future__ import annotations

import collections
import io
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any

import trio

from trio_dicom.sender.options import SenderOptions
from trio_dicom.sender.outcome import InstanceReport, Outcome
from trio_dicom.sender.retry import RetryPolicy
from trio_dicom.sender.sender import Sender, open_sender
from trio_dicom.testing import ScriptedStorageSCP, make_instance_file


class Longest(Random):
    """The jitter at its most: delays are exact."""

    def uniform(self, a: float, b: float) -> float:
        return b


def exact(**options: Any) -> SenderOptions:
    """Options without chance; `policy` are those of the `RetryPolicy`."""
    policy = options.pop("policy", {})
    return SenderOptions(random=Longest(), retry=RetryPolicy(**policy), **options)


def sender_to(
    scp: ScriptedStorageSCP, options: SenderOptions | None = None, **more: Any
) -> AbstractAsyncContextManager[Sender]:
    """`open_sender` to `scp`, over memory."""

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return scp.stream()

    return open_sender(f"{scp.ae_title}@memory:104", options=options or exact(), connect=connect, **more)


def objects(count: int, size: int = 256, first: int = 1, **more: Any) -> list[io.BytesIO]:
    """So many streams, each with a DICOM file of its own."""
    return [io.BytesIO(make_instance_file(size, number=number, **more)) for number in range(first, first + count)]


async def send_all(sender: Sender, items: Any) -> list[InstanceReport]:
    """The reports of all `items`, in the order in which they were settled."""
    async with sender.send_many(items) as reports:
        return [report async for report in reports]


def outcomes(reports: list[InstanceReport]) -> dict[Outcome, int]:
    """How many of each."""
    return dict(collections.Counter(report.outcome for report in reports))
