"""An `Instance` without an association: the same names, and bytes from a list."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterable
from typing import Any

import trio

from trio_dicom.services.arriving_file import Buffer
from trio_dicom.services.instance import Instance
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
UID = "1.2.826.0.1.3680043.8.498.1"
LONG = ("OB", "OW", "SQ", "UN", "UT")


def element(tag: int, vr: str, value: bytes, transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    """One element; its value gets its padding."""
    value += (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
    order = ">" if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr in LONG:
        return struct.pack(order + "HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def data_set(
    size: int = 1000,
    *,
    sop_class: str | None = CT,
    uid: str | None = UID,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    fill: int = 0,
    more: Iterable[tuple[int, str, bytes]] = (),
) -> bytes:
    """A data set with a value of `size` bytes at its end."""
    elements = [(0x7FE00010, "OW", bytes([fill]) * size), *more]
    elements += [(0x00080016, "UI", sop_class.encode())] if sop_class is not None else []
    elements += [(0x00080018, "UI", uid.encode())] if uid is not None else []
    data = b"".join(element(*each, transfer_syntax) for each in sorted(elements))
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        from trio_dicom.sources.recode import deflate

        data = deflate([data])
    return data


class FakeInstance:
    """Its data set comes in pieces of `piece` bytes; `before_piece` is awaited before each batch of them."""

    file_head = Instance.file_head
    is_begun = False

    def __init__(
        self,
        data: bytes | None = None,
        *,
        uid: str = UID,
        sop_class: str = CT,
        transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
        calling: str = "SENDER",
        called: str = "ARCHIVE",
        piece: int = 16_372,
        stop_at: int | None = None,
    ) -> None:
        if data is None:
            data = data_set(uid=uid, sop_class=sop_class, transfer_syntax=transfer_syntax)
        self.data = data
        self.sop_instance_uid = uid
        self.sop_class_uid = sop_class
        self.transfer_syntax_uid = transfer_syntax
        self.calling_ae_title = calling
        self.called_ae_title = called
        self.read = 0
        self.stalled = trio.Event()  # set when `stop_at` bytes were read and no more will come
        self._piece = piece
        self._stop_at = stop_at

    @property
    def bytes_received(self) -> int:
        return self.read

    async def receive_pieces(self, at_least: int = 1) -> list[Buffer]:
        await trio.lowlevel.checkpoint()
        if self._stop_at is not None and self.read >= self._stop_at:
            self.stalled.set()
            await trio.sleep_forever()
        pieces: list[Buffer] = []
        wanted = min(at_least, 1 << 20)
        while wanted > 0 and self.read < len(self.data):
            piece = memoryview(self.data)[self.read : self.read + self._piece]
            pieces.append(piece)
            self.read += len(piece)
            wanted -= len(piece)
        return pieces

    @property
    def file(self) -> bytes:
        """What is to be filed."""
        return self.file_head() + self.data


def instance(*args: Any, **changes: Any) -> Any:
    """A `FakeInstance`, for the type checker anything."""
    return FakeInstance(*args, **changes)


def names(folder: str | os.PathLike[str]) -> list[str]:
    """Every file below `folder`, temporary ones too, links as what they are."""
    root = pathlib.Path(folder)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
