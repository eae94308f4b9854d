from __future__ import annotations

import struct
import zlib

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.source_helpers import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    JPEG,
    SHIPPED,
    data_set,
    element,
    implicit,
    meta,
    uid,
)
from trio_dicom.errors import InvalidObject
from trio_dicom.sources.part10 import HEAD_LIMIT, Head, parse_head


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def test_head_of_a_plain_file():
    data = meta() + data_set()
    assert parse_head(data, at_end=True) == Head(CT, INSTANCE, EXPLICIT, len(meta()))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(kind):
    assert parse_head(kind(meta() + data_set()), at_end=True).data_set_offset == len(meta())


def test_every_shipped_file_has_the_head_that_pydicom_finds():
    seen = 0
    for path in SHIPPED.glob("*.dcm"):
        data = path.read_bytes()
        try:
            head = parse_head(data, at_end=True)
        except InvalidObject:
            continue
        file_meta = pydicom.filereader.read_file_meta_info(path)
        assert head.transfer_syntax_uid == file_meta.TransferSyntaxUID
        assert head.sop_instance_uid == file_meta.MediaStorageSOPInstanceUID
        seen += 1
    assert seen > 50


def test_more_bytes_are_asked_for_until_the_identity_is_certain():
    data = meta() + data_set()
    certain = len(meta()) + data_set().index(uid(INSTANCE)) + len(uid(INSTANCE))
    for size in range(certain):
        assert parse_head(data[:size], at_end=False) is None
    assert parse_head(data[:certain], at_end=False) is not None


@pytest.mark.fault_row(93, 94, 96, 97, 98, 101, 105)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "too few", id="fault93-empty"),
        pytest.param(bytes(131), "too few", id="fault93-short"),
        pytest.param(bytes(4000), "no DICM", id="fault94-zeros"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4, "no DICM", id="fault94-jpeg"),
        pytest.param(data_set() + bytes(100), "no DICM", id="fault94-bare-data-set"),
        pytest.param((meta() + data_set())[128:], "preamble", id="fault94-no-preamble"),
        pytest.param(meta(None) + data_set(), "0002,0010", id="fault96-no-transfer-syntax"),
        pytest.param(meta("") + data_set(), "0002,0010", id="fault96-empty-transfer-syntax"),
        pytest.param(meta("1.2.x") + data_set(), "0002,0010", id="fault96-illegal-transfer-syntax"),
        pytest.param(meta(instance="1.2.9") + data_set(), "mismatch", id="fault97-instance"),
        pytest.param(meta(sop_class=CT + ".1") + data_set(), "mismatch", id="fault97-class"),
        pytest.param(meta(sop_class=None) + data_set(None), "SOP Class UID is missing", id="fault98-class"),
        pytest.param(meta(instance=None) + data_set(CT, None), "SOP Instance UID is missing", id="fault98-inst"),
        pytest.param(meta(instance="1.2\\1.3") + data_set(CT, None), "not a UID", id="fault98-multi-valued"),
        pytest.param(meta(instance="1.2.a") + data_set(CT, None), "not a UID", id="fault98-letters"),
        pytest.param(meta(instance="1." + "2" * 63) + data_set(CT, None), "not a UID", id="fault98-65"),
        pytest.param(meta(instance=None) + data_set(CT, "1.2\\1.3"), "not a UID", id="fault98-in-data-set"),
        pytest.param(meta() + struct.pack("<HHL", 0, 0, 4) + bytes(4), "group 0000", id="fault101-command"),
        pytest.param(meta(IMPLICIT) + implicit(2, 0x10, b"1.2 ") + data_set(), "Explicit VR", id="fault101-meta"),
        pytest.param(meta(BIG) + element(0, 2, "UI", b"1\0", ">"), "group 0000", id="fault101-big-endian"),
        pytest.param(meta(sop_class="1.2.840.10008.1.3.10") + data_set(None), "DICOMDIR", id="fault105"),
        pytest.param(meta(), "no data set", id="no-data-set"),
        pytest.param(meta()[:-4], "cut short", id="meta-cut-short"),
        pytest.param(meta() + element(2, 0x10, "UI", uid(EXPLICIT)) + data_set(), "twice", id="two-transfer-syntaxes"),
        pytest.param(meta(DEFLATED) + b"\xff" * 64, "damaged", id="damaged-deflate"),
    ],
)
def test_what_cannot_be_sent_is_refused(data, reason):
    with pytest.raises(InvalidObject, match=reason.replace("(", r"\(")):
        parse_head(data, at_end=True)


@pytest.mark.fault_row(95)
@pytest.mark.parametrize("length", [None, 0, 2, 10_000, 0xFFFFFFFF])
def test_fault95_the_group_length_is_not_relied_upon(length):
    start = meta(group_length=length)
    assert parse_head(start + data_set(), at_end=True).data_set_offset == len(start)


@pytest.mark.fault_row(95)
def test_fault95_meta_without_end_is_refused_at_64_kib():
    endless = bytes(128) + b"DICM" + element(2, 0x16, "AE", b"X" * 16) * 4000
    with pytest.raises(InvalidObject, match="longer than 64 KiB"):
        parse_head(endless[:HEAD_LIMIT], at_end=False)
    huge = bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 1, b"OB", 0, 0xFFFFFFF0)
    with pytest.raises(InvalidObject, match="longer than 64 KiB"):
        parse_head(huge, at_end=False)


@pytest.mark.fault_row(98)
def test_fault98_one_byte_of_padding_is_taken_off():
    start = meta(None, instance=None) + element(2, 3, "UI", b"1.2.3 ") + element(2, 0x10, "UI", uid(EXPLICIT))
    head = parse_head(start + data_set(CT, "1.2.3"), at_end=True)
    assert head.sop_instance_uid == "1.2.3"


@pytest.mark.fault_row(98)
def test_fault98_a_second_byte_of_padding_is_not():
    start = meta(None, instance=None) + element(2, 3, "UI", b"1.23  ") + element(2, 0x10, "UI", uid(EXPLICIT))
    with pytest.raises(InvalidObject, match="not a UID"):
        parse_head(start + data_set(CT, None), at_end=True)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED, JPEG])
def test_uids_that_the_meta_lacks_come_from_the_data_set(syntax):
    order = ">" if syntax == BIG else "<"
    if syntax == IMPLICIT:
        body = implicit(8, 0x16, uid(CT)) + implicit(8, 0x18, uid(INSTANCE))
    else:
        body = element(8, 0x16, "UI", uid(CT), order) + element(8, 0x18, "UI", uid(INSTANCE), order)
    body = deflated(body) if syntax == DEFLATED else body
    head = parse_head(meta(syntax, None, None) + body, at_end=True)
    assert (head.sop_class_uid, head.sop_instance_uid) == (CT, INSTANCE)


def test_before_a_deflated_data_set_the_group_length_decides():
    # Deflated bytes may look like an element of group 0002; these are one, if the group length does not say otherwise.
    looks_so = element(2, 0x16, "AE", b"AB") + deflated(data_set())
    with pytest.raises(InvalidObject, match="damaged"):
        parse_head(meta(DEFLATED) + looks_so, at_end=True)
    head = parse_head(meta(DEFLATED, group_length=None) + looks_so, at_end=True)
    assert head.data_set_offset == len(meta(DEFLATED, group_length=None)) + 10


def test_an_undefined_length_before_the_uids_ends_the_check():
    sequence = struct.pack("<HH2sHL", 8, 6, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    assert parse_head(meta() + sequence + data_set(CT, "9.9"), at_end=True).sop_instance_uid == INSTANCE


def test_an_unknown_transfer_syntax_passes():
    private = "1.2.826.0.1.999"
    assert parse_head(meta(private) + b"\x08\0\x16\0anything at all", at_end=True).transfer_syntax_uid == private


@given(st.data())
def test_a_mutated_head_is_read_or_refused_and_nothing_else(data):
    whole = bytearray(meta() + data_set())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(128, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        head = parse_head(whole[:cut], at_end=True)
    except InvalidObject:
        return
    assert head.data_set_offset < cut
