"""SOP instances made for tests: small, valid, the same every time, and of a patient who never was.

`make_instance` makes data sets with all that their IOD asks for. `make_instance_file` makes the bytes of a file with no
more in it than an association needs to know, of any size, in microseconds and without pydicom.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from ..uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from .frames import flat_jpeg_frame, gradient, rle_frame
from .identity import SOPClass, frame_of_reference_uid, instance_uid, series_uid, study_uid

if TYPE_CHECKING:
    from pydicom import Dataset

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"

_NATIVE = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")


IMAGES = (SOPClass.CT, SOPClass.MR, SOPClass.US, SOPClass.SC)


def make_instance(
    sop_class: str = SOPClass.CT,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    *,
    number: int = 1,
    series: int = 1,
    study: int = 1,
    rows: int = 16,
    columns: int = 16,
    size: int | None = None,
    **elements: Any,
) -> Dataset:
    """A pydicom `Dataset` with its `file_meta`, ready to be sent, or to be written by `save_as`.

    `sop_class` is a `SOPClass`. `transfer_syntax` is one of the four native ones, or for an image RLE Lossless, or for
    SC and US JPEG Baseline. `number` tells instances of a series apart and makes the SOP Instance UID
    (`instance_uid`); `series` and `study` make theirs. Images have `rows` x `columns` pixels, 16 bits in CT and MR, 8
    in the others; with `size`, so many rows that the Pixel Data have at least this many bytes before compression (for
    `SOPClass.PDF`, the document). `elements` are set last, by keyword: `PatientID="X"`; None takes one out.

    Raises `ValueError` for a SOP class or transfer syntax that it does not make.
    """
    from pydicom import Dataset

    from . import iods

    sop_class, transfer_syntax = _known(sop_class), str(transfer_syntax)
    if transfer_syntax not in _NATIVE and not _has_frames(sop_class, transfer_syntax):
        raise ValueError(f"{sop_class.name} is not made in transfer syntax {transfer_syntax}")
    dataset = Dataset()
    dataset.SOPClassUID = sop_class.value
    dataset.SOPInstanceUID = instance_uid(number)
    dataset.StudyInstanceUID = study_uid(study)
    dataset.SeriesInstanceUID = series_uid(study, series)
    dataset.SeriesNumber = series
    dataset.InstanceNumber = number
    iods.fill(dataset, sop_class, frame_of_reference_uid(study))
    if sop_class in IMAGES:
        bytes_per_pixel = 2 if sop_class in (SOPClass.CT, SOPClass.MR) else 1
        if size is not None:
            columns = max(columns, -(-size // (65_535 * bytes_per_pixel)))
            rows = max(1, -(-size // (columns * bytes_per_pixel)))
        _set_pixels(dataset, transfer_syntax, rows, columns, bytes_per_pixel, number)
    elif sop_class is SOPClass.PDF:
        iods.set_document(dataset, size or 0)
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = iods.file_meta(dataset, transfer_syntax)
    return dataset


def make_study(instances: int = 3, sop_class: str = SOPClass.CT, **options: Any) -> list[Dataset]:
    """One series of as many instances, numbered from 1; `options` are those of `make_instance`."""
    return [make_instance(sop_class, number=number, **options) for number in range(1, instances + 1)]


def file_bytes(dataset: Dataset) -> bytes:
    """The DICOM file (PS3.10) of a data set with `file_meta`, as pydicom writes it."""
    import pydicom

    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _known(sop_class: str) -> SOPClass:
    try:
        return SOPClass(str(sop_class))
    except ValueError:
        names = ", ".join(SOPClass.__members__)
        raise ValueError(f"instances are made of a SOPClass ({names}), not of {str(sop_class)!r}") from None


def _has_frames(sop_class: SOPClass, transfer_syntax: str) -> bool:
    if transfer_syntax == JPEG_BASELINE:  # 8 bits, which CT and MR do not have
        return sop_class in (SOPClass.US, SOPClass.SC)
    return transfer_syntax == RLE_LOSSLESS and sop_class in IMAGES


def _set_pixels(
    dataset: Dataset, transfer_syntax: str, rows: int, columns: int, bytes_per_pixel: int, number: int
) -> None:
    from pydicom.encaps import encapsulate

    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = 8 * bytes_per_pixel
    dataset.BitsStored = 12 if bytes_per_pixel == 2 else 8
    dataset.HighBit = dataset.BitsStored - 1
    if transfer_syntax == JPEG_BASELINE:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = 32
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.PixelData = encapsulate([flat_jpeg_frame(rows, columns)])
    elif transfer_syntax == RLE_LOSSLESS:
        dataset.PixelData = encapsulate([rle_frame(gradient(rows * columns, bytes_per_pixel, number), bytes_per_pixel)])
    else:
        big = transfer_syntax == EXPLICIT_VR_BIG_ENDIAN
        pixels = gradient(rows * columns, bytes_per_pixel, number, big_endian=big)
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    is_encapsulated = transfer_syntax not in _NATIVE
    dataset["PixelData"].VR = "OB" if is_encapsulated or bytes_per_pixel == 1 else "OW"
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        dataset["PixelData"].VR = "OW"  # PS3.5 A.1


# --- files of bytes ---------------------------------------------------------------------------------------------------

_EXPLICIT_SHORT, _EXPLICIT_LONG, _IMPLICIT = "HH2sH", "HH2sHL", "HHL"


def make_instance_file(
    size: int = 256,
    sop_class: str = SOPClass.CT,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    *,
    number: int = 1,
) -> bytes:
    """A DICOM file (PS3.10) with `size` bytes (even) of Pixel Data, made without pydicom; the same every time.

    It has the SOP class, the SOP Instance UID `instance_uid(number)`, the transfer syntax and Pixel Data, and is no
    valid object of its class: use `make_instance` and `file_bytes` for one. `sop_class` and `transfer_syntax` can be
    any; in a compressed one the Pixel Data are one fragment of `size` bytes, which do not decode.
    """
    instance = instance_uid(number)
    meta = b"".join(
        _element("<", 2, element, b"UI", _uid(uid))
        for element, uid in ((0x02, sop_class), (0x03, instance), (0x10, transfer_syntax))
    )
    meta = _element("<", 2, 0x01, b"OB", b"\0\1") + meta
    order = ">" if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    element = _implicit_element if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN else _element
    pixels = bytes(range(256)) * (size // 256) + bytes(size % 256)
    pixel_data = element(order, 0x7FE0, 0x0010, b"OW", pixels)
    if transfer_syntax.startswith(_ENCAPSULATED):
        pixel_data = _encapsulated(pixels)
    data_set = (
        element(order, 0x0008, 0x0016, b"UI", _uid(sop_class))
        + element(order, 0x0008, 0x0018, b"UI", _uid(instance))
        + element(order, 0x0028, 0x0100, b"US", struct.pack(order + "H", 16))
        + pixel_data
    )
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data_set = _deflated(data_set)
    return bytes(128) + b"DICM" + _element("<", 2, 0, b"UL", struct.pack("<L", len(meta))) + meta + data_set


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _element(order: str, group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"OB", b"OW"):
        return struct.pack(order + _EXPLICIT_LONG, group, element, vr, 0, len(value)) + value
    return struct.pack(order + _EXPLICIT_SHORT, group, element, vr, len(value)) + value


def _implicit_element(order: str, group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack(order + _IMPLICIT, group, element, len(value)) + value


def _encapsulated(fragment: bytes) -> bytes:
    head = struct.pack("<" + _EXPLICIT_LONG, 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    items = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(fragment))
    return head + items + fragment + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(data) + deflate.flush()
    return deflated + b"\0" * (len(deflated) % 2)
