"""C-STORE to DCMTK, Orthanc and pynetdicom: what they have afterwards is what was sent."""

from __future__ import annotations

import collections
import io
import os
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset
from pydicom.encaps import generate_frames

from interop import peers
from interop.samples import SAMPLES, Sample, decoded, part10, plain, rounds
from trio_dicom import (
    CStoreOptions,
    CStoreResponse,
    CStoreSCU,
    NoPresentationContext,
    OperationTimeout,
    TrioDicomError,
    open_association,
)
from trio_dicom.sources.contexts import contexts_of
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_LITTLE_ENDIAN,
)

pytestmark = pytest.mark.interop

Start = Callable[..., Any]
Result = CStoreResponse | TrioDicomError
Form = Callable[[CStoreSCU, Sample], Any]

# Orthanc 1.10 does not take these, whoever sends them.
ORTHANC_REFUSES = {
    "JPEGLSNearLossless_08.dcm": (0xA700, "it has no patient, study and series"),
    "JPEGLSNearLossless_16.dcm": (0xA700, "it has no patient, study and series"),
    "SC_rgb_jls_lossy_line.dcm": (0xA700, "it has no patient, study and series"),
    "SC_rgb_jls_lossy_sample.dcm": (0xA700, "it has no patient, study and series"),
    "UN_sequence.dcm": (0xC000, "it has no patient, study and series"),
    "no_meta_group_length.dcm": (0xC000, "it has no patient, study and series"),
    "priv_SQ.dcm": (0xC000, "it has no patient, study and series"),
    "rtdose_rle.dcm": (0xC000, "its data set cannot be parsed"),
    "rtdose_rle_1frame.dcm": (0xC000, "its data set cannot be parsed"),
}
# These it cannot parse, and never answers.
ORTHANC_IS_SILENT = {
    "SC_rgb_jpeg.dcm": "an element has a VR of two spaces",
}
# The rest it stores, but writes these anew.
ORTHANC_REWRITES = {
    "693_J2KI.dcm": "group lengths are corrected",
    "JPEG-lossy.dcm": "undefined lengths of sequences become explicit",
    "JPEG2000-embedded-sequence-delimiter.dcm": "undefined lengths of sequences become explicit",
    "JPEG2000.dcm": "undefined lengths of sequences become explicit",
    "JPGExtended.dcm": "undefined lengths of sequences become explicit",
    "MR_small_jp2klossless.dcm": "encapsulated Pixel Data becomes OB",
    "MR_small_jpeg_ls_lossless.dcm": "encapsulated Pixel Data becomes OB",
    "SC_rgb_gdcm_KY.dcm": "superfluous padding goes",
    "SC_rgb_rle_16bit.dcm": "encapsulated Pixel Data becomes OB",
    "SC_rgb_rle_16bit_2frame.dcm": "encapsulated Pixel Data becomes OB",
    "dicomdirtests/98892001/CT2N/6293": "superfluous padding goes",
    "dicomdirtests/98892001/CT2N/6924": "superfluous padding goes",
    "dicomdirtests/98892001/CT5N/2062": "superfluous padding goes",
    "dicomdirtests/98892001/CT5N/2392": "superfluous padding goes",
    "dicomdirtests/98892001/CT5N/2693": "superfluous padding goes",
    "dicomdirtests/98892001/CT5N/3023": "superfluous padding goes",
    "dicomdirtests/98892001/CT5N/3353": "superfluous padding goes",
    "examples_jpeg2k.dcm": "undefined lengths of sequences become explicit",
    "examples_palette.dcm": "undefined lengths of sequences become explicit",
    "examples_ybr_color.dcm": "superfluous padding goes",
    "liver_1frame.dcm": "undefined lengths of sequences become explicit",
    "reportsi.dcm": "undefined lengths of sequences become explicit",
    "waveform_ecg.dcm": "undefined lengths of sequences become explicit",
}


# --- forms of an object -----------------------------------------------------------------------------------------------


async def by_path(scu: CStoreSCU, sample: Sample) -> CStoreResponse:
    return await scu.send(sample.path)


async def by_binary_file(scu: CStoreSCU, sample: Sample) -> CStoreResponse:
    return await scu.send(io.BytesIO(sample.path.read_bytes()))


async def by_pipe(scu: CStoreSCU, sample: Sample) -> CStoreResponse:
    reading, writing = os.pipe()
    async with trio.lowlevel.FdStream(reading) as stream, trio.open_nursery() as nursery:

        async def feed() -> None:
            async with trio.lowlevel.FdStream(writing) as end:
                await end.send_all(sample.path.read_bytes())

        nursery.start_soon(feed)
        return await scu.send(stream)


async def by_data_set(scu: CStoreSCU, sample: Sample) -> CStoreResponse:
    return await scu.send(sample.read())


@attrs.frozen
class Pixels:
    """Pixel Data taken out of a data set."""

    length: int | None
    transfer_syntax_uid: str | None
    pieces: Sequence[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await trio.lowlevel.checkpoint()
            yield piece


async def by_pixel_source(scu: CStoreSCU, sample: Sample) -> CStoreResponse:
    dataset = sample.read()
    value = dataset.PixelData
    if sample.transfer_syntax_uid in NATIVE_LITTLE_ENDIAN:
        pieces = [value[at : at + 10_000] for at in range(0, len(value), 10_000)]
        pixels = Pixels(len(value), None, pieces)
    else:
        pixels = Pixels(None, sample.transfer_syntax_uid, frames_of(dataset))
    del dataset.PixelData
    return await scu.send(dataset, pixels)


async def deliver(
    address: str, samples: Iterable[Sample], form: Form = by_path, *, timeout: float = 20.0
) -> dict[str, Result]:
    """Send `samples` one after another, over a new association after one that was lost; results by name."""
    todo = list(samples)
    results: dict[str, Result] = {}
    contexts = contexts_of((each.sop_class_uid, each.transfer_syntax_uid) for each in todo)
    while todo:
        async with open_association(address, contexts) as association:
            scu = CStoreSCU(association, CStoreOptions(timeout=timeout))
            while todo and association.is_open:
                sample = todo.pop(0)
                try:
                    results[sample.name] = await form(scu, sample)
                except TrioDicomError as error:
                    results[sample.name] = error
    return results


def not_stored(results: dict[str, Result]) -> dict[str, Result]:
    return {name: each for name, each in results.items() if not (isinstance(each, CStoreResponse) and each.is_success)}


# --- byte for byte ----------------------------------------------------------------------------------------------------


def test_there_are_samples() -> None:
    assert len(SAMPLES) > 100
    assert len({each.transfer_syntax_uid for each in SAMPLES}) >= 10
    assert len({each.sop_class_uid for each in SAMPLES}) >= 10


@pytest.mark.parametrize("form", [by_path, by_binary_file, by_pipe])
async def test_storescp_gets_every_byte(storescp: Start, form: Form) -> None:
    peer = storescp("--unique-filenames")
    results = await deliver(peer.address, SAMPLES, form)
    assert not_stored(results) == {}
    stored = collections.Counter(peers.data_set_bytes(path) for path in peer.files)
    assert stored == collections.Counter(each.data_set for each in SAMPLES)


@pytest.mark.parametrize("form", [by_path, by_binary_file])
async def test_pynetdicom_gets_every_byte(pynetdicom_scp: Start, form: Form) -> None:
    peer = pynetdicom_scp()
    results = await deliver(peer.address, SAMPLES, form)
    assert not_stored(results) == {}
    assert peer.stored == [(each.sop_instance_uid, each.data_set) for each in SAMPLES]


async def test_orthanc_gets_every_byte(orthanc: Start) -> None:
    peer = orthanc()
    rewritten = set()
    for samples in rounds(each for each in SAMPLES if each.name not in ORTHANC_IS_SILENT):
        results = await deliver(peer.address, samples)
        refused = {
            name: each.status if isinstance(each, CStoreResponse) else each
            for name, each in not_stored(results).items()
        }
        assert refused == {name: status for name, (status, _) in ORTHANC_REFUSES.items() if name in results}
        stored = await trio.to_thread.run_sync(take_all, peer)
        taken = [each for each in samples if each.name not in ORTHANC_REFUSES]
        assert stored.keys() == {each.sop_instance_uid for each in taken}
        for sample in taken:
            data_set = stored[sample.sop_instance_uid]
            if data_set != sample.data_set:
                rewritten.add(sample.name)
                assert plain(decoded(part10(data_set, sample.transfer_syntax_uid))) == plain(sample.read()), sample.name
    assert rewritten == ORTHANC_REWRITES.keys()


def take_all(peer: peers.Orthanc) -> dict[str, bytes]:
    """What Orthanc has stored, which is deleted there."""
    received = peer.received()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for identifier in peer.instances():
        url = f"http://{peers.HOST}:{peer.http_port}/instances/{identifier}"
        opener.open(urllib.request.Request(url, method="DELETE")).close()
    return received


async def test_an_object_that_orthanc_never_answers_is_in_doubt(orthanc: Start) -> None:
    peer = orthanc()
    results = await deliver(peer.address, (each for each in SAMPLES if each.name in ORTHANC_IS_SILENT), timeout=0.5)
    assert results.keys() == ORTHANC_IS_SILENT.keys()
    for result in results.values():
        assert isinstance(result, OperationTimeout)
        assert result.in_doubt


# --- data sets that are encoded by us ---------------------------------------------------------------------------------


def assert_same(sample: Sample, data_set: bytes, transfer_syntax_uid: str) -> None:
    assert plain(decoded(part10(data_set, transfer_syntax_uid))) == plain(sample.read()), sample.name


# Read by pydicom, these are no data sets that can be sent.
NOT_WRITABLE = {
    "SC_rgb_jpeg.dcm": "an element has a VR of two spaces",
    "UN_sequence.dcm": "SOP Class UID is in the File Meta Information only",
    "no_meta_group_length.dcm": "SOP Class UID is in the File Meta Information only",
    "priv_SQ.dcm": "SOP Class UID is in the File Meta Information only",
}


async def test_data_sets_arrive_equal(pynetdicom_scp: Start) -> None:
    peer = pynetdicom_scp()
    samples = [each for each in SAMPLES if each.name not in NOT_WRITABLE]
    results = await deliver(peer.address, samples, by_data_set)
    assert not_stored(results) == {}
    for sample, (_, data_set) in zip(samples, peer.stored, strict=True):
        assert_same(sample, data_set, sample.transfer_syntax_uid)


def has_pixels(sample: Sample) -> bool:
    return "PixelData" in sample.read() and sample.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN


async def test_data_sets_with_a_pixel_source_arrive_equal(storescp: Start) -> None:
    peer = storescp("--unique-filenames")
    samples = [each for each in SAMPLES if each.name not in NOT_WRITABLE and has_pixels(each)]
    assert len(samples) >= 80
    results = await deliver(peer.address, samples, by_pixel_source)
    assert not_stored(results) == {}
    stored = collections.defaultdict(list)
    for path in peer.files:
        meta = peers.split_part10(path.read_bytes())[0]
        identity = meta[0x0003].decode(), meta[0x0010].decode()
        stored[identity].append(plain_with_frames(decoded(path.read_bytes()), identity[1]))
    for sample in samples:
        identity = sample.sop_instance_uid, sample.transfer_syntax_uid
        assert plain_with_frames(sample.read(), identity[1]) in stored[identity], sample.name


def plain_with_frames(dataset: Dataset, transfer_syntax_uid: str) -> dict[int, Any]:
    """As `plain`, whatever offset table and fragments encapsulated pixels have."""
    values = plain(dataset)
    if transfer_syntax_uid not in NATIVE_LITTLE_ENDIAN:
        values[0x7FE00010] = [each.rstrip(b"\0") for each in frames_of(dataset)]
    return values


def frames_of(dataset: Dataset) -> list[bytes]:
    return list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))


# --- native objects, where the peer takes only one native transfer syntax ---------------------------------------------


NATIVE = [
    each for each in SAMPLES if each.transfer_syntax_uid in NATIVE_LITTLE_ENDIAN and each.name not in NOT_WRITABLE
]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("LittleEndianImplicit", IMPLICIT_VR_LITTLE_ENDIAN),
        ("LittleEndianExplicit", EXPLICIT_VR_LITTLE_ENDIAN),
        ("DeflatedLittleEndianExplicit", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ],
)
async def test_native_objects_are_encoded_anew(storescp: Start, tmp_path: Path, name: str, accepted: str) -> None:
    profile = tmp_path / "profile.cfg"
    profile.write_text(profile_of({each.sop_class_uid for each in NATIVE}, name))
    peer = storescp("--unique-filenames", "--config-file", str(profile), "Only")
    results = await deliver(peer.address, NATIVE)
    assert not_stored(results) == {}
    files = [path.read_bytes() for path in peer.files]
    assert {peers.split_part10(file)[0][0x0010] for file in files} == {accepted.encode()}
    stored = collections.defaultdict(list)
    for file in files:
        stored[peers.split_part10(file)[0][0x0003].decode()].append(plain(decoded(file)))
    for sample in NATIVE:
        assert plain(sample.read()) in stored[sample.sop_instance_uid], sample.name


def profile_of(sop_classes: set[str], transfer_syntax: str) -> str:
    """A DCMTK association negotiation profile, "Only", with one transfer syntax."""
    contexts = "".join(f"PresentationContext{n} = {uid}\\Wanted\n" for n, uid in enumerate(sorted(sop_classes), 1))
    return (
        f"[[TransferSyntaxes]]\n[Wanted]\nTransferSyntax1 = {transfer_syntax}\n"
        f"[[PresentationContexts]]\n[Contexts]\n{contexts}"
        "[[Profiles]]\n[Only]\nPresentationContexts = Contexts\n"
    )


async def test_compressed_objects_are_never_encoded_anew(storescp: Start) -> None:
    peer = storescp("+xe")  # the native transfer syntaxes, at DCMTK's default
    compressed = [
        each for each in SAMPLES if each.transfer_syntax_uid not in (*NATIVE_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
    ]
    results = await deliver(peer.address, compressed[:10] + NATIVE[:1])
    assert peer.received().keys() == {NATIVE[0].sop_instance_uid}
    assert {type(each) for each in not_stored(results).values()} == {NoPresentationContext}
    assert len(not_stored(results)) == 10
