"""Bytes for a command set, whole and in fragments."""

from __future__ import annotations

from trio_dicom.errors import DIMSEDecodeError, InvalidPDU, InvalidResponse
from trio_dicom.protocol.command import decode_command, encode_command
from trio_dicom.protocol.message import CommandReceived, MessageAssembler
from trio_dicom.protocol.pdu import PDV
from trio_dicom.settings import Limits

from .finding import documented, require

REFUSALS = (DIMSEDecodeError, InvalidResponse)
PIECE = 63


def check(data: bytes) -> None:
    command = None
    with documented(*REFUSALS):
        command = decode_command(data)
    if command is not None:
        encoded = encode_command(command)
        require(decode_command(encoded) == command, f"encoded and decoded, {command} is another")
    received = None
    with documented(*REFUSALS, InvalidPDU):
        received = _assembled(data)
    limits = Limits()
    if len(data) <= min(limits.command_set, PIECE * limits.command_fragments):
        require(received == command, f"in pieces it is {received}, not {command}")
    else:
        require(received is None, "there is no limit")


def _assembled(data: bytes) -> object:
    assembler = MessageAssembler(Limits())
    for at in range(0, max(1, len(data)), PIECE):
        is_last = at + PIECE >= len(data)
        received = assembler.receive(PDV(1, True, is_last, data[at : at + PIECE]))
        require(is_last or received is None, "it is whole too early")
    require(isinstance(received, CommandReceived), f"it is {received}")
    return received.command  # type: ignore[union-attr]
