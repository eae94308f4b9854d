"""What sending one small object costs, in calls of Python functions: a guard, for it creeps up unseen.

Calls, unlike times, are the same on every machine; those of trio and of the standard library count as ours do. The
limits are a tenth above what was counted last (tasks are scheduled in random order, so it is not always the same).
Where less is needed than a limit says, lower it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.call_counter import Counter
from support.draining_scp import draining_scp
from trio_dicom import AssociationSettings, CStoreSCU, contexts_for, open_association, open_sender
from trio_dicom.testing import make_instance_file

OBJECTS = 300
WARM_UP = 100


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.dcm" for number in range(OBJECTS + WARM_UP)]
    for number, path in enumerate(paths):
        path.write_bytes(make_instance_file(20_000, number=number))
    return paths


Send = Callable[[list[Path]], Awaitable[None]]


@asynccontextmanager
async def scu(address: str, paths: list[Path]) -> AsyncIterator[Send]:
    async with open_association(address, await contexts_for(paths[:1])) as association:
        one = CStoreSCU(association)

        async def send(paths: list[Path]) -> None:
            for path in paths:
                assert (await one.send(path)).is_success

        yield send


@asynccontextmanager
async def sender(address: str, paths: list[Path]) -> AsyncIterator[Send]:
    settings = AssociationSettings(operations_window=1)
    async with open_sender(address, associations=1, settings=settings) as many:

        async def send(paths: list[Path]) -> None:
            async with many.send_many(paths) as reports:
                assert len([report async for report in reports if report.outcome.is_stored]) == len(paths)

        yield send


@pytest.mark.skipif(sys.platform != "linux", reason="counted where files are opened on the event loop")
@pytest.mark.skipif(sys.gettrace() is not None, reason="something else looks at the calls")
@pytest.mark.parametrize(("way", "limit"), [(scu, 295), (sender, 440)], ids=["scu", "sender"])
async def test_calls_for_one_small_object(
    way: Callable[[str, list[Path]], AsyncIterator[Send]], limit: int, paths: list[Path]
) -> None:
    with draining_scp() as scp:
        async with way(scp.address, paths) as send:  # type: ignore[attr-defined]
            await send(paths[:WARM_UP])
            with Counter() as counter:
                await send(paths[WARM_UP:])
    cost = counter.calls / OBJECTS
    print(f"{cost:.0f} calls an object, {limit} at most")
    assert cost <= limit
