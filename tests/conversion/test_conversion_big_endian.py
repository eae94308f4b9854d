"""Explicit VR Big Endian becomes Little Endian: numbers are turned round, and nothing else is touched."""

from __future__ import annotations

import struct

import numpy
import pytest
from pydicom.dataset import Dataset

from conversion.codec_samples import JPEG_LS, RLE, all_but_pixels, reader, received, require, sample, samples
from sources.source_helpers import BIG, DEFLATED, EXPLICIT, IMPLICIT, element
from trio_dicom.conversion.big_endian import MAX_DEPTH, turn_round
from trio_dicom.conversion.conversion import Conversion
from trio_dicom.errors import InvalidObject
from trio_dicom.sources.threads import stand_still

ITEM, ITEM_END, SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
UNDEFINED = 0xFFFFFFFF

# Each with its twin in Little Endian, as somebody else has made it.
TWINS = [
    ("MR_small_bigendian.dcm", "MR_small.dcm"),
    ("ExplVR_BigEnd.dcm", None),
    ("SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd.dcm"),
    ("liver_expb_1frame.dcm", "liver_1frame.dcm"),
]


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, DEFLATED, RLE, JPEG_LS])
@pytest.mark.parametrize(("name", "twin"), TWINS)
async def test_files_of_others(name: str, twin: str | None, target: str, autojump_clock) -> None:
    stand_still.set(True)
    require(target)
    require(target, to_encode=True)
    before = sample(name)
    if target in (RLE, JPEG_LS) and (before.BitsAllocated == 1 or before.Columns < 4):
        return  # tested elsewhere
    source = await Conversion(transcode=target).convert(reader(name), BIG)
    assert source.transfer_syntaxes[0] == target
    after = await received(source)
    assert all_but_pixels(after) == all_but_pixels(before)
    assert numpy.array_equal(samples(after), samples(before))
    if twin is not None:
        assert numpy.array_equal(samples(after), samples(sample(twin)))
    if twin is not None and target == EXPLICIT:
        assert after.PixelData == sample(twin).PixelData


@pytest.mark.parametrize("name", ["rtdose_expb.dcm", "rtdose_expb_1frame.dcm"])
async def test_more_than_16_bits_are_not_guessed_at(name: str, autojump_clock) -> None:
    stand_still.set(True)
    with pytest.raises(InvalidObject, match="Big Endian pixels of 32 bits: their order is not certain"):
        await Conversion(transcode=EXPLICIT).convert(reader(name), BIG)


async def test_texts_keep_their_bytes(autojump_clock) -> None:
    """In a character set that says nothing of them."""
    stand_still.set(True)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Grün^Käthe"
    dataset.SliceThickness = "+01.50E0"
    dataset.set_original_encoding(False, False)
    source = await Conversion(transcode=EXPLICIT).convert(lambda: dataset, BIG)
    after = await received(source)
    assert after.PatientName == "Grün^Käthe"
    assert after.get_item("SliceThickness").value == b"+01.50E0"


# --- element by element -----------------------------------------------------------------------------------------------

NUMBERS = {
    "AT": "HH",
    "SS": "hh",
    "US": "HH",
    "OW": "HHH",
    "SL": "ll",
    "UL": "LL",
    "FL": "ff",
    "FD": "dd",
}


def delimiter(order: str, number: int, length: int = 0) -> bytes:
    return struct.pack(order + "HHL", 0xFFFE, number, length)


@pytest.mark.parametrize("vr", NUMBERS)
def test_numbers(vr: str) -> None:
    values = [struct.pack(order + NUMBERS[vr], *range(1, len(NUMBERS[vr]) + 1)) for order in "><"]
    big, little = (element(0x19, 0x1001, vr, value, order) for value, order in zip(values, "><", strict=True))
    data = bytearray(big)
    turn_round(data)
    assert data == little


@pytest.mark.parametrize(("vr", "code"), [("OF", "f"), ("OL", "L"), ("OD", "d"), ("OV", "Q"), ("SV", "q"), ("UV", "Q")])
def test_long_numbers(vr: str, code: str) -> None:
    def made(order: str) -> bytes:
        value = struct.pack(order + code * 3, 1, 2, 3)
        return struct.pack(order + "HH2sHL", 0x19, 0x1001, vr.encode(), 0, len(value)) + value

    data = bytearray(made(">"))
    turn_round(data)
    assert data == made("<")


@pytest.mark.parametrize(
    "vr", ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI", "OB"]
)
def test_bytes(vr: str) -> None:
    data = bytearray(element(0x19, 0x1001, vr, b"abcd", ">"))
    turn_round(data)
    assert data == element(0x19, 0x1001, vr, b"abcd")


def nested(order: str, *, item_length: bool, length: bool) -> bytes:
    inner = element(0x28, 0x0010, "US", struct.pack(order + "H", 512), order)
    item = delimiter(order, ITEM, len(inner) if item_length else UNDEFINED) + inner
    item += b"" if item_length else delimiter(order, ITEM_END)
    body = item * 2 + (b"" if length else delimiter(order, SEQUENCE_END))
    head = struct.pack(order + "HH2sHL", 0x08, 0x1140, b"SQ", 0, len(body) if length else UNDEFINED)
    after = element(0x28, 0x0011, "US", struct.pack(order + "H", 3), order)
    return head + body + after


@pytest.mark.parametrize("item_length", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_sequences(item_length: bool, length: bool) -> None:
    data = bytearray(nested(">", item_length=item_length, length=length))
    turn_round(data)
    assert data == nested("<", item_length=item_length, length=length)


@pytest.mark.parametrize("item_length", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_sequences_cut_short_anywhere(item_length: bool, length: bool) -> None:
    whole = nested(">", item_length=item_length, length=length)
    for end in range(1, len(whole)):
        if end == len(whole) - 10:  # before the last element
            continue
        with pytest.raises(InvalidObject, match="damaged or cut short at byte"):
            turn_round(bytearray(whole[:end]))


@pytest.mark.parametrize("item_length", [True, False])
def test_every_other_byte_ends_in_a_documented_error(item_length: bool) -> None:
    whole = nested(">", item_length=item_length, length=False)
    for at in range(len(whole)):
        for value in (0, 1, 0x7F, 0xFF):
            data = bytearray(whole)
            data[at] = value
            try:
                turn_round(data)
            except InvalidObject:
                pass
            assert len(data) == len(whole)


def test_an_item_without_end_in_a_sequence_with_one() -> None:
    item = delimiter(">", ITEM, UNDEFINED) + element(0x28, 0x0010, "US", b"\2\0", ">")
    data = struct.pack(">HH2sHL", 0x08, 0x1140, b"SQ", 0, len(item)) + item
    with pytest.raises(InvalidObject, match="damaged or cut short"):
        turn_round(bytearray(data + element(0x28, 0x0011, "US", b"\0\3", ">")))


def test_depth_is_bounded() -> None:
    data = b""
    for _ in range(MAX_DEPTH + 1):
        data = delimiter(">", ITEM, len(data)) + data
        data = struct.pack(">HH2sHL", 0x08, 0x1140, b"SQ", 0, len(data)) + data
    with pytest.raises(InvalidObject, match="sequences nested more than 64 deep"):
        turn_round(bytearray(data))


def test_what_nobody_knows_is_not_guessed_at() -> None:
    with pytest.raises(InvalidObject, match=r"\(0019,1001\) is of unknown VR: it cannot be turned round"):
        turn_round(bytearray(element(0x19, 0x1001, "UN", b"abcd", ">")))
    data = bytearray(element(0x19, 0x1001, "UN", b"", ">"))
    turn_round(data)
    assert data == element(0x19, 0x1001, "UN", b"")


def test_large_values_in_several_pieces() -> None:
    words = numpy.arange(1_500_000, dtype=">u2")
    data = bytearray(element(0x28, 0x0100, "US", b"\0\x10", ">") + element(0x7FE0, 0x10, "OW", words.tobytes(), ">"))
    turn_round(data)
    assert data.endswith(words.astype("<u2").tobytes())
