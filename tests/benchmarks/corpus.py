"""The objects that are sent, the same bytes every time: `corpus.py KIND COUNT FOLDER` makes them.

- ct: CT Image Storage of 512 x 512 pixels, 0.53 MB each
- tiny: CT Image Storage of 64 x 64 to 128 x 128 pixels, in turn: 14 to 39 KB
- big: one Multi-frame Grayscale Word Secondary Capture Image Storage of `COUNT` MiB

All are Explicit VR Little Endian. What is before the pixels is that of pydicom's CT_small.dcm, with private elements
and sequences; the pixels are noise.
"""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_GRAYSCALE_WORD_SC = "1.2.840.10008.5.1.4.1.1.7.3"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
SIDES = {"ct": (512,), "tiny": (64, 80, 96, 112, 128)}  # of the square images, in turn
FRAME = 1 << 20  # bytes of one of the big object
PREAMBLE = 144  # with the prefix and (0002,0000)


def data_set_length(path: Path) -> int:
    """Bytes of a file behind its File Meta Information."""
    with open(path, "rb") as file:
        head = file.read(PREAMBLE)
    return path.stat().st_size - PREAMBLE - int.from_bytes(head[-4:], "little")


def write(kind: str, count: int, folder: Path) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    template = dcmread(str(get_testdata_file("CT_small.dcm")))
    del template.PixelData, template.DataSetTrailingPadding
    if kind == "big":
        _write_big(template, count, folder)
    else:
        _write_images(template, kind, count, folder)


def _write_images(template: Dataset, kind: str, count: int, folder: Path) -> None:
    sides = SIDES[kind]
    for number in range(count):
        side = sides[number % len(sides)]
        template.Rows = template.Columns = side
        head = _head(template, kind, CT_IMAGE_STORAGE, number)
        pixels = Random(number).randbytes(2 * side * side)
        (folder / f"{number:05}.dcm").write_bytes(head + _pixel_data(len(pixels)) + pixels)


def _write_big(template: Dataset, frames: int, folder: Path) -> None:
    template.Rows, template.Columns, template.NumberOfFrames = 512, 1024, frames
    head = _head(template, "big", MULTI_FRAME_GRAYSCALE_WORD_SC, 0)
    frame = Random(0).randbytes(FRAME)
    with open(folder / "00000.dcm", "wb") as file:
        file.write(head + _pixel_data(frames * FRAME))
        for number in range(frames):
            file.write(struct.pack("<I", number) + frame[4:])


def _head(template: Dataset, kind: str, sop_class_uid: str, number: int) -> bytes:
    """A file as far as its Pixel Data."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, generate_uid

    template.SOPClassUID = sop_class_uid
    template.SOPInstanceUID = generate_uid(entropy_srcs=["trio_dicom", kind, str(number)])
    template.SeriesInstanceUID = generate_uid(entropy_srcs=["trio_dicom", kind, "series", str(number // 250)])
    template.StudyInstanceUID = generate_uid(entropy_srcs=["trio_dicom", kind, "study"])
    template.PatientID, template.InstanceNumber = f"BENCHMARK-{kind}", number + 1
    template.file_meta = FileMetaDataset()
    template.file_meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN)
    buffer = io.BytesIO()
    template.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _pixel_data(length: int) -> bytes:
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length)


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
