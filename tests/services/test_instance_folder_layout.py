"""The names under which instances are filed, whatever their senders call themselves and their patients."""

from __future__ import annotations

import os
import pathlib
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fake_instance import CT, UID, data_set, element, instance, names
from trio_dicom.errors import InvalidObject
from trio_dicom.services import directory
from trio_dicom.services.file_layout import FIELDS, LONGEST_NAME, FileLayout, encode_value
from trio_dicom.services.identification import find_values
from trio_dicom.services.instance_folder import InstanceFolder
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

SYNTAXES = [
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
]
FULL = "/".join(f"{{{field}}}" for field in FIELDS if field != "sop_instance_uid") + "/{sop_instance_uid}.dcm"
IDENTITY = [
    (0x0020000D, "UI", b"1.2.3"),
    (0x0020000E, "UI", b"1.2.3.4"),
    (0x00100020, "LO", b"PAT 7/x"),
    (0x00080060, "CS", b"CT"),
    (0x00080020, "DA", b"20240229"),
    (0x00080050, "SH", b"A1"),
]
PATH = ("1.2.3", "1.2.3.4", "PAT%207%2Fx", "CT", "20240229", "A1", f"{UID}.dcm")


# --- the template ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "relative path"),
        ("/", "relative path"),
        ("/{sop_instance_uid}", "relative path"),
        ("a//{sop_instance_uid}", "relative path"),
        ("{sop_instance_uid}/", "relative path"),
        ("../{sop_instance_uid}", "dot"),
        ("a/../{sop_instance_uid}", "dot"),
        ("./{sop_instance_uid}", "dot"),
        (".{sop_instance_uid}", "dot"),
        (".arriving-{sop_instance_uid}.part", "dot"),
        ("{sop_instance_uid}.", "dot"),
        ("{sop_instance_uid} ", "space"),
        ("a /{sop_instance_uid}", "space"),
        ("C:/{sop_instance_uid}", "ASCII"),
        ("a\\{sop_instance_uid}", "ASCII"),
        ("a\0{sop_instance_uid}", "ASCII"),
        ("a\n{sop_instance_uid}", "ASCII"),
        ("%41{sop_instance_uid}", "ASCII"),
        ("a~{sop_instance_uid}", "ASCII"),
        ("{{x}}{sop_instance_uid}", "ASCII"),
        ("ä/{sop_instance_uid}", "ASCII"),
        ("CON/{sop_instance_uid}", "device"),
        ("aux.txt/{sop_instance_uid}", "device"),
        ("Lpt1 /{sop_instance_uid}", "space"),
        ("nul .x/{sop_instance_uid}", "device"),
        ("{}", "there is no field {}"),
        ("{0}", "there is no field {0}"),
        ("{patient_name}/{sop_instance_uid}", "there is no field {patient_name}"),
        ("{sop_instance_uid.__class__}", "there is no field"),
        ("{sop_instance_uid[0]}", "there is no field"),
        ("{sop_instance_uid!r}", "format"),
        ("{sop_instance_uid:>99999999}", "format"),
        ("{sop_instance_uid:{patient_id}}", "format"),
        ("{sop_instance_uid", "expected"),
        ("sop_instance_uid}", "encountered"),
        ("all.dcm", "must be there"),
        ("{study_instance_uid}/image.dcm", "must be there"),
        ("{patient_id}{sop_instance_uid}", "between"),
        ("{sop_class_uid}.{sop_instance_uid}", "between"),
        ("{sop_instance_uid}1{patient_id}", "between"),
        ("{patient_id}-{sop_instance_uid}-{modality}", "first or the last"),
        ("a" * 190 + "{sop_instance_uid}", "255"),
    ],
)
def test_templates_that_are_refused(template: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        FileLayout(template)
    assert all(field in str(caught.value) for field in FIELDS)
    assert caught.value.__cause__ is None


def test_a_template_is_text() -> None:
    with pytest.raises(TypeError, match=r"not PosixPath|not WindowsPath"):
        FileLayout(pathlib.Path("{sop_instance_uid}"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{sop_instance_uid}", ("1.2.3",)),
        ("{sop_instance_uid}/image.dcm", ("1.2.3", "image.dcm")),
        ("in/{patient_id}-{sop_instance_uid}.dcm", ("in", "P-1.2.3.dcm")),
        ("{sop_instance_uid}_{patient_id}", ("1.2.3_P",)),
        ("{modality} {patient_id} {sop_instance_uid}", ("unknown P 1.2.3",)),
        ("{patient_id}/{patient_id}/{sop_instance_uid}", ("P", "P", "1.2.3")),
        ("a" * 189 + "{sop_instance_uid}", ("a" * 189 + "1.2.3",)),
    ],
)
def test_templates_that_are_taken(template: str, expected: tuple[str, ...]) -> None:
    assert FileLayout(template).names({"sop_instance_uid": b"1.2.3", "patient_id": b"P"}) == expected


# --- values ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    b"../../x",
    b"/etc/x",
    b"..",
    b".",
    b"",
    b"a\0b",
    b"1.2/3",
    b"a\\b",
    b"CON",
    b"con",
    b"LPT9",
    b"trailing.",
    b"trailing ",
    b".hidden",
    b".arriving-0123456789abcdef0123456789abcdef.part",
    b"C:",
    b"\x1b[2J",
    b"\xff\xfe",
    "٣.٢".encode(),  # digits, for \d
    "Müller".encode("latin-1"),
    b"%2E%2E",
    b"~",
    b"x" * 10_000,
    b"1" * 65,
    b"{patient_id}",
    b"$(rm)",
    b"-rf",
    b"\n",
]


@pytest.mark.fault_row(66, 75)
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value[:20]))
@pytest.mark.parametrize("field", [field for field in FIELDS if field != "sop_instance_uid"])
def test_hostile_values_fault75_fault66(field: str, value: bytes) -> None:
    layout = FileLayout(f"{{{field}}}/{{{field}}}.d/x-{{{field}}}-{{sop_instance_uid}}.dcm")
    found = layout.names({"sop_instance_uid": b"1.2", field: value})
    assert len(found) == 3
    for name in found:
        assert re.fullmatch(r"[A-Za-z0-9_%~-][A-Za-z0-9_%~.-]*", name, re.ASCII)
        assert not name.endswith(".")
        assert ".." not in name
        assert len(name) <= LONGEST_NAME
        assert not re.match(r"(con|lpt9)(\.|$)", name, re.IGNORECASE)


@pytest.mark.fault_row(75)
@pytest.mark.parametrize("device", ["CON", "PRN", "AUX", "NUL", "COM1", "COM0", "LPT9", "con", "Aux"])
@pytest.mark.parametrize("template", ["{patient_id}", "{patient_id}.txt"])
def test_devices_are_no_names(device: str, template: str) -> None:
    layout = FileLayout(template + "/{sop_instance_uid}")
    assert layout.names({"patient_id": device.encode(), "sop_instance_uid": b"1"})[0].startswith(
        f"%{ord(device[0]):02X}{device[1:]}"
    )
    assert layout.names({"patient_id": b"_" + device.encode(), "sop_instance_uid": b"1"})[0][0] == "_"


@pytest.mark.fault_row(75)
def test_a_device_that_text_and_value_make_together() -> None:
    assert FileLayout("CO{modality}/{sop_instance_uid}").names({"modality": b"N", "sop_instance_uid": b"1"})[0] == (
        "%43ON"
    )
    assert FileLayout("COM{sop_instance_uid}").names({"sop_instance_uid": b"1.2"}) == ("%43OM1.2",)


@given(st.lists(st.binary(max_size=80), min_size=2, max_size=2, unique=True))
def test_two_values_are_two_names(values: list[bytes]) -> None:
    first, second = map(encode_value, values)
    assert first != second or b"unknown" in values


def test_a_name_can_be_decoded() -> None:
    value = bytes(range(21))
    assert unquote_to_bytes(encode_value(value)) == value
    assert len(encode_value(bytes(22))) == 64
    assert encode_value(bytes(22))[31] == "~"


uids = st.from_regex(r"[0-9]+(\.[0-9]+){0,4}", fullmatch=True).filter(lambda uid: len(uid) <= 64)
others = st.one_of(uids, st.from_regex(r"[0-9._-]{0,9}", fullmatch=True), st.sampled_from(["CON", "COM"]))


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            "{patient_id}-{sop_instance_uid}.dcm",
            "{patient_id}0.-1{sop_instance_uid}",
            "COM{sop_instance_uid}",
            "{sop_instance_uid}_{modality}{patient_id}",
            "{sop_instance_uid}1.x.{patient_id}/{modality}{patient_id}",
        ]
    ),
    st.lists(st.tuples(uids, others, others), min_size=2, max_size=2),
)
def test_two_instances_are_two_paths(template: str, two: list[tuple[str, str, str]]) -> None:
    layout = FileLayout(template)
    paths = [
        layout.names({"sop_instance_uid": uid.encode(), "patient_id": a.encode(), "modality": b.encode()})
        for uid, a, b in two
    ]
    assert (two[0][0] == two[1][0]) or "/".join(paths[0]).lower() != "/".join(paths[1]).lower()


@pytest.mark.fault_row(66)
@pytest.mark.parametrize("title", ["../x", "  ", "A\x1b[B", "Ä/Ö", "\\\\host\\x"])
async def test_ae_titles_are_the_peers_fault66(tmp_path: pathlib.Path, title: str) -> None:
    root = tmp_path / "in"
    folder = InstanceFolder(root, layout="{calling_ae_title}/{called_ae_title}/{sop_instance_uid}")
    stored = await folder.store(instance(calling=title, called=title))
    assert stored.path is not None
    assert stored.path.resolve().is_relative_to(root.resolve())
    assert len(stored.path.relative_to(root).parts) == 3
    assert names(tmp_path) == [str(stored.path.relative_to(tmp_path))]


def test_names_are_checked_once_more_before_they_are_used(tmp_path: pathlib.Path) -> None:
    with directory.Directory.open(str(tmp_path)) as folder:
        for name in ("", ".", "..", "a/b", "/", "a\0"):
            with pytest.raises(OSError, match="not the name"):
                folder.at(name)


# --- values of the data set -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize("size", [100, 3 << 20])
async def test_values_of_the_data_set(tmp_path: pathlib.Path, transfer_syntax: str, size: int) -> None:
    arriving = instance(data_set(size, transfer_syntax=transfer_syntax, more=IDENTITY), transfer_syntax=transfer_syntax)
    stored = await InstanceFolder(tmp_path, layout=FULL).store(arriving)
    assert stored.path is not None
    assert stored.path.relative_to(tmp_path).parts == (CT, transfer_syntax, "SENDER", "ARCHIVE", *PATH)
    assert stored.path.read_bytes() == arriving.file


async def test_values_that_are_absent_or_empty(tmp_path: pathlib.Path) -> None:
    folder = InstanceFolder(tmp_path, layout="{patient_id}/{study_instance_uid}/{sop_instance_uid}")
    stored = await folder.store(instance(data_set(more=[(0x00100020, "LO", b"  ")])))
    assert stored.path == tmp_path / "unknown" / "unknown" / UID


async def test_a_uid_that_is_none_is_encoded(tmp_path: pathlib.Path) -> None:
    folder = InstanceFolder(tmp_path, layout="{study_instance_uid}/{sop_instance_uid}")
    stored = await folder.store(instance(data_set(more=[(0x0020000D, "UI", b"../1.2")])))
    assert stored.path == tmp_path / "%2E%2E%2F1%2E2" / UID


def nested(depth: int, *, delimited: bool = True) -> bytes:
    """Sequences in sequences, without lengths."""
    start = struct.pack("<HH2sHLHHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return start * depth + end * depth * delimited


PATIENT = element(0x00100020, "LO", b"P1")
BEFORE = element(0x00080016, "UI", CT.encode()) + element(0x00080018, "UI", UID.encode())
IMPLICIT_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(
    0x00100020, "LO", b"inside", IMPLICIT_VR_LITTLE_ENDIAN
)


@pytest.mark.parametrize(
    "between",
    [
        nested(1),
        nested(60),
        element(0x00081140, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(PATIENT)) + PATIENT),
        struct.pack("<HH2sHLHHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, len(PATIENT))
        + PATIENT
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
        struct.pack("<HH2sHL", 8, 0x1140, b"UN", 0, 0xFFFFFFFF)
        + IMPLICIT_ITEM
        + struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0),
        element(0x00091001, "OB", bytes(2 << 20)),
    ],
    ids=["sequence", "deep", "with lengths", "mixed", "UN", "large"],
)
async def test_what_is_before_them_is_stepped_over(tmp_path: pathlib.Path, between: bytes) -> None:
    folder = InstanceFolder(tmp_path, layout="{patient_id}/{sop_instance_uid}")
    stored = await folder.store(instance(BEFORE + between + PATIENT + element(0x7FE00010, "OW", bytes(10))))
    assert stored.path == tmp_path / "P1" / UID


@pytest.mark.fault_row(80)
@pytest.mark.parametrize(
    "rest",
    [
        nested(65),
        nested(10_000),
        nested(10_000, delimited=False),
        nested(1)[:-8],
        nested(1)[:-4],
        struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
        struct.pack("<HHL", 0xFFFE, 0xE000, 0),
        struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + PATIENT,
        struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 100) + PATIENT,
        struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFE),
        PATIENT[:-1],
        PATIENT[:6],
        struct.pack("<HH2sH", 8, 0x1140, b"SQ", 0),
        struct.pack("<HH2sH", 8, 0x1140, b"??", 0),
        element(0x00100020, "LO", b"x" * 2000),
        element(0x00081140, "CS", b"") * 100_001,
    ],
    ids=range(16),
)
async def test_a_data_set_that_cannot_be_read_fault80(tmp_path: pathlib.Path, rest: bytes) -> None:
    folder = InstanceFolder(tmp_path, layout="{patient_id}/{sop_instance_uid}")
    start = time.perf_counter()
    stored = await folder.store(instance(BEFORE + rest))
    assert time.perf_counter() - start < 5
    assert (stored.status, stored.error_comment) == (0xC000, "cannot read the data set's identification")
    assert names(tmp_path) == []


async def test_without_such_fields_the_data_set_is_not_read(tmp_path: pathlib.Path) -> None:
    stored = await InstanceFolder(tmp_path).store(instance(BEFORE + nested(10_000, delimited=False)))
    assert stored.status == 0


@pytest.mark.fault_row(81)
async def test_a_deflate_bomb_is_inflated_to_a_limit_fault81(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = element(0x00091001, "UN", bytes(300 << 20))
    data = deflater.compress(BEFORE + bomb + PATIENT) + deflater.flush()
    folder = InstanceFolder(tmp_path, layout="{patient_id}/{sop_instance_uid}")
    most = 0

    def inflated(*args: Any) -> dict[int, bytes]:
        nonlocal most
        tracemalloc.start()
        try:
            return find_values(*args)
        finally:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    monkeypatch.setattr("trio_dicom.services.instance_folder.find_values", inflated)
    stored = await folder.store(instance(data, transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
    assert stored.status == 0xC000
    assert 0 < most < 8 << 20
    assert names(tmp_path) == []


def test_of_a_deflated_data_set_the_beginning_is_read() -> None:
    data = data_set(transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, more=[(0x7FE00020, "OW", os.urandom(4 << 20))])
    read = 0

    def read_at(offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return data[offset : offset + length]

    assert find_values(read_at, 0, len(data), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, {0x00080018}) == {
        0x00080018: UID.encode()
    }
    assert read < 2 << 20


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SYNTAXES),
    st.integers(0, 200),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
)
def test_damage_ends_in_values_or_in_invalid_object(
    transfer_syntax: str, cut: int, changes: list[tuple[int, int]]
) -> None:
    more = [*IDENTITY, (0x00081140, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0))]
    data = bytearray(data_set(20, transfer_syntax=transfer_syntax, more=more))
    for at, value in changes:
        data[at % len(data)] = value
    if cut:
        del data[cut:]
    tags = frozenset(tag for tag in FIELDS.values() if tag is not None)
    try:
        found = find_values(
            lambda offset, length: bytes(data[offset : offset + length]), 0, len(data), transfer_syntax, tags
        )
    except InvalidObject:
        return
    assert set(found) <= tags
    assert all(len(value) <= 1024 for value in found.values())


def test_pydicom_is_not_needed() -> None:
    code = (
        "import sys, trio_dicom.services.instance_folder; sys.exit('pydicom' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
