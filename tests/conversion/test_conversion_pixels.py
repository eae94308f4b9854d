"""Transcoding: the pixels that come out are those that went in, in the transfer syntax that was asked for."""

from __future__ import annotations

import copy
import sys

import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import UID

from conversion.codec_samples import (
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LS,
    RLE,
    all_but_pixels,
    own_syntax,
    reader,
    received,
    require,
    sample,
    samples,
)
from sources.source_helpers import BIG, DEFLATED, EXPLICIT, IMPLICIT
from trio_dicom.conversion.conversion import Conversion
from trio_dicom.errors import InvalidObject, Retry
from trio_dicom.sources.threads import stand_still

LOSSLESS_FILES = [
    "MR_small_RLE.dcm",  # 16 bits, signed
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "J2K_pixelrep_mismatch.dcm",  # 13 bits stored; its codestream and its attributes disagree about the sign
    "GDCMJ2K_TextGBR.dcm",  # YBR_RCT
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # JPEG Lossless
]
LOSSY_FILES = [
    "JPEG2000.dcm",
    "693_J2KI.dcm",  # 14 bits stored
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",  # JPEG Baseline that is RGB inside
    "SC_rgb_jpeg_dcmtk.dcm",  # YBR_FULL
    "SC_rgb_dcmtk_+eb+cy+np.dcm",  # YBR_FULL_422
    "SC_rgb_small_odd_jpeg.dcm",  # 3 x 3
    "examples_ybr_color.dcm",  # 30 frames
]
NATIVE_FILES = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "SC_rgb_small_odd.dcm",  # 27 bytes and one to make them even
    "SC_rgb_small_odd_big_endian.dcm",
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "liver_1frame.dcm",
]
COMPRESSED = [RLE, JPEG_LS, JPEG_2000]
TARGETS = [EXPLICIT, IMPLICIT, DEFLATED, *COMPRESSED]


@pytest.fixture(autouse=True)
def virtual_clock(autojump_clock) -> None:
    """Nothing here takes real time."""


def converting(transform=None, transcode: str = "never") -> Conversion:
    """A conversion whose codecs run here: another process would not be waited for by a virtual clock."""
    stand_still.set(True)
    return Conversion(transform, transcode)


NOT_OF_ONE_BIT = "Bits Allocated (0028,0100) of 1 cannot be converted"


def require_both(name: str, target: str) -> None:
    require(own_syntax(name), target)
    require(target, to_encode=True)


def is_too_small(dataset: Dataset, target: str) -> bool:
    """For the encoders that pydicom has."""
    return target in (JPEG_LS, JPEG_2000) and min(dataset.Rows, dataset.Columns) < (32 if target == JPEG_2000 else 4)


@pytest.mark.parametrize("target", TARGETS, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("name", LOSSLESS_FILES)
async def test_pixels_without_loss_are_the_same_afterwards(name: str, target: str) -> None:
    require_both(name, target)
    source = await converting(transcode=target).convert(reader(name), own_syntax(name))
    if own_syntax(name) == target:
        assert source is None
        return
    before, after = sample(name), await received(source)
    assert source.transfer_syntaxes[0] == target
    assert numpy.array_equal(samples(before), samples(after))
    assert samples(after).dtype == samples(before).dtype
    assert all_but_pixels(after) == all_but_pixels(before)


@pytest.mark.parametrize("target", TARGETS, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("name", LOSSY_FILES)
async def test_pixels_with_loss_lose_no_more(name: str, target: str) -> None:
    require_both(name, target)
    before = sample(name)
    if is_too_small(before, target):
        with pytest.raises(InvalidObject, match=f"does not take these pixels: {before.Columns} x {before.Rows} of "):
            await converting(transcode=target).convert(reader(name), own_syntax(name))
        return
    source = await converting(transcode=target).convert(reader(name), own_syntax(name))
    after = await received(source)
    assert numpy.array_equal(samples(before, raw=False), samples(after, raw=False))
    assert all_but_pixels(after) == all_but_pixels(before)  # Lossy Image Compression among them
    assert after.PhotometricInterpretation == ("RGB" if before.SamplesPerPixel == 3 else "MONOCHROME2")


@pytest.mark.parametrize("target", TARGETS, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("name", NATIVE_FILES)
async def test_native_pixels_are_the_same_afterwards(name: str, target: str) -> None:
    require(target)
    require(target, to_encode=True)
    before = sample(name)
    conversion = converting(transcode=target)
    if before.BitsAllocated == 1 and target in COMPRESSED:
        with pytest.raises(InvalidObject) as caught:
            await conversion.convert(reader(name), own_syntax(name))
        assert caught.value.reason == NOT_OF_ONE_BIT
        return
    if is_too_small(before, target):
        with pytest.raises(InvalidObject, match="does not take these pixels: 3 x 3 of RGB"):
            await conversion.convert(reader(name), own_syntax(name))
        return
    source = await conversion.convert(reader(name), own_syntax(name))
    if own_syntax(name) == target:
        assert source is None
        return
    after = await received(source)
    assert source.transfer_syntaxes[0] == target
    assert set(source.transfer_syntaxes) == ({target} if target in COMPRESSED else {EXPLICIT, IMPLICIT, DEFLATED})
    assert numpy.array_equal(samples(before), samples(after))
    assert all_but_pixels(after) == all_but_pixels(before)


@pytest.mark.parametrize("name", [*LOSSLESS_FILES, *LOSSY_FILES])
async def test_native_means_decompressed(name: str) -> None:
    require(own_syntax(name))
    source = await converting(transcode="native").convert(reader(name), own_syntax(name))
    assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
    before, after = sample(name), await received(source)
    assert numpy.array_equal(samples(before, raw=False), samples(after, raw=False))
    assert ("OB" if before.BitsAllocated == 8 else "OW") == after["PixelData"].VR
    assert len(after.PixelData) % 2 == 0
    if before.SamplesPerPixel == 3:
        assert after.PlanarConfiguration == 0


@pytest.mark.parametrize("name", NATIVE_FILES)
async def test_native_leaves_native_ones_alone(name: str) -> None:
    def read() -> Dataset:
        raise AssertionError("it was read")

    assert await converting(transcode="native").convert(read, own_syntax(name)) is None


async def test_a_lossless_ybr_image_keeps_its_samples() -> None:
    """A conversion to RGB rounds."""
    require(RLE, JPEG_LS)
    require(RLE, to_encode=True)
    pixels = numpy.random.default_rng(1).integers(0, 256, (40, 50, 3), "uint8")

    def read() -> Dataset:
        dataset = sample("SC_rgb_rle.dcm")
        dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation = 40, 50, "YBR_FULL"
        dataset.compress(RLE, pixels, generate_instance_uid=False)
        return dataset

    for target in ("native", JPEG_LS):
        after = await received(await converting(transcode=target).convert(read, RLE))
        assert after.PhotometricInterpretation == "YBR_FULL"
        assert numpy.array_equal(samples(after), pixels)


async def test_what_is_decompressed_is_not_said_to_be_subsampled() -> None:
    """YBR_FULL_422 is right for many a compressed image; natively it means a third of the samples less."""
    require(JPEG_2000)
    require(JPEG_2000, to_encode=True)
    pixels = numpy.random.default_rng(6).integers(0, 256, (40, 50, 3), "uint8")

    def read() -> Dataset:
        dataset = sample("SC_rgb_rle.dcm")
        dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation = 40, 50, "YBR_FULL"
        dataset.compress(JPEG_2000, pixels, generate_instance_uid=False)
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        return dataset

    after = await received(await converting(transcode="native").convert(read, JPEG_2000))
    assert after.PhotometricInterpretation == "YBR_FULL"
    assert after.PixelData == pixels.tobytes()


@pytest.mark.parametrize("target", COMPRESSED, ids=lambda uid: UID(uid).keyword)
async def test_colour_by_plane(target: str) -> None:
    require(target)
    require(target, to_encode=True)
    pixels = numpy.random.default_rng(2).integers(0, 256, (40, 50, 3), "uint8")

    def read() -> Dataset:
        dataset = sample("SC_rgb_small_odd.dcm")
        dataset.Rows, dataset.Columns, dataset.PlanarConfiguration = 40, 50, 1
        dataset.PixelData = pixels.transpose(2, 0, 1).tobytes()
        return dataset

    after = await received(await converting(transcode=target).convert(read, EXPLICIT))
    assert after.PlanarConfiguration == 0
    assert numpy.array_equal(samples(after), pixels)


@pytest.mark.parametrize("target", COMPRESSED, ids=lambda uid: UID(uid).keyword)
async def test_few_bits_in_many_come_back_in_as_many(target: str) -> None:
    require(target)
    require(target, to_encode=True)
    pixels = numpy.random.default_rng(3).integers(0, 128, (40, 50), "uint16")

    def read() -> Dataset:
        dataset = sample("CT_small.dcm")
        dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 40, 50, 0
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 7, 6, pixels.tobytes()
        return dataset

    compressed = await received(await converting(transcode=target).convert(read, EXPLICIT))
    assert numpy.array_equal(samples(compressed), pixels)
    after = await received(await converting(transcode="native").convert(lambda: compressed, target))
    assert after.PixelData == pixels.tobytes()


@pytest.mark.parametrize("target", [JPEG_LS, JPEG_2000], ids=lambda uid: UID(uid).keyword)
async def test_bits_that_would_be_lost_are_not(target: str) -> None:
    """An overlay in the unused bits, as in old files: RLE keeps it, the others would not."""
    require(target, RLE)
    require(target, RLE, to_encode=True)
    pixels = numpy.random.default_rng(4).integers(0, 4096, (40, 50), "uint16") | 0x8000

    def read() -> Dataset:
        dataset = sample("CT_small.dcm")
        dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 40, 50, 0
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, pixels.tobytes()
        return dataset

    with pytest.raises(InvalidObject, match=r"does not (come back|take)|cannot be read back"):
        await converting(transcode=target).convert(read, EXPLICIT)
    compressed = await received(await converting(transcode=RLE).convert(read, EXPLICIT))
    after = await received(await converting(transcode="native").convert(lambda: compressed, RLE))
    assert after.PixelData == pixels.tobytes()


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_rle.dcm"])
async def test_what_an_encoding_does_not_take_is_said(name: str) -> None:
    require(RLE, JPEG_LS)
    require(JPEG_LS, to_encode=True)
    with pytest.raises(InvalidObject) as caught:
        await converting(transcode=JPEG_LS).convert(reader(name), own_syntax(name))
    assert "JPEG-LS Lossless" in str(caught.value)
    assert "10 x 10 of MONOCHROME2, 1 x 32 bits, unsigned, of which 32 are said to be in use" in str(caught.value)


@pytest.mark.parametrize("transcode", [RLE, "1.2.840.10008.1.2", "native"])
@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "reportsi.dcm", "waveform_ecg.dcm"])
async def test_without_pixels_nothing_is_compressed(name: str, transcode: str) -> None:
    require(RLE)
    source = await converting(transcode=transcode).convert(reader(name), own_syntax(name))
    if transcode == IMPLICIT and own_syntax(name) != IMPLICIT:
        assert source.transfer_syntaxes[0] == IMPLICIT
        assert all_but_pixels(await received(source)) == all_but_pixels(sample(name))
    else:
        assert source is None


async def test_without_pixels_a_compressed_transfer_syntax_is_left() -> None:
    def read() -> Dataset:
        report = sample("test-SR.dcm")
        report.file_meta.TransferSyntaxUID = UID(JPEG_BASELINE)
        return report

    source = await converting(transcode="native").convert(read, JPEG_BASELINE)
    assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)


async def test_an_icon_is_decompressed_with_its_image() -> None:
    require(RLE)
    original = sample("SC_rgb_rle.dcm")

    def read() -> Dataset:
        dataset = sample("SC_rgb_rle.dcm")
        icon = Dataset()
        for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns"):
            setattr(icon, keyword, dataset[keyword].value)
        icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
        icon.PixelData = dataset.PixelData
        icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
        dataset.IconImageSequence = Sequence([icon])
        return dataset

    after = await received(await converting(transcode="native").convert(read, RLE))
    assert after.IconImageSequence[0].PixelData == after.PixelData == samples(original).tobytes()


async def test_offset_tables_go_with_the_frames_that_they_are_of() -> None:
    require(RLE)
    original = sample("SC_rgb_rle_2frame.dcm")

    def read() -> Dataset:
        dataset = sample("SC_rgb_rle_2frame.dcm")
        dataset.compress(RLE, samples(original), encapsulate_ext=True, generate_instance_uid=False)
        return dataset

    after = await received(await converting(transcode="native").convert(read, RLE))
    assert "ExtendedOffsetTable" not in after
    assert "ExtendedOffsetTableLengths" not in after
    assert numpy.array_equal(samples(after), samples(original))


# --- what cannot be converted -----------------------------------------------------------------------------------------


def damaged(name: str, damage) -> Dataset:
    dataset = sample(name)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([damage(frame)])
    return dataset


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
    ],
)
async def test_a_frame_that_is_cut_off_is_never_half_an_image(name: str) -> None:
    require(own_syntax(name))
    with pytest.raises(InvalidObject, match="frame 1 of 1 is damaged"):
        await converting(transcode="native").convert(
            lambda: damaged(name, lambda frame: frame[: len(frame) * 9 // 10 // 2 * 2]), own_syntax(name)
        )


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm"]
)
async def test_a_decoder_that_fills_up_what_is_missing_gets_whole_frames_only(name: str, monkeypatch) -> None:
    """pylibjpeg-libjpeg: here as if it were the only one, and it need not be there."""
    monkeypatch.setattr("trio_dicom.conversion.codecs._DECODERS_OF_JPEG", ("pylibjpeg",))
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(own_syntax(name))), "available_plugins", ("pylibjpeg",))
    with pytest.raises(InvalidObject, match="frame 1 of 1 is cut off"):
        await converting(transcode="native").convert(
            lambda: damaged(name, lambda frame: frame[: len(frame) * 9 // 10 // 2 * 2]), own_syntax(name)
        )


async def test_of_several_frames_the_first_is_cut_off(monkeypatch) -> None:
    monkeypatch.setattr("trio_dicom.conversion.codecs._DECODERS_OF_JPEG", ("pylibjpeg",))
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(JPEG_BASELINE)), "available_plugins", ("pylibjpeg",))

    def read() -> Dataset:
        dataset = sample("SC_rgb_jpeg_dcmtk.dcm")
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.NumberOfFrames, dataset.PixelData = 3, encapsulate([frame, frame[:-20], frame])
        return dataset

    with pytest.raises(InvalidObject, match="frame 2 of 3 is cut off"):
        await converting(transcode="native").convert(read, JPEG_BASELINE)


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("said", [1, 3, 4])
@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm"])
async def test_the_number_of_frames_is_checked(name: str, said: int, has_table: bool) -> None:
    require(own_syntax(name))

    def read() -> Dataset:
        dataset = sample(name)
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.NumberOfFrames, dataset.PixelData = said, encapsulate([frame] * 3, has_bot=has_table)
        return dataset

    conversion = converting(transcode="native")
    if said == 3:
        after = await received(await conversion.convert(read, own_syntax(name)))
        assert numpy.array_equal(samples(after, raw=False), [samples(sample(name), raw=False)] * 3)
        return
    with pytest.raises(
        InvalidObject, match=r"there are 3 frames, and Number of Frames .* says|frame \d of 4 is damaged"
    ):
        await conversion.convert(read, own_syntax(name))


@pytest.mark.parametrize(("cut", "add"), [(2, 0), (0, 128 * 128 * 2)])
async def test_native_pixels_of_another_length(cut: int, add: int) -> None:
    require(RLE)

    def read() -> Dataset:
        dataset = sample("CT_small.dcm")
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) - cut] + bytes(add)
        return dataset

    with pytest.raises(InvalidObject, match=r"Pixel Data are \d+ bytes, and 1 frames of 32768 are expected"):
        await converting(transcode=RLE).convert(read, EXPLICIT)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("Rows", None, "Rows (0028,0010) is missing, or no number"),
        ("Columns", [1, 2], "Columns (0028,0011) is missing, or no number"),
        ("PlanarConfiguration", None, "Planar Configuration (0028,0006) is missing, or no number"),
        ("PhotometricInterpretation", "", "Photometric Interpretation (0028,0004) is missing"),
        ("BitsAllocated", 12, "Bits Allocated (0028,0100) of 12 cannot be converted"),
        ("Rows", 0, "1 frames of 0 bytes cannot be converted"),
        ("NumberOfFrames", 2_000_000, "2000000 frames of 30000 bytes cannot be converted"),
    ],
)
async def test_attributes_that_make_no_sense(keyword: str, value: object, reason: str) -> None:
    require(RLE)

    def read() -> Dataset:
        dataset = sample("SC_rgb_rle.dcm")
        setattr(dataset, keyword, value)
        return dataset

    with pytest.raises(InvalidObject) as caught:
        await converting(transcode="native").convert(read, RLE)
    assert caught.value.reason == reason


async def test_a_missing_decoder_is_named_and_what_to_install(monkeypatch) -> None:
    decoder = pydicom.pixels.get_decoder(JPEG_BASELINE)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(InvalidObject) as caught:
        await converting(transcode="native").convert(reader("SC_rgb_jpeg_dcmtk.dcm"), JPEG_BASELINE)
    assert caught.value.reason == (
        "no decoder for JPEG Baseline (Process 1) (1.2.840.10008.1.2.4.50) is installed: "
        "pip install 'trio-dicom[transcode]'"
    )
    assert caught.value.retry is Retry.AFTER_CONFIG


async def test_without_numpy_nothing_is_decompressed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(InvalidObject) as caught:
        await converting(transcode="native").convert(reader("MR_small_RLE.dcm"), RLE)
    assert caught.value.reason == "numpy is not installed: pip install 'trio-dicom[transcode]'"
    assert caught.value.retry is Retry.AFTER_CONFIG


async def test_jpeg_of_12_bits_needs_a_decoder_of_its_own(monkeypatch) -> None:
    decoder = pydicom.pixels.get_decoder(JPEG_EXTENDED)
    monkeypatch.setattr(decoder, "_available", {"gdcm": None, "pillow": None})
    with pytest.raises(InvalidObject, match="pip install pylibjpeg pylibjpeg-libjpeg"):
        await converting(transcode="native").convert(reader("JPGExtended.dcm"), JPEG_EXTENDED)


async def test_what_pydicom_does_not_know() -> None:
    mpeg2 = "1.2.840.10008.1.2.4.100"

    def read() -> Dataset:
        dataset = sample("SC_rgb_jpeg_dcmtk.dcm")
        dataset.file_meta.TransferSyntaxUID = UID(mpeg2)
        return dataset

    with pytest.raises(InvalidObject, match=f"pydicom has no decoder for transfer syntax {mpeg2}"):
        await converting(transcode="native").convert(read, mpeg2)


async def test_what_was_given_is_not_touched() -> None:
    """A transform may return what it keeps."""
    require(RLE)
    kept = sample("SC_rgb_rle.dcm")
    before = copy.deepcopy(kept)
    source = await converting(lambda dataset: kept, "native").convert(reader("CT_small.dcm"), EXPLICIT)
    assert source.transfer_syntaxes[0] == EXPLICIT
    assert kept == before
    assert kept.file_meta == before.file_meta


async def test_a_big_endian_object_is_converted_only_if_that_is_asked_for() -> None:
    assert await converting(transcode="native").convert(reader("MR_small_bigendian.dcm"), BIG) is None
    source = await converting(transcode=EXPLICIT).convert(reader("MR_small_bigendian.dcm"), BIG)
    assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
