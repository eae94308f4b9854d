"""DatasetSource: a pydicom `Dataset`, alone or with pixels that come while it is sent.

The data set is encoded once, in a thread, when it is opened; after that the caller may change it. With a `PixelSource`
the elements before Pixel Data (7FE0,0010) and those after it are encoded, and the pixels pass between them unkept.
"""

from __future__ import annotations

import contextlib
import copy
import io
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import InvalidObject, ObjectChanged, ReadError
from ..uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_LITTLE_ENDIAN,
    is_valid_uid,
)
from . import recode
from .chunked import ChunkedSource
from .part10 import MEDIA_STORAGE_DIRECTORY, UNDEFINED_LENGTH, Buffer
from .pixels import PixelSource
from .threads import run_abandonable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_WHERE = "data set"
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = {0x7FE00008: "Float Pixel Data", 0x7FE00009: "Double Float Pixel Data", _PIXEL_DATA: "Pixel Data"}
_ITEM = 0xE000FFFE
_SEQUENCE_END = struct.pack("<LL", 0xE0DDFFFE, 0)
_DEFLATED_AT_ONCE = 1 << 20  # bytes in one thread hop


async def open_dataset(dataset: Dataset, pixels: PixelSource | None = None) -> DatasetSource:
    """`dataset`, which is not changed; with `pixels` as its Pixel Data if they are given.

    Its own transfer syntax is that of its File Meta Information, else the one that it was read in, else Explicit VR
    Little Endian; with `pixels` these decide whether it is native or compressed. File Meta Information is not sent.

    Raises `InvalidObject` if it has no valid SOP Class or SOP Instance UID, cannot be encoded (the cause is chained),
    or has Pixel Data of its own besides `pixels`; `TypeError` and `ValueError` for wrong arguments.
    """
    if pixels is not None:
        _check_pixels(pixels)
    try:
        encoded = await run_abandonable(_encode, dataset, pixels)
    except InvalidObject as error:
        error.where = error.where or _WHERE
        raise
    return DatasetSource(encoded, pixels)


def _check_pixels(pixels: PixelSource) -> None:
    if not isinstance(pixels, PixelSource):
        raise TypeError(f"not a PixelSource (length, transfer_syntax_uid, chunks): {type(pixels).__name__}")
    length, transfer_syntax = pixels.length, pixels.transfer_syntax_uid
    if (length is None) is (transfer_syntax is None):
        raise ValueError("a PixelSource has either a length (native pixels) or a transfer syntax (encapsulated frames)")
    if transfer_syntax is not None:
        if not is_valid_uid(transfer_syntax) or transfer_syntax in (*NATIVE_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN):
            raise ValueError(f"not a transfer syntax for encapsulated frames: {transfer_syntax!r}")
    elif length is not None and not 0 < length < UNDEFINED_LENGTH - 1:
        raise ValueError(f"native pixels are 1 to 4,294,967,293 bytes, not {length}")


@attrs.frozen
class _Encoded:
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str  # the object's own
    encoding: str  # of what follows: never deflated
    before: bytes
    after: bytes = b""
    pixel_vr: bytes = b"OB"


def _encode(dataset: Dataset, pixels: PixelSource | None) -> _Encoded:
    shadow = _shadow(dataset)
    _fetch_deferred(shadow)
    for tag in shadow.keys():  # noqa: SIM118
        if tag.group in (0x0000, 0x0002):
            raise InvalidObject(f"group {tag.group:04X} does not belong into a data set")
        if pixels is not None and int(tag) in _PIXEL_TAGS:
            raise InvalidObject(f"{_PIXEL_TAGS[int(tag)]} is in the data set, and a PixelSource was given")
    sop_class = _uid(shadow, 0x00080016, "SOP Class UID (0008,0016)")
    sop_instance = _uid(shadow, 0x00080018, "SOP Instance UID (0008,0018)")
    if sop_class == MEDIA_STORAGE_DIRECTORY:
        raise InvalidObject("a DICOMDIR is not an object that can be stored")
    own = _own_transfer_syntax(shadow, pixels)
    encoding = EXPLICIT_VR_LITTLE_ENDIAN if own == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else own
    if pixels is None:
        if _PIXEL_DATA in shadow:
            _check_pixel_data(shadow, own)
        return _Encoded(sop_class, sop_instance, own, encoding, _written(shadow, encoding))
    pixel_vr = b"OB"
    if pixels.length is not None:
        bits = shadow.get("BitsAllocated")
        if not isinstance(bits, int):
            raise InvalidObject("Bits Allocated (0028,0100) is missing")
        pixel_vr = b"OW" if bits > 8 else b"OB"
    before, after = _shadow(shadow), shadow
    for tag in list(shadow.keys()):
        del (before if tag > _PIXEL_DATA else after)[tag]
    character_set = before.get("SpecificCharacterSet", "iso8859")
    return _Encoded(
        sop_class,
        sop_instance,
        own,
        encoding,
        _written(before, encoding),
        _written(after, encoding, character_set),
        pixel_vr,
    )


def _shadow(dataset: Dataset) -> Dataset:
    """A copy that shares the values only: pydicom converts elements, and settles their VRs, where they are."""
    from pydicom import Sequence
    from pydicom.dataelem import RawDataElement

    shadow = copy.copy(dataset)
    shadow._dict = dict(dataset._dict)
    for tag, element in shadow._dict.items():
        if isinstance(element, RawDataElement):
            continue
        element = copy.copy(element)
        if element.VR == "SQ":
            element._value = Sequence([_shadow(item) for item in element.value or ()])
        shadow._dict[tag] = element
    return shadow


def _fetch_deferred(shadow: Dataset) -> None:
    """Read the large values that pydicom left in the file (`dcmread(defer_size=...)`)."""
    from pydicom.dataelem import RawDataElement

    for tag, element in list(shadow._dict.items()):
        if isinstance(element, RawDataElement) and element.value is None and element.length:
            try:
                shadow[tag]
            except Exception as error:
                raise ReadError(f"a value left in the file cannot be read: {type(error).__name__}") from error


def _uid(dataset: Dataset, tag: int, name: str) -> str:
    value = dataset[tag].value if tag in dataset else None
    if not value:
        raise InvalidObject(f"{name} is missing")
    if not isinstance(value, str) or not is_valid_uid(value):
        raise InvalidObject(f"{name} is not a UID")
    return str(value)


def _own_transfer_syntax(dataset: Dataset, pixels: PixelSource | None) -> str:
    meta = getattr(dataset, "file_meta", None)
    said = str((meta.get("TransferSyntaxUID") if meta is not None else None) or "")
    if said and not is_valid_uid(said):
        raise InvalidObject("Transfer Syntax UID (0002,0010) is not a UID")
    implicit, little = dataset.original_encoding
    if little is False and (pixels is not None or said not in ("", EXPLICIT_VR_BIG_ENDIAN)):
        raise InvalidObject("the data set was read as Big Endian and cannot become Little Endian unharmed")
    if pixels is not None:
        if pixels.transfer_syntax_uid is not None:
            return str(pixels.transfer_syntax_uid)
        if said in NATIVE_LITTLE_ENDIAN:
            return said
    elif said:
        return said
    if little is False:
        return EXPLICIT_VR_BIG_ENDIAN
    return IMPLICIT_VR_LITTLE_ENDIAN if implicit and not said else EXPLICIT_VR_LITTLE_ENDIAN


def _check_pixel_data(dataset: Dataset, transfer_syntax: str) -> None:
    """Pixel Data that is what the transfer syntax says, native or encapsulated; length set accordingly."""
    try:
        element = dataset[_PIXEL_DATA]
    except Exception as error:
        raise InvalidObject(f"Pixel Data cannot be encoded: {type(error).__name__}") from error
    native = transfer_syntax in NATIVE_LITTLE_ENDIAN or transfer_syntax == EXPLICIT_VR_BIG_ENDIAN
    if native and element.is_undefined_length:
        raise InvalidObject("Pixel Data is encapsulated, but no compressed Transfer Syntax UID (0002,0010) says how")
    element.is_undefined_length = not native


def _written(dataset: Dataset, transfer_syntax: str, character_set: Any = "iso8859") -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    out = DicomBytesIO()
    out.is_little_endian = transfer_syntax != EXPLICIT_VR_BIG_ENDIAN
    out.is_implicit_VR = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    try:
        write_dataset(out, dataset, character_set)
    except Exception as error:
        # The text may quote a value: it stays in the chained exception.
        raise InvalidObject(f"the data set cannot be encoded: {type(error).__name__}") from error
    return out.getvalue()


class DatasetSource(ChunkedSource):
    """See `open_dataset`."""

    def __init__(self, encoded: _Encoded, pixels: PixelSource | None) -> None:
        super().__init__(_WHERE)
        self.sop_class_uid = encoded.sop_class_uid
        self.sop_instance_uid = encoded.sop_instance_uid
        self.transfer_syntaxes = recode.native_alternatives(encoded.transfer_syntax_uid)
        self.memory = len(encoded.before) + len(encoded.after)
        self._encoded = encoded
        self._pixels = pixels
        self._prepared = ""
        self._before: list[Buffer] = []
        self._after: list[Buffer] = []

    @property
    def encoded_size(self) -> int:
        """Bytes of the data set as it was encoded when it was opened; of pixels that come later, those announced."""
        announced = self._pixels.length if self._pixels is not None else 0
        return len(self._encoded.before) + len(self._encoded.after) + (announced or 0)

    async def prepare(self, transfer_syntax_uid: str) -> None:
        self._check_offered(transfer_syntax_uid)
        if transfer_syntax_uid != self._prepared:
            before, after = await run_abandonable(self._recoded, transfer_syntax_uid)
            self._prepared, self._before, self._after = transfer_syntax_uid, before, after
            self.size = self._wire_size()
        await self.rewind()
        if self.size is not None and (self.size % 2 or not self.size):
            raise InvalidObject("the data set is of odd length", self.where)

    def _recoded(self, target: str) -> tuple[list[Buffer], list[Buffer]]:
        encoded = self._encoded
        if target == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN and self._pixels is not None:
            target = EXPLICIT_VR_LITTLE_ENDIAN  # deflated on the way
        return self._recoded_part(encoded.before, target), self._recoded_part(encoded.after, target)

    def _recoded_part(self, data: bytes, target: str) -> list[Buffer]:
        if not data:
            return []
        view = memoryview(data)
        pieces = recode.recode(io.BytesIO(data), 0, len(data), self._encoded.encoding, target)
        return [view[p.offset : p.offset + p.length] if isinstance(p, recode.Span) else p for p in pieces]

    def _wire_size(self) -> int | None:
        around = sum(map(len, self._before)) + sum(map(len, self._after))
        if self._pixels is None:
            return around
        if self._prepared == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            return None
        length = self._pixels.length
        if length is not None:
            return around + len(self._pixel_header(length)) + length + length % 2
        frames = _frame_lengths(self._pixels)
        if frames is None:
            return None
        table = len(_offset_table(frames))
        return around + 12 + table + sum(8 + n + n % 2 for n in frames) + len(_SEQUENCE_END)

    def _pixel_header(self, length: int) -> bytes:
        length += length % 2
        if self._prepared == IMPLICIT_VR_LITTLE_ENDIAN:
            return struct.pack("<HHL", 0x7FE0, 0x0010, length)
        return struct.pack("<HH2sHL", 0x7FE0, 0x0010, self._encoded.pixel_vr, 0, length)

    def _bytes(self) -> AsyncGenerator[Buffer, None]:
        if self._pixels is None:
            return _each(self._before)
        wire = self._with_pixels(self._pixels)
        return _deflated(wire) if self._prepared == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else wire

    async def _with_pixels(self, pixels: PixelSource) -> AsyncGenerator[Buffer, None]:
        for piece in self._before:
            yield piece
        length = pixels.length
        body = self._encapsulated(pixels) if length is None else self._native(pixels, length)
        async with contextlib.aclosing(body):
            async for chunk in body:
                yield chunk
        for piece in self._after:
            yield piece

    async def _native(self, pixels: PixelSource, length: int) -> AsyncGenerator[Buffer, None]:
        yield self._pixel_header(length)
        done = 0
        async with contextlib.aclosing(_chunks_of(pixels)) as chunks:
            async for chunk in chunks:
                done += len(chunk)
                if done > length:
                    raise ObjectChanged(f"the pixel source gives more than its length of {length} bytes", self.where)
                yield chunk
        if done < length:
            raise ObjectChanged(f"the pixel source ended after {done} of {length} bytes", self.where)
        if length % 2:
            yield b"\0"

    async def _encapsulated(self, pixels: PixelSource) -> AsyncGenerator[Buffer, None]:
        frames = _frame_lengths(pixels)
        yield struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED_LENGTH)
        yield _offset_table(frames or ())
        count = 0
        async with contextlib.aclosing(_chunks_of(pixels)) as chunks:
            async for frame in chunks:
                length = len(frame)
                if not 0 < length < UNDEFINED_LENGTH - 1:
                    raise InvalidObject(f"frame {count} is of {length} bytes", self.where)
                if frames is not None and (count >= len(frames) or frames[count] != length):
                    raise ObjectChanged(f"frame {count} is not of the length that was announced", self.where)
                count += 1
                yield struct.pack("<LL", _ITEM, length + length % 2)
                yield frame
                if length % 2:
                    yield b"\0"
        if not count or (frames is not None and count != len(frames)):
            raise ObjectChanged(f"the pixel source ended after {count} frames", self.where)
        yield _SEQUENCE_END


def _frame_lengths(pixels: PixelSource) -> tuple[int, ...] | None:
    lengths = getattr(pixels, "frame_lengths", None)
    return None if lengths is None else tuple(lengths)


def _offset_table(frames: tuple[int, ...]) -> bytes:
    """The Basic Offset Table item; empty if the lengths are not known, or too large for it (PS3.5 A.4)."""
    offsets = []
    offset = 0
    for length in frames:
        offsets.append(offset)
        offset += 8 + length + length % 2
    if offsets and offsets[-1] > 0xFFFFFFFF:
        offsets = []
    return struct.pack(f"<LL{len(offsets)}L", _ITEM, 4 * len(offsets), *offsets)


async def _each(pieces: Iterable[Buffer]) -> AsyncGenerator[Buffer, None]:
    for piece in pieces:
        yield piece


async def _chunks_of(pixels: PixelSource) -> AsyncGenerator[memoryview, None]:
    """The chunks as bytes; whatever the caller's iterator raises becomes a `ReadError`."""
    chunks: AsyncIterator[Buffer] | None = None
    try:
        given = pixels.chunks()
        if not hasattr(given, "__aiter__"):
            raise TypeError(f"chunks() of a pixel source gives an async iterator, not {type(given).__name__}")
        chunks = given.__aiter__()
        while True:
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise ReadError(f"the pixel source failed: {type(error).__name__}", _WHERE) from error
            try:
                view = memoryview(chunk).cast("B")
            except (TypeError, ValueError) as error:
                raise ReadError("the pixel source gave a chunk that is no contiguous buffer", _WHERE) from error
            if view:
                yield view
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _deflated(wire: AsyncGenerator[Buffer, None]) -> AsyncGenerator[Buffer, None]:
    """`wire`, deflated in threads and padded to even length (PS3.5 A.5)."""
    compressor = recode.new_deflater()
    total = 0
    async with contextlib.aclosing(wire):
        async for chunk in wire:
            view = memoryview(chunk)
            for start in range(0, len(view), _DEFLATED_AT_ONCE):
                out = await run_abandonable(compressor.compress, view[start : start + _DEFLATED_AT_ONCE])
                total += len(out)
                yield out
    out = await run_abandonable(compressor.flush)
    yield out + b"\0" * ((total + len(out)) % 2)
