"""Instance: a SOP instance that is coming in, to be read while it comes."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from .._version import __version__
from ..association.association import Association
from ..association.service_request import ServiceRequest
from ..association.transport import Buffer
from ..errors import InvalidObject
from ..protocol.command import CStoreRQ
from ..protocol.status import Status
from ..sources.threads import run_abandonable
from ..uids import IMPLEMENTATION_CLASS_UID

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

MOST_IN_MEMORY = 512 << 20  # bytes

_VERSION_NAME = f"TRIO_DICOM_{__version__}"[:16]


@attrs.frozen
class StoreReply:
    """What a handler answers: a status, and an error comment for the peer's log.

    64 characters of the comment go out, with "?" for those that are not ASCII.
    """

    status: Status = attrs.field(converter=Status)
    error_comment: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )


class Instance(trio.abc.ReceiveStream):
    """A SOP instance that a peer sends by C-STORE, and a stream of its data set in `transfer_syntax_uid`.

    Read it as a stream of bytes (`receive_some`, `async for`), as the pieces that the network made of it
    (`receive_pieces`), whole (`read`), or as a pydicom data set (`dataset`); for one task at a time. The UIDs are those
    of the C-STORE-RQ, and are valid. While it is coming, nothing of it is kept but what was not read yet; if the peer
    goes too fast, it has to wait. If the association ends first, the handler is cancelled.
    """

    def __init__(self, request: ServiceRequest, command: CStoreRQ) -> None:
        self.association: Association = request.association
        self.sop_class_uid = command.affected_sop_class_uid
        self.sop_instance_uid = command.affected_sop_instance_uid
        self.transfer_syntax_uid = request.context.transfer_syntax
        self._request = request
        self._ahead = memoryview(b"")  # came with what `receive_some` has given, and is left
        self._is_closed = False
        self.is_begun = False  #: whether something of it was read

    @property
    def calling_ae_title(self) -> str:
        """Who sends it."""
        return self.association.calling_ae_title

    @property
    def called_ae_title(self) -> str:
        """By which title this side was called."""
        return self.association.called_ae_title

    @property
    def bytes_received(self) -> int:
        """How much of the data set has come, read or not."""
        return self._request.bytes_received

    @property
    def is_whole(self) -> bool:
        """Whether the last of the data set has come, read or not."""
        return self._request.is_whole

    async def receive_pieces(self, at_least: int = 1) -> list[Buffer]:
        """What has come, once that is `at_least` bytes (1 MiB at most) or the end; an empty list at the end.

        For those who can use many buffers at once: nothing is copied. Raises `trio.BusyResourceError`, and
        `trio.ClosedResourceError` after `aclose`.
        """
        self._check_open()
        if self._ahead:
            await trio.lowlevel.checkpoint()
            rest, self._ahead = self._ahead, memoryview(b"")
            return [rest]
        pieces = await self._request.receive_pieces(at_least)
        self.is_begun |= bool(pieces)
        return pieces

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("the instance was closed")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, at most `max_bytes`; `b""` at the end. Raises as `receive_pieces` does."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self._check_open()
        await trio.lowlevel.checkpoint()
        data = self._ahead or b"".join(await self.receive_pieces())
        self._ahead = memoryview(b"") if max_bytes is None else memoryview(data)[max_bytes:]
        return bytes(data[:max_bytes])

    async def read(self, limit: int = MOST_IN_MEMORY) -> bytes:
        """The rest of the data set. Raises `InvalidObject` if it is longer than `limit` bytes."""
        data: list[Buffer] = []
        size = 0
        while pieces := await self.receive_pieces(1 << 20):
            data += pieces
            size += sum(map(len, pieces))
            if size > limit:
                raise InvalidObject(f"the data set has more than {limit} bytes")
        return b"".join(data)

    async def dataset(self, limit: int = MOST_IN_MEMORY) -> FileDataset:
        """The data set with its File Meta Information, read whole by pydicom, in a thread.

        What is wrong inside of elements shows when they are used. Raises `InvalidObject` if pydicom cannot read it at
        all, or if it has more than `limit` bytes, and `ValueError` if something of it was read before.
        """
        if self.is_begun:
            raise ValueError("something of the instance was read before: what is left is no data set")
        data = self.file_head() + await self.read(limit)
        return await run_abandonable(_parse, data)

    def file_head(self) -> bytes:
        """What goes before the data set in a file: a preamble of zeros, DICM, File Meta Information (PS3.10 7.1)."""
        before, after = _around_the_instance(self.sop_class_uid, self.transfer_syntax_uid, self.calling_ae_title)
        meta = before + _element(0x0003, self.sop_instance_uid.encode()) + after
        return bytes(128) + b"DICM" + _element(0x0000, struct.pack("<L", len(meta))) + meta

    async def aclose(self) -> None:
        """Read no more of it; the rest is received and dropped."""
        self._is_closed = True
        await trio.lowlevel.checkpoint()


_VRS: Mapping[int, bytes] = {0x0000: b"UL", 0x0001: b"OB", 0x0013: b"SH", 0x0016: b"AE"}  # else UI


def _element(element: int, value: bytes) -> bytes:
    vr = _VRS.get(element, b"UI")
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    length = struct.pack("<2xL" if vr == b"OB" else "<H", len(value))
    return struct.pack("<HH2s", 0x0002, element, vr) + length + value


@functools.lru_cache
def _around_the_instance(sop_class: str, transfer_syntax: str, calling_ae_title: str) -> tuple[bytes, bytes]:
    """File Meta Information before and after the SOP Instance UID: that of most objects of an association."""
    title = calling_ae_title.encode("ascii", "replace")
    after = {
        0x0010: transfer_syntax.encode(),
        0x0012: IMPLEMENTATION_CLASS_UID.encode(),
        0x0013: _VERSION_NAME.encode(),
        **({0x0016: title} if title else {}),
    }
    before = _element(0x0001, b"\x00\x01") + _element(0x0002, sop_class.encode())
    return before, b"".join(_element(element, value) for element, value in after.items())


def _parse(data: bytes) -> FileDataset:
    import pydicom

    try:
        return pydicom.dcmread(io.BytesIO(data))
    except Exception as error:  # whatever pydicom makes of hostile bytes
        raise InvalidObject(f"pydicom cannot read the data set ({type(error).__name__})") from error
