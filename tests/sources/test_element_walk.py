"""Data sets that are there to their end, and such that were cut off."""

from __future__ import annotations

import struct
from itertools import accumulate

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
    element,
    implicit,
    meta,
    uid,
)
from trio_dicom.errors import InvalidObject
from trio_dicom.sources.element_walk import ElementWalk, check_file
from trio_dicom.sources.part10 import Head, parse_head

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD


def delimiter(number: int, length: int = 0, order: str = "<") -> bytes:
    return struct.pack(order + "HHL", 0xFFFE, number, length)


def undefined(group: int, number: int, vr: str, order: str = "<") -> bytes:
    return struct.pack(order + "HH2sHL", group, number, vr.encode(), 0, UNDEFINED)


def identity(order: str = "<") -> list[bytes]:
    return [element(8, 0x16, "UI", uid(CT), order), element(8, 0x18, "UI", uid(INSTANCE), order)]


def nested(inside: bytes, order: str = "<") -> bytes:
    """A sequence in a sequence, of undefined length throughout, and an empty one."""
    item = delimiter(ITEM, UNDEFINED, order)
    inner = undefined(0x40, 0x275, "SQ", order) + item + inside + delimiter(ITEM_END, 0, order)
    inner += delimiter(SEQUENCE_END, 0, order)
    outer = undefined(8, 0x1140, "SQ", order) + item + inner + delimiter(ITEM_END, 0, order)
    return outer + delimiter(ITEM, 0, order) + delimiter(SEQUENCE_END, 0, order)


ICON = element(0x88, 0x200, "SQ", delimiter(ITEM, 20) + element(0x7FE0, 0x10, "OW", b"\1\2\3\4\5\6\7\7"))
FRAGMENTS = undefined(0x7FE0, 0x10, "OB") + delimiter(ITEM) + delimiter(ITEM, 6) + b"\xff\xd8\1\2\xff\xd9"
PRIVATE = undefined(9, 0x1001, "UN") + delimiter(ITEM, UNDEFINED) + implicit(9, 0x1002, b"abcd")
PIXELS = element(0x7FE0, 0x10, "OW", bytes(range(1, 201)))

WHOLE = {
    "explicit": (EXPLICIT, [*identity(), ICON, element(0x28, 0x10, "US", b"\x10\1"), PIXELS]),
    "implicit": (
        IMPLICIT,
        [implicit(8, 0x16, uid(CT)), implicit(8, 0x18, uid(INSTANCE)), implicit(0x7FE0, 0x10, b"\1\2\3\4" * 9)],
    ),
    "big_endian": (
        BIG,
        [*identity(">"), nested(element(8, 0x60, "CS", b"CT", ">"), ">"), element(0x28, 2, "US", b"\1\1", ">")],
    ),
    "nested": (EXPLICIT, [*identity(), nested(element(8, 0x60, "CS", b"CT"))]),
    "encapsulated": (JPEG, [*identity(), FRAGMENTS + delimiter(SEQUENCE_END)]),
    "unknown_vr_of_no_length": (EXPLICIT, [*identity(), PRIVATE + delimiter(ITEM_END) + delimiter(SEQUENCE_END)]),
    "padded": (EXPLICIT, [*identity(), PIXELS, element(0xFFFC, 0xFFFC, "OB", b"\1" * 8)]),
    "long_header_at_the_end": (EXPLICIT, [*identity(), element(0x42, 0x11, "OB", b"%PDF")]),
}  # fmt: skip


def is_whole_in_pieces(syntax: str, data: bytes, size: int) -> bool:
    walk = ElementWalk(syntax)
    for at in range(0, len(data), size):
        walk.feed(data[at : at + size])
    try:
        walk.check_fed("stream")
    except InvalidObject as error:
        return str(error) != "stream: the data set is cut off"
    return True


def is_whole_as_file(syntax: str, data: bytes, first: int, looks: list[int] | None = None) -> bool:
    file = meta(syntax) + data
    head = Head(CT, INSTANCE, syntax, len(meta(syntax)))

    def read(offset: int, count: int) -> bytes:
        assert offset + count <= len(file)
        if looks is not None:
            looks.append(count)
        return file[offset : offset + count]

    try:
        check_file(head, file[: head.data_set_offset + first], len(file), read)
    except InvalidObject as error:
        return str(error) != "the data set is cut off"
    return True


@pytest.mark.fault_row(99)
@pytest.mark.parametrize(("syntax", "elements"), WHOLE.values(), ids=WHOLE)
def test_fault99_cut_anywhere(syntax: str, elements: list[bytes]) -> None:
    """Only between two elements nobody can see it."""
    data = b"".join(elements)
    boundaries = {0, *accumulate(map(len, elements))}
    for cut in range(0, len(data) + 1, 2):  # an odd one is found by its length
        for size in (1, 7, 12, 1 << 20):
            assert is_whole_in_pieces(syntax, data[:cut], size) == (cut in boundaries), (cut, size)
        for first in (0, 50, 1 << 16):
            assert is_whole_as_file(syntax, data[:cut], first) == (cut in boundaries), (cut, first)


@pytest.mark.fault_row(99)
@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(element(9, 1, "zz", b"\0\0\1\0"), id="vr"),
        pytest.param(bytes(6), id="few_zeros"),
        pytest.param(bytes(500), id="zeros"),
        pytest.param(delimiter(ITEM, 90), id="item_outside"),
        pytest.param(delimiter(SEQUENCE_END), id="end_of_no_sequence"),
        pytest.param(undefined(8, 0x1140, "SQ") + element(8, 0x60, "CS", b"CT"), id="no_item"),
        pytest.param((undefined(8, 0x1140, "SQ") + delimiter(ITEM, UNDEFINED)) * 501, id="too_deep"),
        pytest.param(undefined(0x7FE1, 0x10, "OB") + delimiter(ITEM, UNDEFINED), id="fragment_of_no_length"),
    ],
)
def test_where_the_way_is_lost_nothing_is_said(tail: bytes) -> None:
    data = b"".join(identity()) + tail
    assert is_whole_in_pieces(EXPLICIT, data, 10)
    looks: list[int] = []
    assert is_whole_as_file(EXPLICIT, data + bytes(50_000), 0, looks)
    assert sum(looks) <= 16 << 10


def test_a_stream_of_very_many_elements_is_not_walked_for_ever() -> None:
    small = element(8, 0x60, "CS", b"") * 100_000
    assert not is_whole_in_pieces(EXPLICIT, small + b"\x08\0", 1 << 20)
    assert is_whole_in_pieces(EXPLICIT, small * 3 + b"\x08\0", 1 << 20)


@pytest.mark.fault_row(99)
def test_fault99_deep_and_cut_off() -> None:
    deep = (undefined(8, 0x1140, "SQ") + delimiter(ITEM, UNDEFINED)) * 500
    ends = (delimiter(ITEM_END) + delimiter(SEQUENCE_END)) * 500
    assert is_whole_in_pieces(EXPLICIT, deep + ends, 1000)
    assert not is_whole_in_pieces(EXPLICIT, deep + ends[:-8], 1000)


def test_a_deflated_data_set_is_not_walked() -> None:
    assert is_whole_in_pieces(DEFLATED, b"\x63\x64", 10)
    assert is_whole_as_file(DEFLATED, b"\x63\x64", 0)


def test_most_files_cost_no_look() -> None:
    """Those that end with their pixels, as native ones do; and one of encapsulated ones, however many they are."""
    frames = [*identity(), FRAGMENTS, *[delimiter(ITEM, 4) + b"abcd"] * 5000, delimiter(SEQUENCE_END)]
    looks: list[int] = []
    assert is_whole_as_file(EXPLICIT, b"".join([*identity(), ICON, PIXELS]), 300, looks)
    assert looks == []
    assert is_whole_as_file(JPEG, b"".join(frames), 300, looks)
    assert looks == [8]


def test_a_long_walk_is_given_up() -> None:
    far_apart = [element(0x42, number, "OB", bytes(20_000)) for number in range(1, 80)]
    looks: list[int] = []
    assert is_whole_as_file(EXPLICIT, b"".join(far_apart)[:-2], 0, looks)
    assert len(looks) == 64
    assert not is_whole_as_file(EXPLICIT, b"".join(far_apart[:50])[:-2], 0)


@given(st.data())
def test_any_bytes_have_one_verdict(data: st.DataObject) -> None:
    """However they are cut, and from a file as from a stream; and it comes to an end."""
    parts = [element(8, 0x60, "CS", b"CT"), undefined(8, 0x1140, "SQ"), undefined(9, 0x1001, "UN"), FRAGMENTS, PIXELS]
    parts += [delimiter(number, length) for number in (ITEM, ITEM_END, SEQUENCE_END) for length in (0, 4, UNDEFINED)]
    body = b"".join(data.draw(st.lists(st.sampled_from(parts) | st.binary(max_size=16), max_size=12)))
    syntax = data.draw(st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
    verdicts = {is_whole_in_pieces(syntax, body, size) for size in (1, 5, 1000)}
    assert len(verdicts) == 1
    if not body.endswith((PIXELS, delimiter(SEQUENCE_END))):  # of which a file is known to be whole without a walk
        assert {is_whole_as_file(syntax, body, first) for first in (0, 30)} == verdicts


@pytest.mark.fault_row(99)
def test_fault99_of_pydicoms_files_one_is_cut_off() -> None:
    cut, seen = [], 0
    for path in sorted(SHIPPED.rglob("*.dcm")):
        data = path.read_bytes()
        try:
            head = parse_head(data[: 1 << 16], at_end=len(data) <= 1 << 16)
        except InvalidObject:
            continue
        assert head is not None
        seen += 1
        body = data[head.data_set_offset :]
        whole = is_whole_in_pieces(head.transfer_syntax_uid, body, 1000)
        try:
            check_file(head, data[:4096], len(data), lambda offset, count, data=data: data[offset : offset + count])
        except InvalidObject:
            assert not whole
            cut.append(path.name)
        else:
            assert whole
    assert cut == ["MR_truncated.dcm"]
    assert seen > 50
