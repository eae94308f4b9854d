"""Conversions against DCMTK's own codecs: what they make is read, and what is made they read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from conversion.codec_samples import JPEG_LS, RLE, received, require, sample, samples
from sources.source_helpers import EXPLICIT, drain, meta
from trio_dicom.conversion.conversion import Conversion
from trio_dicom.sources.threads import stand_still

pytestmark = pytest.mark.interop

JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
ENCODERS = {
    RLE: ["dcmcrle"],
    JPEG_LS: ["dcmcjpls"],
    JPEG_LOSSLESS: ["dcmcjpeg", "+el"],
    JPEG_LOSSLESS_SV1: ["dcmcjpeg", "+e1"],
}
DECODERS = {RLE: ["dcmdrle"], JPEG_LS: ["dcmdjpls"]}

FILES = [
    "CT_small.dcm",  # 16 bits, signed
    "examples_rgb_color.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "12 bits",
    "12 bits, signed",
]


@pytest.fixture(autouse=True)
def virtual_clock(autojump_clock) -> None:
    """Nothing here takes real time."""


def run(command: list[str], *paths: Path) -> None:
    program = Path("/usr/bin") / command[0]  # by full path: pynetdicom installs scripts under DCMTK's names
    if not os.access(program, os.X_OK):
        verdict = pytest.fail if os.environ.get("TRIO_DICOM_REQUIRE_PEERS") == "1" else pytest.skip
        verdict(f"{program} is not installed")
    subprocess.run([program, *command[1:], *map(str, paths)], check=True, capture_output=True, timeout=30)


def made(name: str) -> Dataset:
    if not name.startswith("12 bits"):
        return sample(name)
    dataset = sample("CT_small.dcm")
    is_signed = name.endswith("signed")
    low, high = (-2048, 2048) if is_signed else (0, 4096)
    pixels = numpy.random.default_rng(7).integers(low, high, (64, 80)).astype("int16" if is_signed else "uint16")
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 64, 80, int(is_signed)
    dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, pixels.tobytes()
    return dataset


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("name", FILES)
async def test_what_dcmtk_compresses_is_decompressed(name: str, syntax: str, tmp_path: Path) -> None:
    stand_still.set(True)
    require(syntax)
    original = made(name)
    original.save_as(tmp_path / "native.dcm")
    run(ENCODERS[syntax], tmp_path / "native.dcm", tmp_path / "compressed.dcm")
    assert pydicom.dcmread(tmp_path / "compressed.dcm").file_meta.TransferSyntaxUID == syntax
    source = await Conversion(transcode="native").convert(lambda: pydicom.dcmread(tmp_path / "compressed.dcm"), syntax)
    after = await received(source)
    assert source.sop_instance_uid == original.SOPInstanceUID
    assert numpy.array_equal(samples(after), samples(original))


@pytest.mark.parametrize("syntax", DECODERS, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("name", FILES)
async def test_what_is_compressed_dcmtk_decompresses(name: str, syntax: str, tmp_path: Path) -> None:
    stand_still.set(True)
    require(syntax)
    require(syntax, to_encode=True)
    source = await Conversion(transcode=syntax).convert(lambda: made(name), EXPLICIT)
    await source.prepare(syntax)
    head = meta(syntax, source.sop_class_uid, source.sop_instance_uid)
    (tmp_path / "compressed.dcm").write_bytes(head + await drain(source, 1 << 20))
    run(DECODERS[syntax], tmp_path / "compressed.dcm", tmp_path / "native.dcm")
    after = pydicom.dcmread(tmp_path / "native.dcm")
    assert after.file_meta.TransferSyntaxUID == EXPLICIT
    assert numpy.array_equal(samples(after), samples(made(name)))


@pytest.mark.parametrize("bits", [8, 12])
async def test_jpeg_with_loss_comes_out_as_from_dcmtk(bits: int, tmp_path: Path) -> None:
    stand_still.set(True)
    name, command, syntax = {
        8: ("examples_rgb_color.dcm", ["dcmcjpeg", "+eb"], "1.2.840.10008.1.2.4.50"),
        12: ("12 bits", ["dcmcjpeg", "+ee"], "1.2.840.10008.1.2.4.51"),
    }[bits]
    made(name).save_as(tmp_path / "native.dcm")
    run(command, tmp_path / "native.dcm", tmp_path / "compressed.dcm")
    run(["dcmdjpeg"], tmp_path / "compressed.dcm", tmp_path / "theirs.dcm")
    compressed = pydicom.dcmread(tmp_path / "compressed.dcm")
    require(syntax)
    if bits == 12 and "pylibjpeg" not in pydicom.pixels.get_decoder(syntax).available_plugins:
        pytest.skip("pylibjpeg-libjpeg is not installed: it is no part of the extra")
    source = await Conversion(transcode="native").convert(lambda: compressed, syntax)
    ours, theirs = await received(source), pydicom.dcmread(tmp_path / "theirs.dcm")
    assert (ours.PhotometricInterpretation, ours.PlanarConfiguration if bits == 8 else 0) == (
        theirs.PhotometricInterpretation,
        0,
    )
    assert ours.LossyImageCompression == "01"
    assert ours.LossyImageCompressionMethod == "ISO_10918_1"
    difference = numpy.abs(samples(ours).astype(int) - samples(theirs).astype(int))
    assert difference.max() <= (4 if bits == 8 else 2)  # the standard leaves the last bit of a DCT open
    assert difference.mean() < 0.7
