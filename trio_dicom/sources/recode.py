"""A data set from one native Little Endian transfer syntax into another (PS3.5 annex A.1, A.2, A.5).

Every value goes over byte for byte: Explicit and Implicit VR Little Endian differ in the headers of the elements only.
So no text is decoded, no number converted, and large values are not even read: they remain spans of the input. Lengths
of sequences and items become undefined, since their headers' sizes change; retired group lengths (PS3.5 7.2), which
would be wrong, are dropped.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import attrs

from ..errors import InvalidObject
from ..uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_LITTLE_ENDIAN,
)
from .part10 import LONG_VRS, SHORT_VRS, UNDEFINED_LENGTH, Buffer

MAX_DEPTH = 64  # of sequences in sequences
MAX_INFLATED = 512 << 20  # bytes
MAX_INFLATION = 1100  # times; zlib's best is about 1030
_LARGE = 32 << 10  # values of so many bytes stay where they are
_CHUNK = 1 << 20

_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_ITEM_END = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


@attrs.frozen
class Span:
    """Bytes that are still in the input: `length` of them from `offset` on."""

    offset: int
    length: int


Piece = Buffer | Span


def piece_length(piece: Piece) -> int:
    return piece.length if isinstance(piece, Span) else len(piece)


def native_alternatives(transfer_syntax_uid: str) -> tuple[str, ...]:
    """`transfer_syntax_uid` first, then those into which `recode` can turn it."""
    return _ALTERNATIVES.get(transfer_syntax_uid) or (transfer_syntax_uid,)


_ALTERNATIVES = {own: (own, *(uid for uid in NATIVE_LITTLE_ENDIAN if uid != own)) for own in NATIVE_LITTLE_ENDIAN}


def recode(stream: BinaryIO, start: int, end: int, source: str, target: str) -> list[Piece]:
    """The data set in bytes `start` to `end` of a seekable `stream`, from transfer syntax `source` to `target`.

    Blocks: for a thread. Memory is that of the elements without large values, but for the deflated transfer syntax:
    there it is that of the data set, inflated or deflated. Raises `InvalidObject` if the data set is damaged.
    """
    if source == target:
        return [Span(start, end - start)]
    if source == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        plain = inflate(stream, start, end)
        if target == EXPLICIT_VR_LITTLE_ENDIAN:
            return [plain]
        view = memoryview(plain)
        pieces = _Recoder(io.BytesIO(plain), to_implicit=True).run(0, len(plain))
        return [view[p.offset : p.offset + p.length] if isinstance(p, Span) else p for p in pieces]
    if source == IMPLICIT_VR_LITTLE_ENDIAN:
        pieces = _Recoder(stream, to_implicit=False).run(start, end)
    elif target == IMPLICIT_VR_LITTLE_ENDIAN:
        pieces = _Recoder(stream, to_implicit=True).run(start, end)
    else:
        pieces = [Span(start, end - start)]
    if target == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return [deflate(_bytes_of(pieces, stream))]
    return pieces


def deflate(chunks: Iterable[Buffer]) -> bytes:
    """RFC 1951 without header, padded to even length (PS3.5 A.5)."""
    compressor = new_deflater()
    out = bytearray()
    for chunk in chunks:
        out += compressor.compress(chunk)
    out += compressor.flush()
    return bytes(out) + b"\0" * (len(out) % 2)


def new_deflater() -> zlib._Compress:
    return zlib.compressobj(wbits=-zlib.MAX_WBITS)


def inflate(stream: BinaryIO, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of `stream`, inflated under a limit."""
    limit = min(MAX_INFLATED, MAX_INFLATION * (end - start))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    try:
        for chunk in _bytes_of([Span(start, end - start)], stream):
            pending: Buffer = chunk
            while pending and not inflater.eof:
                out += inflater.decompress(pending, _CHUNK)
                pending = inflater.unconsumed_tail
                if len(out) > limit:
                    raise InvalidObject("the deflated data set inflates beyond all measure")
    except zlib.error as error:
        raise InvalidObject("the deflated data set is damaged") from error
    if not inflater.eof:
        raise InvalidObject("the deflated data set is cut short")
    return bytes(out)


def _bytes_of(pieces: Iterable[Piece], stream: BinaryIO) -> Iterator[Buffer]:
    for piece in pieces:
        if not isinstance(piece, Span):
            yield piece
            continue
        stream.seek(piece.offset)
        left = piece.length
        while left:
            chunk = stream.read(min(left, _CHUNK))
            if not chunk:
                raise InvalidObject("the data set is cut short")
            left -= len(chunk)
            yield chunk


class _Recoder:
    """One pass from Explicit VR to Implicit VR Little Endian, or back.

    Within Explicit VR there may be Implicit VR: a sequence that somebody saved as UN of undefined length (PS3.5 6.2.2).
    """

    def __init__(self, stream: BinaryIO, *, to_implicit: bool) -> None:
        self._stream = stream
        self._to_implicit = to_implicit
        self._position = 0
        self._pieces: list[Piece] = []
        self._out = bytearray()

    def run(self, start: int, end: int) -> list[Piece]:
        self._stream.seek(start)
        self._position = start
        self._data_set(end, implicit=not self._to_implicit, delimited=False, depth=0, signed=False)
        self._flush()
        return self._pieces

    def _data_set(self, end: int, *, implicit: bool, delimited: bool, depth: int, signed: bool) -> None:
        """Elements up to `end`, or up to an Item Delimitation Item before it. `signed`: Pixel Representation."""
        while delimited or self._position < end:
            group, element, vr, length = self._header(end, implicit)
            if group == 0xFFFE:
                if delimited and element == 0xE00D:
                    return
                raise self._damaged()
            if vr is None and not self._to_implicit:
                vr = _vr_of(group, element, length, signed)
            if vr == b"SQ" or length == UNDEFINED_LENGTH:
                # Only a sequence has no length here, whatever it says that it is; as UN it is Implicit VR inside.
                if vr not in (None, b"SQ", b"UN"):
                    raise InvalidObject(f"encapsulated data at byte {self._position} of a native data set")
                self._put_header(group, element, b"SQ", UNDEFINED_LENGTH)
                self._sequence(end, length, implicit=implicit or vr == b"UN", depth=depth + 1, signed=signed)
                self._out += _SEQUENCE_END
                continue
            if self._position + length > end:
                raise self._damaged()
            if element == 0x0000:
                self._skip(length)
                continue
            self._put_header(group, element, vr, length)
            if length >= _LARGE:
                self._flush()
                self._pieces.append(Span(self._position, length))
                self._skip(length)
                continue
            value = self._read(length)
            self._out += value
            if group == 0x0028 and element == 0x0103:
                signed = value[:1] == b"\1"

    def _sequence(self, end: int, length: int, *, implicit: bool, depth: int, signed: bool) -> None:
        if depth > MAX_DEPTH:
            raise InvalidObject(f"sequences nested more than {MAX_DEPTH} deep")
        delimited = length == UNDEFINED_LENGTH
        if not delimited:
            if self._position + length > end:
                raise self._damaged()
            end = self._position + length
        while delimited or self._position < end:
            if self._position + 8 > end:
                raise self._damaged()
            group, element, item_length = struct.unpack("<HHL", self._read(8))
            if delimited and (group, element) == (0xFFFE, 0xE0DD):
                return
            if (group, element) != (0xFFFE, 0xE000):
                raise self._damaged()
            self._out += _ITEM
            if item_length == UNDEFINED_LENGTH:
                self._data_set(end, implicit=implicit, delimited=True, depth=depth, signed=signed)
            else:
                item_end = self._position + item_length
                if item_end > end:
                    raise self._damaged()
                self._data_set(item_end, implicit=implicit, delimited=False, depth=depth, signed=signed)
            self._out += _ITEM_END

    def _header(self, end: int, implicit: bool) -> tuple[int, int, bytes | None, int]:
        if self._position + 8 > end:
            raise self._damaged()
        raw = self._read(8)
        group, element, length = struct.unpack("<HHL", raw)
        if implicit or group == 0xFFFE:
            return group, element, None, length
        vr = raw[4:6]
        if vr in SHORT_VRS:
            return group, element, vr, length >> 16
        if vr not in LONG_VRS or self._position + 4 > end:
            raise self._damaged()
        return group, element, vr, int.from_bytes(self._read(4), "little")

    def _put_header(self, group: int, element: int, vr: bytes | None, length: int) -> None:
        if self._to_implicit:
            self._out += struct.pack("<HHL", group, element, length)
            return
        wanted = vr or b"UN"
        if wanted in SHORT_VRS and length <= 0xFFFF:
            self._out += struct.pack("<HH2sH", group, element, wanted, length)
            return
        long_vr = wanted if wanted in LONG_VRS else b"UN"  # too long for its own VR (PS3.5 6.2.2, note)
        self._out += struct.pack("<HH2sHL", group, element, long_vr, 0, length)

    def _read(self, length: int) -> bytes:
        value = self._stream.read(length)
        if len(value) != length:
            raise self._damaged()
        self._position += length
        return value

    def _skip(self, length: int) -> None:
        self._position += length
        self._stream.seek(self._position)

    def _flush(self) -> None:
        if self._out:
            self._pieces.append(bytes(self._out))
            self._out.clear()

    def _damaged(self) -> InvalidObject:
        return InvalidObject(f"the data set is damaged or cut short at byte {self._position}")


# What the dictionary leaves open, decided as in PS3.5 annex A.2; the bytes of the value are the same for all of them.
_AMBIGUOUS = {"OB or OW": b"OW", "US or OW": b"OW", "US or SS or OW": b"OW"}


def _vr_of(group: int, element: int, length: int, signed: bool) -> bytes:
    """The explicit VR of an element that came without one; UN where only its maker knows (PS3.5 6.2.2)."""
    if group % 2:
        return b"LO" if 0x0010 <= element <= 0x00FF else b"UN"
    from pydicom.datadict import dictionary_VR

    try:
        name = dictionary_VR(group << 16 | element)
    except KeyError:
        return b"UN"
    if name == "US or SS":
        return b"SS" if signed else b"US"
    if name.startswith("US or") and length == 2:
        return b"US"
    return _AMBIGUOUS.get(name) or name.encode("ascii")
