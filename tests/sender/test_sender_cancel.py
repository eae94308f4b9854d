"""A run of three objects over two lanes, cancelled at every step of the scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.sending import objects, sender_to
from trio_dicom.sender.outcome import Outcome
from trio_dicom.settings import AssociationSettings, Timeouts
from trio_dicom.testing import Cut, ScriptedStorageSCP, cancel_at_every_checkpoint, make_instance_file, storage_scp

Prepare = Callable[[ScriptedStorageSCP], object]


def nothing(scp: ScriptedStorageSCP) -> None:
    pass


def out_of_resources(scp: ScriptedStorageSCP) -> None:
    scp.reply(0xA700)


def slow(scp: ScriptedStorageSCP) -> None:
    scp.reply(0, delay=3, times=3)


def abort(scp: ScriptedStorageSCP) -> None:
    scp.abort()


def sweep(
    items: Callable[[], Any],
    prepare: Prepare = nothing,
    *,
    drains: bool = False,
    more: Callable[[], dict[str, Any]] = dict,
) -> int:
    """The number of checkpoints, at each of which all held that must."""

    async def scenario(cut: Cut) -> None:
        settings = AssociationSettings(operations_window=8, timeouts=Timeouts(idle=math.inf))
        async with storage_scp(settings=settings, assert_all_used=False) as scp:
            prepare(scp)
            received = []
            with cut:
                async with sender_to(scp, associations=2, **more()) as sender, sender.send_many(items()) as channel:
                    if drains:
                        received.append(await channel.receive())
                        await sender.drain()
                    async for report in channel:
                        received.append(report)
            if "sender" not in locals():
                return  # before the block
            report = sender.report
            assert report.pending == report.open_associations == 0
            assert sum(report.counts.values()) == report.inputs
            if not cut.was_cancelled:
                assert len(received) == report.inputs
            stored = report.counts.get(Outcome.STORED, 0)
            kept = {each.sop_instance_uid for each in scp.received if each.is_stored or each.status is None}
            # What the receiver keeps, or would have, is stored or in doubt; what is stored it has.
            assert stored <= len(kept) <= stored + report.counts.get(Outcome.IN_DOUBT, 0)

    return cancel_at_every_checkpoint(scenario)


def three() -> Any:
    return objects(3)


@pytest.mark.fault_row(112)
def test_cancelled_anywhere() -> None:
    assert sweep(three) > 100


@pytest.mark.fault_row(112)
def test_cancelled_anywhere_with_a_ledger(tmp_path: Path) -> None:
    names = (tmp_path / f"{number}.db" for number in range(10_000))
    assert sweep(three, more=lambda: {"ledger": next(names)}) > 100


@pytest.mark.fault_row(112)
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [out_of_resources, slow, abort])
@pytest.mark.parametrize("window", [1, 2])
def test_cancelled_anywhere_while_much_goes_on(prepare: Prepare, window: int) -> None:
    assert sweep(three, prepare, more=lambda: {"window": window}) > 100


@pytest.mark.fault_row(112)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cancelled_anywhere_in_a_drain() -> None:
    assert sweep(three, slow, drains=True) > 100


@pytest.mark.fault_row(112)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cancelled_anywhere_in_large_objects() -> None:
    assert sweep(lambda: objects(3, size=3_000_000)) > 200


@pytest.mark.fault_row(112)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cancelled_anywhere_in_a_tree(tmp_path: Path) -> None:
    for number in range(1, 4):
        (tmp_path / f"{number}.dcm").write_bytes(make_instance_file(number=number))
    assert sweep(lambda: tmp_path) > 100
