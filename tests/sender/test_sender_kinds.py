"""Many kinds of objects, very many objects, and files that are none."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from support.sending import exact, outcomes, send_all, sender_to
from trio_dicom.sender.outcome import Outcome
from trio_dicom.sender.sender import open_sender
from trio_dicom.testing import ScriptedPeer, make_instance_file, scripted_listener, storage_scp
from trio_dicom.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

SYNTAXES = [
    EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
]


@pytest.mark.fault_row(109)
@pytest.mark.parametrize("associations", [1, 3])
async def test_three_hundred_pairs_of_class_and_transfer_syntax(associations, autojump_clock):
    files = [
        make_instance_file(64, f"1.2.840.10008.5.1.4.1.1.{number}", syntax, number=6 * number + offset)
        for number in range(1, 51)
        for offset, syntax in enumerate(SYNTAXES)
    ]
    async with storage_scp() as scp, sender_to(scp, associations=associations) as sender:
        reports = await send_all(sender, [io.BytesIO(file) for file in files])
    assert outcomes(reports) == {Outcome.STORED: 300}
    sent = {(each.sop_class_uid, each.transfer_syntax_uid) for each in scp.received}
    assert len(sent) == 300
    assert all(report.attempts == 1 for report in reports)
    assert sender.report.failed_associations == 0


@pytest.mark.fault_row(53)
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_seventy_thousand_objects_over_one_association():
    """Message IDs wrap at 65,535."""
    file = make_instance_file(64)
    stored = 0
    async with (
        scripted_listener(ScriptedPeer.serve) as listener,
        open_sender(listener.address, associations=1, options=exact()) as sender,
        sender.send_many(io.BytesIO(file) for _ in range(70_000)) as channel,
    ):
        async for report in channel:
            stored += report.outcome is Outcome.STORED
    assert stored == 70_000
    assert sender.report.associations == 1


def fill_with_bad_files(folder: Path) -> dict[str, str]:
    """What is in `folder` then, by the row of the table of faults, and a word of the reason that it is given."""
    good = make_instance_file(2000, number=500)

    def put(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)

    put("93-empty", b"")
    put("93-short", b"\0" * 100)
    put("94-no-preamble", good[128:])
    put("94-no-meta", good[good.index(b"\x08\x00\x16\x00") :])
    put("94-text", b"Dear colleague, " * 100)
    put("94-jpeg", b"\xff\xd8\xff\xe0" + b"\0" * 500)
    with zipfile.ZipFile(folder / "94-archive.zip", "w") as archive:
        archive.writestr("a.dcm", good)
    put("96-no-transfer-syntax", _without_transfer_syntax(good))
    put("97-other-instance", good.replace(b"2.25.1000.500", b"2.25.1000.501", 1))
    put("98-no-uids", good.replace(b"2.25.1000.500", b"x.yz.1000.500"))
    put("100-odd", good + b"\0")
    put("101-group-0", _with_group_0(good))
    put("105-DICOMDIR", Path(get_testdata_file("DICOMDIR")).read_bytes())
    os.mkfifo(folder / "106-fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(folder / "106-socket"))
    (folder / "106-dangling").symlink_to("nowhere")
    (folder / "106-loop").symlink_to("106-loop")
    (folder / "106-device").symlink_to("/dev/zero")
    return {
        "93-empty": "too few",
        "93-short": "too few",
        "94-no-preamble": "preamble",
        "94-no-meta": "not a DICOM file",
        "94-text": "not a DICOM file",
        "94-jpeg": "not a DICOM file",
        "94-archive.zip": "ZIP archive: name it",
        "96-no-transfer-syntax": "Transfer Syntax UID",
        "97-other-instance": "mismatch",
        "98-no-uids": "not a UID",
        "100-odd": "odd length",
        "101-group-0": "group 0000",
        "105-DICOMDIR": "DICOMDIR: name it",
        "106-fifo": "FIFO",
        "106-socket": "socket",
        "106-dangling": "No such file",
        "106-loop": "symbolic links",
        "106-device": "device",
    }


def _without_transfer_syntax(file: bytes) -> bytes:
    at = file.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(file[at + 6 : at + 8], "little")
    return file[:at] + file[at + 8 + length :]


def _with_group_0(file: bytes) -> bytes:
    """The data set begins with an element of a command set."""
    at = file.index(b"\x08\x00\x16\x00UI")
    return file[:at] + b"\x00\x00\x00\x00UL\x04\x00\0\0\0\0" + file[at:]


@pytest.mark.fault_row(93, 94, 96, 97, 98, 100, 101, 105, 106, 110, 111)
async def test_bad_files_are_told_one_by_one_and_stop_nothing(tmp_path, autojump_clock):
    folder = tmp_path / "study"
    folder.mkdir()
    reasons = fill_with_bad_files(folder)
    odd_names = ["-rf", "new\nline.dcm", "x" * 250 + ".dcm", "\udcff\udcfe.dcm"]  # 111
    for number, name in enumerate(odd_names, 1):
        (folder / name).write_bytes(make_instance_file(500, number=number))
    big_endian = make_instance_file(500, transfer_syntax=EXPLICIT_VR_BIG_ENDIAN, number=90)
    implicit = make_instance_file(500, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN, number=91)
    (folder / "big").write_bytes(big_endian)
    (folder / "implicit").write_bytes(implicit)
    (folder / "twice.dcm").write_bytes(make_instance_file(500, number=1))  # 110
    async with storage_scp() as scp, sender_to(scp) as sender:
        reports = {os.path.basename(report.path): report for report in await send_all(sender, folder)}
    assert {name for name, report in reports.items() if report.outcome is Outcome.STORED} == {
        *odd_names,
        "big",
        "implicit",
        "twice.dcm",
    }
    told = {name: report.reason for name, report in reports.items() if report.outcome is Outcome.INVALID}
    assert set(told) == set(reasons)
    for name, word in reasons.items():
        assert word in told[name], (name, told[name])
    assert len(scp.received) == len(odd_names) + 3
