"""Messages in PDVs: how command and data sets are cut for the wire and put together again (PS3.8 annex E, PS3.7 6.3.1).

A message is a command set and, where the command says so, a data set, on one presentation context. Its PDVs follow each
other without those of another message between them: command first, each part ending in a fragment marked as the last.
"""

from __future__ import annotations

import functools

import attrs

from ..errors import DIMSEDecodeError, InvalidPDU, UnexpectedPDU
from ..settings import Limits
from .command import Command, decode_command
from .pdu import PDV, Buffer, p_data_header
from .user_information import byte_count

_PDV_OVERHEAD = 6  # item length, context ID and control header: part of the PDU's variable field


@functools.lru_cache
def payload_per_pdu(max_pdu_length: int) -> int:
    """The bytes of data, an even number, in a P-DATA-TF PDU of one PDV and a variable field of `max_pdu_length` bytes.

    `ValueError` below 8, where there is no room for data; 0, unlimited, is for the caller to cap.
    """
    if max_pdu_length < _PDV_OVERHEAD + 2:
        raise ValueError(f"a maximum PDU length of {max_pdu_length} leaves no room for data (8 is the least that does)")
    return (max_pdu_length - _PDV_OVERHEAD) & ~1


def fragment(data: Buffer, context_id: int, max_pdu_length: int, *, is_command: bool, is_last: bool) -> list[Buffer]:
    """`data` as P-DATA-TF PDUs of one PDV each: a 12-byte header and a view of the data, in turns; nothing is copied.

    `max_pdu_length` bounds the variable field of a PDU. With `is_last` the final PDV is marked as the last fragment,
    and empty data makes one empty PDV; without, more is to come, and empty data makes nothing.

    Raises `ValueError` if `max_pdu_length` is below 8, or for an odd number of bytes that are not the last.
    """
    size = payload_per_pdu(max_pdu_length)
    view = memoryview(data).cast("B")
    total = len(view)
    if not is_last:
        if total % 2:
            raise ValueError(f"a fragment that is not the last has an even number of bytes, not {total}")
        if not total:
            return []
    if total <= size:
        return [p_data_header(total, context_id, is_command, is_last), view]
    # All headers but the final one are equal, and the same object.
    header = p_data_header(size, context_id, is_command, False)
    slices = [view[at : at + size] for at in range(0, total, size)]
    buffers: list[Buffer] = [header] * (2 * len(slices))
    buffers[1::2] = slices
    buffers[-2] = p_data_header(len(slices[-1]), context_id, is_command, is_last)
    return buffers


@attrs.frozen
class CommandReceived:
    """A command set has come whole. If its `has_data_set` is true, `DataFragment`s on the same context follow."""

    context_id: int
    command: Command


@attrs.frozen
class DataFragment:
    """A piece of the data set of the last command; `data` is a view into what was received."""

    context_id: int
    data: Buffer = attrs.field(repr=byte_count)
    is_last: bool


class MessageAssembler:
    """PDVs in, commands and pieces of data sets out. Command sets are held in memory, data sets never."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._context_id: int | None = None  # of the message that is coming in
        self._is_data_awaited = False
        self._command = bytearray()
        self._fragments = 0  # of the command set
        self._empty_pdvs = 0  # in a row

    @property
    def is_inside_message(self) -> bool:
        """True from the first fragment of a command to the last fragment of its message."""
        return self._context_id is not None

    @property
    def data_context_id(self) -> int | None:
        """The presentation context in which data fragments are to come; None where a command is."""
        return self._context_id if self._is_data_awaited else None

    def receive_data(self, *, is_last: bool) -> None:
        """Some of the data set in `data_context_id` has come."""
        self._empty_pdvs = 0
        if is_last:
            self._context_id, self._is_data_awaited = None, False

    def receive(self, pdv: PDV) -> CommandReceived | DataFragment | None:
        """What `pdv` completes or brings; None for a command of which there is more to come.

        Raises `UnexpectedPDU` for a fragment of another context or of the wrong kind, `InvalidPDU` for more than
        `limits.empty_pdvs` empty fragments in a row, `DIMSEDecodeError` for a command set that is too large, comes in
        too many fragments or cannot be decoded, and `InvalidResponse` as `decode_command` does.
        """
        if self._context_id not in (None, pdv.context_id):
            raise UnexpectedPDU(
                f"a PDV on presentation context {pdv.context_id} in the middle of a message on {self._context_id}", 2, 6
            )
        if pdv.is_command == self._is_data_awaited:
            came, awaited = ("command", "data") if pdv.is_command else ("data", "command")
            raise UnexpectedPDU(f"a {came} fragment where a {awaited} fragment is to come", 2, 6)
        self._empty_pdvs = 0 if pdv.data else self._empty_pdvs + 1
        if self._empty_pdvs > self._limits.empty_pdvs:
            raise InvalidPDU(f"more than {self._limits.empty_pdvs} empty PDVs in a row", 2, 6)
        if pdv.is_command:
            return self._receive_command(pdv)
        if pdv.is_last:
            self._context_id, self._is_data_awaited = None, False
        return DataFragment(pdv.context_id, pdv.data, pdv.is_last)

    def _receive_command(self, pdv: PDV) -> CommandReceived | None:
        self._fragments += 1
        if len(self._command) + len(pdv.data) > self._limits.command_set:
            raise DIMSEDecodeError(f"a command set has more than {self._limits.command_set} bytes", 2, 6)
        if self._fragments > self._limits.command_fragments:
            raise DIMSEDecodeError(f"a command set has more than {self._limits.command_fragments} fragments", 2, 6)
        if not pdv.is_last:
            self._context_id = pdv.context_id
            self._command += pdv.data
            return None
        command = decode_command(self._command + pdv.data if self._command else pdv.data)
        self._command, self._fragments = bytearray(), 0
        self._is_data_awaited = command.has_data_set
        self._context_id = pdv.context_id if command.has_data_set else None
        return CommandReceived(pdv.context_id, command)
