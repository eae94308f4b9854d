"""From bytes as they come to whole PDUs.

A PDU that lies in one chunk is decoded where it lies. One that does not is gathered in a buffer of its own, which
grows with the bytes that have come and never to a length that was only declared. Each byte is copied once at most, or
twice if it was fed while older bytes waited to be read.
"""

from __future__ import annotations

import struct

from ..errors import InvalidPDU, UnrecognisedPDU, printable
from ..settings import Limits
from .pdu import HEADER_LENGTH, PDU, Buffer, PDataTF, PlainData, check_header, decode_body

_HEADER = struct.Struct(">BxL")

# How other protocols begin, which are found on the wrong port now and then.
_HINTS = (
    (b"HTTP/", "the peer speaks HTTP"),
    (b"GET ", "the peer speaks HTTP"),
    (b"POST ", "the peer speaks HTTP"),
    (b"HEAD ", "the peer speaks HTTP"),
    (b"OPTION", "the peer speaks HTTP"),
    (b"SSH-", "the peer speaks SSH"),
    (b"\x15\x03", "the peer speaks TLS"),
    (b"\x16\x03", "the peer speaks TLS"),
)


class ReceiveBuffer:
    """Bytes in with `feed`, PDUs out with `next_pdu`, which is to be called until it gives None."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._chunk = memoryview(b"")
        self._start = 0  # of what is unread in the chunk
        self._later = bytearray()  # fed while older bytes waited to be read
        self._partial = bytearray()  # the beginning of a PDU that no chunk has whole
        self._wanted = HEADER_LENGTH  # the length of the partial PDU as far as it is known
        self._rest = 0  # bytes that are to come of the PDU of which `next_data` gave the beginning
        self._rest_is_last = False  # it has the last fragment
        self._is_lost = False
        self._is_in_use = False  # after the first header
        self.longest_p_data = 0  #: bytes of the variable field, as the maximum length counts them

    @property
    def is_inside_pdu(self) -> bool:
        """True while there are bytes of a PDU that has not come whole, or was not asked for."""
        return bool(self._partial or self._later or self._rest) or self._start < len(self._chunk)

    def feed(self, data: Buffer) -> None:
        """Take bytes that came. The buffer is kept, and PDVs are views into it: it must not be changed afterwards."""
        if self._is_lost:
            return
        if self._later or self._start < len(self._chunk):
            self._later += data
        else:
            self._chunk = memoryview(data)
            self._start = 0

    def next_pdu(self) -> PDU | None:
        """The next PDU, or None if more bytes are needed.

        Raises `UnrecognisedPDU` or `InvalidPDU`; for a type or length that cannot be, as soon as the six bytes of the
        header are there. After such a header nobody can tell where the next PDU begins: whatever else comes is dropped,
        and there is no further PDU. After a PDU that is wrong inside, the next one follows as usual.
        """
        while self._rest:
            if not self._take_rest():
                return None
        if not self._partial:
            if self._start == len(self._chunk):
                if not self._later:
                    return None
                self._turn_over()
            chunk, body = self._chunk, self._start + HEADER_LENGTH
            if body <= len(chunk):
                pdu_type, length = _HEADER.unpack_from(chunk, self._start)
                if body + length <= len(chunk):
                    self._check_header(chunk[self._start : body])
                    self._start = body + length
                    return decode_body(pdu_type, chunk[body : body + length], self._limits)
        return self._gather()

    def next_data(self, context_id: int) -> tuple[list[memoryview], bool]:
        """What has come of the data set in `context_id`, and whether that is the end of it.

        Of the PDUs that are no more than a fragment of it, and of the last of them before it is whole: they are passed
        over. What is not so plain is for `next_pdu`, and what is wrong.
        """
        if self._partial:
            return [], False
        data = PlainData()
        if self._rest:
            if piece := self._take_rest():
                data.pieces.append(piece)
            data.rest, data.is_last = self._rest, self._rest_is_last
        if not data.rest:
            self._start = data.decode(self._chunk, self._start, context_id, self._limits)
            if data.longest > self.longest_p_data:
                self.longest_p_data = data.longest
        self._rest, self._rest_is_last = data.rest, data.is_last
        return data.pieces, data.is_last and not data.rest

    def _take_rest(self) -> memoryview:
        """What there is of the rest of a PDU of which `next_data` gave the beginning."""
        if self._start == len(self._chunk):
            self._turn_over()
        piece = self._chunk[self._start : self._start + self._rest]
        self._start += len(piece)
        self._rest -= len(piece)
        return piece

    def _turn_over(self) -> None:
        if self._later:
            self._chunk, self._later, self._start = memoryview(self._later), bytearray(), 0

    def _gather(self) -> PDU | None:
        partial = self._partial
        while len(partial) < self._wanted:
            if self._start == len(self._chunk):
                self._turn_over()
            piece = self._chunk[self._start : self._start + self._wanted - len(partial)]
            if not piece:
                return None
            partial += piece
            self._start += len(piece)
            if len(partial) == HEADER_LENGTH:
                self._wanted += self._check_header(partial)
        self._partial, self._wanted = bytearray(), HEADER_LENGTH
        return decode_body(partial[0], memoryview(partial)[HEADER_LENGTH:], self._limits)

    def _check_header(self, header: Buffer) -> int:
        """The length of the body."""
        pdu_type, length = _HEADER.unpack(header)
        try:
            check_header(pdu_type, length, self._limits)
        except UnrecognisedPDU as error:
            self._drop_everything()
            detail = error.detail + _describe(bytes(header), is_first=not self._is_in_use)
            raise UnrecognisedPDU(detail, error.abort_source, error.abort_reason) from None
        except InvalidPDU:
            self._drop_everything()
            raise
        self._is_in_use = True
        if length > self.longest_p_data and pdu_type == PDataTF.pdu_type:
            self.longest_p_data = length
        return int(length)

    def _drop_everything(self) -> None:
        self._is_lost = True
        self._chunk, self._start = memoryview(b""), 0
        self._later, self._partial, self._wanted = bytearray(), bytearray(), HEADER_LENGTH


def _describe(header: bytes, *, is_first: bool) -> str:
    """What begins so. Later than first it may be a part of a data set, which nobody shall quote."""
    hints = [hint for prefix, hint in _HINTS if header.startswith(prefix)]
    quoted = [f'it begins with "{printable(header)}"'] if is_first else []
    return "".join(f"; {each}" for each in (*quoted, *hints))
