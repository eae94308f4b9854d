"""A sender that converts what it sends."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from support.sending import exact, outcomes, send_all, sender_to
from trio_dicom.errors import Retry
from trio_dicom.sender.outcome import Outcome
from trio_dicom.testing import make_study, storage_scp
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

COMPRESSED, NATIVE = get_testdata_file("MR_small_RLE.dcm"), get_testdata_file("CT_small.dcm")


def content(path):
    return Path(path).read_bytes()


def anonymise(dataset):
    dataset.PatientName = "NOBODY"
    dataset.PatientID = "0"


async def anonymise_slowly(dataset):
    anonymise(dataset)


@pytest.mark.parametrize("transform", [anonymise, anonymise_slowly])
async def test_each_object_is_transformed_and_the_callers_is_not(transform, autojump_clock):
    study = make_study(5)
    names = [each.PatientName for each in study]
    async with storage_scp() as scp, sender_to(scp, transform=transform) as sender:
        reports = await send_all(sender, study)
    assert outcomes(reports) == {Outcome.STORED: 5}
    assert {str(each.PatientName) for each in scp.stored} == {"NOBODY"}
    assert [each.PatientName for each in study] == names


async def test_a_transform_that_fails_costs_one_object(autojump_clock):
    def fail(dataset):
        if dataset.InstanceNumber == 2:
            raise KeyError("SECRET^NAME")

    async with storage_scp() as scp, sender_to(scp, transform=fail) as sender:
        reports = await send_all(sender, make_study(4))
    assert outcomes(reports) == {Outcome.STORED: 3, Outcome.INVALID: 1}
    (failed,) = [each for each in reports if each.outcome is Outcome.INVALID]
    assert "transform failed with KeyError" in failed.reason
    assert "SECRET" not in str(failed)


async def test_a_decoder_that_is_missing_is_no_fault_of_the_object(monkeypatch, autojump_clock):
    monkeypatch.setitem(sys.modules, "numpy", None)
    async with storage_scp() as scp, sender_to(scp, transcode="native") as sender:
        (report,) = await send_all(sender, COMPRESSED)
    assert (report.outcome, report.retry) == (Outcome.NOT_SENT, Retry.AFTER_CONFIG)
    assert report.reason == "numpy is not installed: pip install 'trio-dicom[transcode]'"


async def test_files_are_transformed_and_sent_again_when_that_is_needed(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, transform=anonymise) as sender:
        scp.reply(0xA700, times=2)
        (report,) = await send_all(sender, NATIVE)
    assert (report.outcome, report.attempts) == (Outcome.STORED, 3)
    assert [str(each.dataset().PatientName) for each in scp.received] == ["NOBODY"] * 3


async def test_compressed_objects_are_decompressed_and_others_go_as_they_lie():
    receiving = storage_scp(transfer_syntaxes=[EXPLICIT_VR_LITTLE_ENDIAN])
    async with receiving as scp, sender_to(scp, transcode="native", associations=1) as sender:
        reports = await send_all(sender, [COMPRESSED, NATIVE])
    assert outcomes(reports) == {Outcome.STORED: 2}
    by_class = {each.SOPClassUID: each for each in scp.stored}
    was = pydicom.dcmread(COMPRESSED)
    assert (by_class[was.SOPClassUID].pixel_array == was.pixel_array).all()
    assert content(NATIVE).endswith(scp.received[-1].data_set)


async def test_streams_are_converted_too():
    stream = io.BytesIO(content(COMPRESSED))
    async with storage_scp() as scp, sender_to(scp, transcode="native") as sender:
        (report,) = await send_all(sender, stream)
    assert report.outcome is Outcome.STORED
    assert scp.received[0].transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN


async def test_memory_is_booked_and_freed(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, exact(memory=1), transform=anonymise) as sender:
        most = 0

        def look(instance):
            nonlocal most
            most = max(most, sender._dispatcher.budget.booked)
            return False

        scp.reply(0, when=look, times=100, required=False)
        reports = await send_all(sender, make_study(40))
        assert outcomes(reports) == {Outcome.STORED: 40}
        assert sender._dispatcher.budget.booked == 0
        one = len(scp.received[0].data_set)
        assert one < most < 10 * one  # what is converted at once goes over the budget, and no more


async def test_a_file_that_vanishes_before_it_is_sent_again(tmp_path, autojump_clock):
    path = tmp_path / "one.dcm"
    path.write_bytes(content(NATIVE))
    async with storage_scp() as scp, sender_to(scp, transform=anonymise) as sender:

        def vanish(instance):
            path.unlink()
            return True

        scp.reply(0xA700, when=vanish)
        (report,) = await send_all(sender, path)
    assert report.outcome is Outcome.INVALID
    assert "No such file" in report.reason
