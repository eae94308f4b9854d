from __future__ import annotations

import io
import struct

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.source_helpers import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SHIPPED,
    data_set,
    decoded,
    element,
    implicit,
)
from trio_dicom.errors import InvalidObject
from trio_dicom.sources import recode as recode_module
from trio_dicom.sources.file import read_head
from trio_dicom.sources.recode import Span, deflate, inflate, recode

UNDEFINED = 0xFFFFFFFF


def recoded(data: bytes, source: str, target: str) -> bytes:
    pieces = recode(io.BytesIO(data), 0, len(data), source, target)
    return b"".join(data[p.offset : p.offset + p.length] if isinstance(p, Span) else bytes(p) for p in pieces)


def values(dataset):
    """What is in a data set but for its VRs: tags, item structure, values. Unknown VRs stand as their bytes."""
    out = []
    for item in dataset:
        if item.VR == "SQ":
            out.append((item.tag, [values(inner) for inner in item.value]))
        elif item.VR != "UN":
            out.append((item.tag, item.value))
        else:
            out.append((item.tag, None))
    return out


def native_files():
    found = []
    for path in sorted(SHIPPED.rglob("*")):
        try:
            head = read_head(path)
        except InvalidObject:
            continue
        if head.transfer_syntax_uid in (EXPLICIT, IMPLICIT) and path.name != "MR_truncated.dcm":
            found.append(pytest.param(path, head, id=str(path.relative_to(SHIPPED))))
    return found


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, DEFLATED])
@pytest.mark.parametrize(("path", "head"), native_files())
def test_nothing_of_a_shipped_file_is_lost(path, head, target):
    own = head.transfer_syntax_uid
    data = path.read_bytes()[head.data_set_offset :]
    there = decoded(recoded(data, own, target), target)
    here = decoded(data, own)
    mine, theirs = values(here), values(there)
    assert len(mine) == len(theirs)
    for (tag, value), (other_tag, other) in zip(mine, theirs, strict=True):
        assert tag == other_tag
        assert value is None or other is None or value == other


@pytest.mark.parametrize("name", ["nested_priv_SQ.dcm", "priv_SQ.dcm", "UN_sequence.dcm"])
@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT])
def test_private_sequences_keep_their_values(name, target):
    whole = pydicom.dcmread(SHIPPED / name)
    whole.pop("PixelData", None)  # one of them does not say how many bits it has
    own = str(whole.file_meta.TransferSyntaxUID)
    out = io.BytesIO()
    pydicom.dcmwrite(out, pydicom.Dataset(whole), implicit_vr=own == IMPLICIT, little_endian=True, force_encoding=True)
    body = out.getvalue()
    assert decoded(recoded(body, own, target), target) == decoded(body, own)


def test_there_and_back_is_where_it_began():
    body = data_set(pixels=bytes(40_000))
    there = recoded(body, EXPLICIT, IMPLICIT)
    assert len(there) < len(body)
    assert recoded(there, IMPLICIT, EXPLICIT) == body
    assert recoded(recoded(body, EXPLICIT, DEFLATED), DEFLATED, IMPLICIT) == there
    assert recoded(recoded(there, IMPLICIT, DEFLATED), DEFLATED, EXPLICIT) == body


def test_large_values_stay_in_the_input():
    body = data_set(pixels=bytes(200_000))
    pieces = recode(io.BytesIO(body), 0, len(body), EXPLICIT, IMPLICIT)
    assert Span(len(body) - 200_000, 200_000) in pieces
    assert sum(len(piece) for piece in pieces if not isinstance(piece, Span)) < 500


def test_deflated_is_even():
    for size in range(2, 60, 2):
        packed = deflate([bytes(range(size))])
        assert len(packed) % 2 == 0
        assert inflate(io.BytesIO(packed), 0, len(packed)) == bytes(range(size))


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def test_un_of_undefined_length_is_implicit_inside():
    inside = item(implicit(0x11, 0x1001, b"ab"))
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    body = element(0x11, 0x10, "LO", b"ME") + struct.pack("<HH2sHL", 0x11, 0x1000, b"UN", 0, UNDEFINED) + inside + end
    there = recoded(body, EXPLICIT, IMPLICIT)
    assert implicit(0x11, 0x1001, b"ab") in there


def test_a_value_too_long_for_its_vr_becomes_un():
    body = implicit(0x28, 0x1201, bytes(70_000)) + implicit(0x10, 0x4000, bytes(70_000))
    there = recoded(body, IMPLICIT, EXPLICIT)
    assert struct.pack("<HH2sHL", 0x10, 0x4000, b"UN", 0, 70_000) in there
    assert struct.pack("<HH2sHL", 0x28, 0x1201, b"OW", 0, 70_000) in there


@pytest.mark.parametrize(("signed", "vr"), [(b"\1\0", b"SS"), (b"\0\0", b"US")])
def test_pixel_representation_decides_between_us_and_ss(signed, vr):
    body = implicit(0x28, 0x103, signed) + implicit(0x28, 0x106, b"\1\2")
    assert recoded(body, IMPLICIT, EXPLICIT).endswith(struct.pack("<HH2sH", 0x28, 0x106, vr, 2) + b"\1\2")


def test_retired_group_lengths_go():
    body = element(8, 0, "UL", b"\4\0\0\0") + element(8, 5, "CS", b"ISO_IR 100")
    assert recoded(body, EXPLICIT, IMPLICIT) == implicit(8, 5, b"ISO_IR 100")


@pytest.mark.fault_row(99)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(data_set()[:-1], "cut short", id="fault99-in-pixels"),
        pytest.param(data_set()[:20], "cut short", id="fault99-in-value"),
        pytest.param(data_set() + b"\x08", "cut short", id="fault99-in-header"),
        pytest.param(struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, UNDEFINED), "cut short", id="fault99-delimiter"),
        pytest.param(struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 8) + bytes(8), "damaged", id="no-item"),
        pytest.param(struct.pack("<HH2sHLHHL", 8, 0x1140, b"SQ", 0, 8, 0xFFFE, 0xE000, 90), "damaged", id="item"),
        pytest.param(struct.pack("<HHL", 0xFFFE, 0xE000, 0), "damaged", id="item-outside"),
        pytest.param(struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, UNDEFINED), "encapsulated", id="encapsulated"),
        pytest.param(b"\x08\0\x05\0zz\2\0ab", "damaged", id="no-vr"),
        pytest.param(struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, UNDEFINED)
                     + struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED), "cut short", id="item-without-end"),
    ],
)  # fmt: skip
def test_a_damaged_data_set_is_refused(data, reason):
    with pytest.raises(InvalidObject, match=reason):
        recoded(data, EXPLICIT, IMPLICIT)


def test_deep_nesting_is_refused():
    opening = struct.pack("<HH2sHLHHL", 8, 0x1140, b"SQ", 0, UNDEFINED, 0xFFFE, 0xE000, UNDEFINED)
    with pytest.raises(InvalidObject, match="64 deep"):
        recoded(opening * 500, EXPLICIT, IMPLICIT)


@pytest.mark.fault_row(81)
def test_fault81_inflation_has_limits(monkeypatch):
    bomb = deflate([bytes(4 << 20)])
    monkeypatch.setattr(recode_module, "MAX_INFLATED", 1 << 20)
    with pytest.raises(InvalidObject, match="inflates"):
        recoded(bomb, DEFLATED, EXPLICIT)


@pytest.mark.parametrize(("data", "reason"), [(deflate([data_set()])[:-20], "cut short"), (b"\xff" * 20, "damaged")])
def test_a_damaged_deflated_data_set_is_refused(data, reason):
    with pytest.raises(InvalidObject, match=reason):
        recoded(data, DEFLATED, EXPLICIT)


@given(st.binary(max_size=200), st.sampled_from([EXPLICIT, IMPLICIT]))
def test_random_bytes_are_encoded_or_refused_and_nothing_else(data, source):
    try:
        recoded(data, source, IMPLICIT if source == EXPLICIT else EXPLICIT)
    except InvalidObject:
        pass
