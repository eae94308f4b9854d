"""make_instance and make_instance_file: every SOP class in every transfer syntax, as others read it."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID

from trio_dicom import CStoreSCU, PresentationContext, StorageSCP
from trio_dicom.services.instance import Instance
from trio_dicom.testing import (
    SOPClass,
    file_bytes,
    instance_uid,
    make_instance,
    make_instance_file,
    make_study,
    memory_link,
)
from trio_dicom.testing.instances import IMAGES, JPEG_BASELINE, RLE_LOSSLESS
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

NATIVE = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
MADE = [
    *((sop_class, syntax) for sop_class in SOPClass for syntax in NATIVE),
    *((sop_class, RLE_LOSSLESS) for sop_class in IMAGES),
    (SOPClass.US, JPEG_BASELINE),
    (SOPClass.SC, JPEG_BASELINE),
]
EACH = pytest.mark.parametrize(
    ("sop_class", "syntax"), MADE, ids=[f"{sop_class.name}-{UID(syntax).name}" for sop_class, syntax in MADE]
)


@EACH
def test_pydicom_reads_it(sop_class: SOPClass, syntax: str) -> None:
    file = file_bytes(make_instance(sop_class, syntax, number=7, rows=9, columns=5))
    read = pydicom.dcmread(io.BytesIO(file))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.SOPClassUID == read.file_meta.MediaStorageSOPClassUID == sop_class
    assert read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID == instance_uid(7)
    assert read.PatientID == "CANARY-PHI"
    again = make_instance(sop_class, syntax, number=7, rows=9, columns=5)
    assert {each.tag: each.value for each in read} == {each.tag: each.value for each in again}
    assert {each.tag: each.VR for each in read} == {each.tag: each.VR for each in again}
    if sop_class in IMAGES:
        assert (read.Rows, read.Columns) == (9, 5)
        check_pixels(read, syntax)


def check_pixels(read: pydicom.Dataset, syntax: str) -> None:
    if syntax == JPEG_BASELINE:
        frame = pydicom.encaps.get_frame(read.PixelData, 0)
        assert frame.startswith(b"\xff\xd8")
        assert b"\xff\xc0\0\x0b\x08\0\x09\0\x05" in frame  # baseline, 8 bits, 9 x 5
        return
    pixels = read.pixel_array
    assert pixels.shape == (9, 5)
    assert pixels.ravel().tolist() == list(range(7, 52))


@pytest.mark.interop
@pytest.mark.parametrize(("syntax", "tool"), [(JPEG_BASELINE, "dcmdjpeg"), (RLE_LOSSLESS, "dcmdrle")])
@pytest.mark.parametrize("sop_class", IMAGES)
def test_dcmtk_decodes_the_frames(sop_class: SOPClass, syntax: str, tool: str, tmp_path: Path) -> None:
    if (sop_class, syntax) not in MADE:
        return
    if (decode := shutil.which(tool, path="/usr/bin:/usr/local/bin")) is None:
        pytest.skip(f"{tool} is missing")
    (tmp_path / "in.dcm").write_bytes(file_bytes(make_instance(sop_class, syntax, rows=9, columns=5)))
    subprocess.run([decode, tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True, capture_output=True, timeout=30)
    pixels = pydicom.dcmread(tmp_path / "out.dcm").pixel_array.ravel().tolist()
    assert pixels == ([128] * 45 if syntax == JPEG_BASELINE else list(range(1, 46)))


@EACH
def test_it_is_the_same_every_time(sop_class: SOPClass, syntax: str) -> None:
    assert file_bytes(make_instance(sop_class, syntax)) == file_bytes(make_instance(sop_class, syntax))
    assert file_bytes(make_instance(sop_class, syntax)) != file_bytes(make_instance(sop_class, syntax, number=2))


@EACH
async def test_it_can_be_sent(sop_class: SOPClass, syntax: str) -> None:
    came: list[pydicom.Dataset] = []

    async def keep(instance: Instance) -> int:
        came.append(await instance.dataset())
        return 0

    sent = make_instance(sop_class, syntax)
    contexts = [PresentationContext(sop_class, [syntax])]
    service = StorageSCP(keep, sop_classes=[sop_class])
    async with memory_link(contexts, service) as (requestor, _):
        assert (await CStoreSCU(requestor).send(sent)).is_success
    (received,) = came
    assert received.file_meta.TransferSyntaxUID == syntax
    assert {each.tag: each.value for each in received} == {each.tag: each.value for each in sent}


@pytest.mark.parametrize("size", [1, 1000, 1 << 20, 40_000_001])
@pytest.mark.parametrize("sop_class", [*IMAGES, SOPClass.PDF])
def test_size(sop_class: SOPClass, size: int) -> None:
    made = make_instance(sop_class, size=size)
    value = made.EncapsulatedDocument if sop_class is SOPClass.PDF else made.PixelData
    assert size <= len(value) < size + 3000
    if sop_class in IMAGES:
        assert made.Rows * made.Columns * made.BitsAllocated // 8 in (len(value), len(value) - 1)
        assert made.Rows <= 65_535


def test_a_pdf() -> None:
    made = make_instance(SOPClass.PDF, size=5000)
    document = made.EncapsulatedDocument[: made.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF-1.4\n")
    assert document.endswith(b"%%EOF\n")
    at = int(document.split(b"startxref\n")[1].split()[0])
    assert document[at:].startswith(b"xref\n0 4\n")
    for number, line in enumerate(document[at:].splitlines()[3:6], 1):
        assert document[int(line.split()[0]) :].startswith(b"%d 0 obj" % number)


def test_elements_are_the_callers() -> None:
    made = make_instance(PatientID="X", AccessionNumber=None, SOPInstanceUID="1.2.3")
    assert made.PatientID == "X"
    assert "AccessionNumber" not in made
    assert made.file_meta.MediaStorageSOPInstanceUID == "1.2.3"


def test_a_study() -> None:
    study = make_study(4, SOPClass.MR, study=2, rows=8)
    assert [each.SOPInstanceUID for each in study] == [instance_uid(number) for number in (1, 2, 3, 4)]
    assert [each.ImagePositionPatient[2] for each in study] == [1, 2, 3, 4]
    assert len({each.SeriesInstanceUID for each in study}) == len({each.StudyInstanceUID for each in study}) == 1
    assert study[0].StudyInstanceUID != make_instance().StudyInstanceUID


@pytest.mark.parametrize(
    ("sop_class", "syntax", "text"),
    [
        ("1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, "not of '1.2.3'"),
        ("CT", EXPLICIT_VR_LITTLE_ENDIAN, r"made of a SOPClass \(CT, MR, .*\), not of 'CT'"),
        (SOPClass.CT, JPEG_BASELINE, "CT is not made in transfer syntax"),
        (SOPClass.SR, RLE_LOSSLESS, "SR is not made in transfer syntax"),
        (SOPClass.SC, "1.2.840.10008.1.2.4.90", "SC is not made in transfer syntax"),
    ],
)
def test_what_is_not_made(sop_class: str, syntax: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_instance(sop_class, syntax)


@pytest.mark.parametrize("syntax", [*NATIVE, RLE_LOSSLESS, JPEG_BASELINE, "1.2.3.4"])
@pytest.mark.parametrize("size", [0, 2, 300, 70_000])
def test_pydicom_reads_a_file_made_without_it(syntax: str, size: int) -> None:
    file = make_instance_file(size, SOPClass.MR, syntax, number=3)
    read = pydicom.dcmread(io.BytesIO(file))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert (read.SOPClassUID, read.SOPInstanceUID, read.BitsAllocated) == (SOPClass.MR, instance_uid(3), 16)
    pixels = read.PixelData
    if syntax in (RLE_LOSSLESS, JPEG_BASELINE):
        (pixels,) = pydicom.encaps.generate_fragments(pixels[8:]) if size else (b"",)
    assert len(pixels or b"") == size
    assert file == make_instance_file(size, SOPClass.MR, syntax, number=3)


def test_a_file_is_made_without_pydicom() -> None:
    code = (
        "import sys; from trio_dicom.testing import make_instance_file; make_instance_file();"
        "assert not {'pydicom', 'numpy', 'trio'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=Path(__file__).parents[2])
