"""C-STORE from DCMTK, pynetdicom, Orthanc and dcmjs-dimse to `trio-dicom receive`: what was sent is on the disk.

"What was sent" is what a tap on the line saw: a sender may encode a data set anew, and tells nobody.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from pynetdicom import _config

from interop import peers, senders
from interop.receiver import TrioDicomReceive
from interop.samples import SAMPLES, Sample, rounds
from interop.senders import Receiver, Sender
from interop.tap import Tap, accepted, instance_of, pdus, tap
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

Start = Callable[..., Any]

A_ABORT = 0x07


@attrs.frozen
class Expected:
    """What a sender makes of the samples, whoever receives."""

    not_sent: dict[str, str] = attrs.Factory(dict)  # with the sender's own words
    refused: dict[str, int] = attrs.Factory(dict)  # with the status of the receiver
    converted: dict[str, str] = attrs.Factory(dict)  # to another transfer syntax
    at_least_unchanged: int = 100  # data sets that are sent as they are in the file
    left_out: dict[str, str] = attrs.Factory(dict)  # not given to the sender


NO_UIDS = ("UN_sequence.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm")  # in the data set
CUT_SHORT = "I/O suspension or premature end of stream"
NO_PATIENT = (
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
)
# All of their elements are of VR UN. DCMTK takes the UIDs for "31": dcmsend and Orthanc want to send them under that.
UIDS_OF_VR_UN = ("rtdose_rle.dcm", "rtdose_rle_1frame.dcm")

EXPECTED = {
    "storescu": Expected(
        not_sent={
            "SC_rgb_jpeg.dcm": f"Bad DICOM: {CUT_SHORT}",
            **dict.fromkeys((*NO_UIDS, *UIDS_OF_VR_UN), "No SOP Class or Instance UID"),
        },
    ),
    "dcmsend": Expected(
        not_sent={
            "SC_rgb_jpeg.dcm": CUT_SHORT,
            **dict.fromkeys(NO_UIDS, "missing information"),
        },
        refused=dict.fromkeys(UIDS_OF_VR_UN, 0x0122),
        converted={  # it proposes the uncompressed ones together
            "ExplVR_BigEnd.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
            "MR_small_bigendian.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
            "MR_small_expb.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
            "MR_small_implicit.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
            "SC_rgb_jpeg_dcmd.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
            "SC_rgb_small_odd_big_endian.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
            "liver_expb_1frame.dcm": EXPLICIT_VR_LITTLE_ENDIAN,
        },
    ),
    "pynetdicom_paths": Expected(at_least_unchanged=len(SAMPLES)),
    "pynetdicom_data_sets": Expected(
        not_sent={
            "SC_rgb_jpeg.dcm": "Failed to encode the supplied dataset",
            **dict.fromkeys(
                NO_UIDS,
                "Unable to send the dataset as one or more required element are missing: SOPClassUID, SOPInstanceUID",
            ),
        },
    ),
    "orthanc": Expected(
        not_sent={
            "SC_rgb_jpeg.dcm": "Bad file format",
            **dict.fromkeys((*NO_UIDS, *NO_PATIENT), "Inexistent tag"),
            **dict.fromkeys(UIDS_OF_VR_UN, "Error in the network protocol"),  # it has no presentation context for "31"
        },
    ),
    "dcmjs": Expected(
        not_sent=dict.fromkeys(("SC_rgb_jpeg.dcm", *NO_UIDS), "Error: it has no SOP Class UID"),
        left_out=dict.fromkeys(UIDS_OF_VR_UN, "takes it 20 s each"),
        at_least_unchanged=50,
    ),
}


@pytest.fixture(autouse=True)
def pynetdicom_sends_paths_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@pytest.fixture
def sender(request: pytest.FixtureRequest) -> Sender:
    if request.param == "orthanc":
        return senders.OrthancSender(request.getfixturevalue("sending_orthanc"), alone=UIDS_OF_VR_UN)
    if request.param == "dcmjs" and not senders.has_dcmjs():
        pytest.skip("dcmjs-dimse is not installed where NODE_PATH says")
    chosen: Sender = getattr(senders, request.param)
    return chosen


@pytest.mark.parametrize(("sender", "expected"), EXPECTED.items(), ids=EXPECTED, indirect=["sender"])
async def test_what_was_sent_is_on_the_disk(receiver: TrioDicomReceive, sender: Sender, expected: Expected) -> None:
    not_sent: dict[str, str] = {}
    refused: dict[str, int | None] = {}
    converted: dict[str, str] = {}
    unchanged = 0
    for samples in rounds(each for each in SAMPLES if each.name not in expected.left_out):
        async with tap(receiver.port) as tapped:
            problems = await sender(Receiver(tapped.port), samples)
        assert_stored(receiver, tapped)
        not_sent |= problems
        sent = [each for each in samples if each.name not in problems]
        for sample, request in zip(sent, tapped.requests(), strict=True):
            if request.status != 0:
                refused[sample.name] = request.status
                continue
            assert request.instance.sop_instance_uid == sample.sop_instance_uid
            assert request.instance.sop_class_uid == sample.sop_class_uid
            if request.instance.transfer_syntax_uid != sample.transfer_syntax_uid:
                converted[sample.name] = request.instance.transfer_syntax_uid
            unchanged += request.instance.data_set == sample.data_set
    assert not_sent == expected.not_sent
    assert refused == expected.refused
    assert converted == expected.converted
    assert unchanged >= expected.at_least_unchanged


def assert_stored(receiver: TrioDicomReceive, tapped: Tap) -> None:
    """All that was answered 0000, byte for byte, and nothing else, is in the folder; it is taken from there."""
    answered = collections.Counter(each.instance for each in tapped.requests() if each.status == 0)
    assert collections.Counter(receiver.take()) == answered


async def test_the_tap_tells_what_storescp_stores(storescp: Start) -> None:
    peer = storescp("--unique-filenames")
    async with tap(peer.port) as tapped:
        await senders.storescu(Receiver(tapped.port), SAMPLES)
    assert collections.Counter(map(instance_of, peer.files)) == collections.Counter(
        each.instance for each in tapped.requests()
    )
    assert len(peer.files) == len(SAMPLES) - len(EXPECTED["storescu"].not_sent)


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of what pydicom warns: catch_warnings is not for many threads at once
async def test_20_associations_at_once(receiver: TrioDicomReceive, sending_orthanc: peers.Orthanc) -> None:
    orthanc = [senders.OrthancSender(sending_orthanc, f"receiver{n}") for n in range(4)]
    others: list[Sender] = [senders.storescu, senders.dcmsend, senders.pynetdicom_paths, senders.pynetdicom_data_sets]
    everybody = [*orthanc, *others * 4]
    if senders.has_dcmjs():
        everybody[-2:] = [senders.dcmjs] * 2
    unsuitable = {name for each in EXPECTED.values() for name in (*each.not_sent, *each.refused, *each.left_out)}
    suitable = [each for each in rounds(SAMPLES)[0] if each.name not in unsuitable]
    assert len(everybody) == 20
    assert len(suitable) >= 100
    async with tap(receiver.port, together=20) as tapped, trio.open_nursery() as nursery:

        async def send(sender: Sender, samples: Sequence[Sample]) -> None:
            assert await sender(Receiver(tapped.port), samples) == {}

        for n, sender in enumerate(everybody):
            nursery.start_soon(send, sender, suitable[n::20])
    assert tapped.all_answered.is_set()
    assert all(accepted(each.from_acceptor) for each in tapped.recordings[:20])
    assert len(tapped.requests()) == len(suitable)
    assert {each.status for each in tapped.requests()} == {0}
    assert_stored(receiver, tapped)


# --- associations that come to nothing --------------------------------------------------------------------------------


ONE = next(each for each in SAMPLES if each.name == "examples_overlay.dcm")  # DCMTK sends it as it is


async def test_echoscu_is_answered(receiver: TrioDicomReceive) -> None:
    done = await senders.echoscu(Receiver(receiver.port), "--repeat", "3", "--propose-pc", "128", "--propose-ts", "38")
    assert done.returncode == 0
    assert done.stdout.count("Received Echo Response (Success)") == 3


async def test_another_called_ae_title_is_rejected(receive: Start) -> None:
    peer = receive(ae_title="ARCHIVE")
    wrong = await senders.run_storescu(Receiver(peer.port, "ELSEWHERE"), [ONE])
    assert wrong.returncode != 0
    assert "Result: Rejected Permanent, Source: Service User" in wrong.stdout
    assert "Reason: Called AE Title Not Recognized" in wrong.stdout
    assert peer.take() == []
    right = await senders.run_storescu(Receiver(peer.port, "ARCHIVE"), [ONE])
    assert right.returncode == 0
    assert [each.sop_instance_uid for each in peer.take()] == [ONE.sop_instance_uid]


async def test_once_ends_after_one_association(receive: Start) -> None:
    peer = receive("--once")
    done = await senders.run_storescu(Receiver(peer.port), [ONE])
    assert done.returncode == 0
    with trio.fail_after(10):
        assert await trio.to_thread.run_sync(peer.process.wait) == 0
    assert [each.data_set for each in peer.take()] == [ONE.data_set]
    assert not peers.is_listening(peer.port)


async def test_an_abort_after_the_answer_takes_nothing_back(receiver: TrioDicomReceive) -> None:
    async with tap(receiver.port) as tapped:
        await senders.run_storescu(Receiver(tapped.port), [ONE], "--abort")
    assert [pdu_type for pdu_type, _ in pdus(tapped.recordings[0].from_requestor)][-1] == A_ABORT
    assert [each.instance.data_set for each in tapped.requests()] == [ONE.data_set]
    assert_stored(receiver, tapped)


async def test_an_object_that_is_cut_short_leaves_no_file(receiver: TrioDicomReceive, tmp_path: Path) -> None:
    dataset = ONE.read()
    dataset.PixelData *= 16  # some MB: what is small is not written before it is whole
    dataset.Rows *= 16
    big = attrs.evolve(ONE, path=tmp_path / "big.dcm")
    await trio.to_thread.run_sync(dataset.save_as, big.path)
    async with tap(receiver.port, stall_after=len(dataset.PixelData) // 2) as tapped, trio.open_nursery() as nursery:
        nursery.start_soon(senders.run_storescu, Receiver(tapped.port), [big])
        await until(lambda: [each.stat().st_size >= 1 << 20 for each in receiver.files] == [True])
        assert receiver.files[0].suffix != ".dcm"
        tapped.cut.set()
    await until(lambda: receiver.files == [])
    assert tapped.requests() == []


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110, it is another process
            await trio.sleep(0.01)
