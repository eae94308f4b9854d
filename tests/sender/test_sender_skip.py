"""What lies in a folder and is no input: the ledger, and what the caller says."""

from __future__ import annotations

import os

import pytest

from support.sending import outcomes, send_all, sender_to
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.sender.outcome import Outcome
from trio_dicom.testing import make_instance_file, storage_scp


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for number in range(1, 4):
        (folder / "series" / f"{number}.dcm").write_bytes(make_instance_file(number=number))
    return folder


async def test_the_ledger_in_the_folder_is_no_input(study, autojump_clock):
    ledger = study / "series" / "run.db"
    async with storage_scp() as scp:
        for _ in range(2):
            async with sender_to(scp, ledger=ledger) as sender:
                assert outcomes(await send_all(sender, study)) == {Outcome.STORED: 3}
    assert ledger.exists()


async def test_a_file_of_its_name_elsewhere_and_the_ledger_when_it_is_named_are_inputs(study, autojump_clock):
    ledger, other = study / "run.db", study / "series" / "run.db"
    other.write_bytes(make_instance_file(number=4))
    async with storage_scp() as scp, sender_to(scp, ledger=ledger) as sender:
        assert outcomes(await send_all(sender, study)) == {Outcome.STORED: 4}
        assert outcomes(await send_all(sender, ledger)) == {Outcome.INVALID: 1}


async def test_what_the_caller_says(study, tmp_path, autojump_clock):
    def is_second(path):
        return os.path.basename(path) == "2.dcm"

    async with storage_scp() as scp:
        for options in ({}, {"ledger": tmp_path / "run.db"}):
            async with sender_to(scp, **options) as sender:
                async with sender.send_tree(study, skip=is_second) as reports:
                    names = [os.path.basename(report.path) async for report in reports]
                assert names == ["1.dcm", "3.dcm"]


async def test_only_files_of_folders_can_be_skipped(study):
    path = study / "series" / "1.dcm"
    async with Inputs([path, study], skip=lambda path: True) as inputs:
        assert [item.name for item in await inputs.take(10)] == [str(path)]
        assert inputs.is_exhausted


async def test_what_is_under_way_is_counted(study, autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply(0, delay=10)
        async with sender.send_tree(study) as reports:
            seen = [sender.report]
            async for _ in reports:
                seen.append(sender.report)
    assert sender.report.under_way == 0
    assert [report.under_way for report in seen] in ([0, 2, 1, 0], [0, 1, 1, 0])  # the third may be on its way already
    assert [report.pending for report in seen] == [0, 2, 1, 0]
