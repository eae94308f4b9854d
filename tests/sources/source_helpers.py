"""DICOM files in bytes, made by hand so that each can be wrong in one place, and the reading of a source to its end."""

from __future__ import annotations

import pathlib
import struct

import pydicom

from trio_dicom.sources.source import Source

CT = "1.2.840.10008.5.1.4.1.1.2"
INSTANCE = "1.2.3.4.5"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"

SHIPPED = pathlib.Path(pydicom.__file__).parent / "data" / "test_files"


def element(group: int, number: int, vr: str, value: bytes, order: str = "<") -> bytes:
    if vr in ("OB", "OW", "UN", "SQ"):
        return struct.pack(order + "HH2sHL", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack(order + "HH2sH", group, number, vr.encode(), len(value)) + value


def implicit(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def meta(
    syntax: str | None = EXPLICIT,
    sop_class: str | None = CT,
    instance: str | None = INSTANCE,
    *,
    group_length: int | None = -1,
) -> bytes:
    """Preamble, prefix and group 0002; `group_length` -1 is the right one, None leaves it out."""
    body = element(2, 1, "OB", b"\0\1")
    for number, value in ((2, sop_class), (3, instance), (0x10, syntax)):
        if value is not None:
            body += element(2, number, "UI", uid(value))
    if group_length is not None:
        length = len(body) if group_length == -1 else group_length
        body = element(2, 0, "UL", struct.pack("<L", length)) + body
    return bytes(128) + b"DICM" + body


def data_set(sop_class: str | None = CT, instance: str | None = INSTANCE, pixels: bytes = b"\1\2" * 50) -> bytes:
    body = element(8, 5, "CS", b"ISO_IR 100")
    for number, value in ((0x16, sop_class), (0x18, instance)):
        if value is not None:
            body += element(8, number, "UI", uid(value))
    return body + element(0x28, 0x100, "US", b"\x10\0") + element(0x7FE0, 0x10, "OW", pixels)


async def drain(source: Source, room: int = 64 << 10) -> bytes:
    """All bytes of a prepared source, with what every `read_into` promises checked on the way."""
    buffer = memoryview(bytearray(room))
    out = bytearray()
    finished = False
    while not finished:
        count, finished = await source.read_into(buffer)
        assert 0 < count <= room
        assert finished or count == room
        out += buffer[:count]
    if source.size is not None:
        assert len(out) == source.size
    return bytes(out)


def decoded(data: bytes, transfer_syntax: str) -> pydicom.Dataset:
    """The data set in `data`, by pydicom, without what has no meaning in other encodings: group lengths."""
    import io

    dataset = pydicom.dcmread(io.BytesIO(meta(transfer_syntax) + data))
    for tag in list(dataset.keys()):
        if tag.element == 0:
            del dataset[tag]
    return pydicom.Dataset(dataset)
