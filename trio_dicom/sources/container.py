"""Container: what a file is that holds, or names, DICOM objects and is none itself, by its first bytes."""

from __future__ import annotations

import enum

from .part10 import MEDIA_STORAGE_DIRECTORY, Buffer

FIRST_BYTES = 1024  # are enough to tell

_ZIP_MARKS = (b"PK\3\4", b"PK\5\6")
_SOP_CLASS = b"\2\0\2\0UI"  # Media Storage SOP Class UID (0002,0002)


class Container(enum.Enum):
    """The reasons say what to do where one is met that is not named as an input itself."""

    ZIP = "a ZIP archive"
    DICOMDIR = "a DICOMDIR"

    @property
    def in_a_folder(self) -> str:
        what = "what is in it" if self is Container.ZIP else "the objects of its file set"
        return f"{self.value}: name it to send {what}"

    @property
    def in_an_archive(self) -> str:
        if self is Container.ZIP:
            return "a ZIP archive in a ZIP archive: unpack it, and name it to send what is in it"
        return "a DICOMDIR, which is not an object that can be stored: what it names is sent if it is in the archive"


def container_of(first: Buffer, name: str) -> Container | None:
    """What the file is that begins with `first`; None for any other file. The name tells damaged archives."""
    first = bytes(first[:FIRST_BYTES])
    if first[128:132] != b"DICM":  # a DICOM file may have anything before that
        return Container.ZIP if first.startswith(_ZIP_MARKS) or name.lower().endswith(".zip") else None
    at = first.find(_SOP_CLASS, 132)
    if at < 0:
        return None
    start = at + len(_SOP_CLASS) + 2
    length = int.from_bytes(first[start - 2 : start], "little")
    uid = first[start : start + length].rstrip(b"\0 ")
    return Container.DICOMDIR if uid == MEDIA_STORAGE_DIRECTORY.encode() else None
