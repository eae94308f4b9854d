"""Bytes for the upper layer: PDUs, the machine that hears them, negotiation, PDVs."""

from __future__ import annotations

from collections.abc import Iterable

from trio_dicom.association.service import Services
from trio_dicom.errors import AssociationError, LocalProtocolError, ProtocolViolation
from trio_dicom.protocol.message import MessageAssembler
from trio_dicom.protocol.negotiation import answer, as_presentation_contexts, conclude, propose
from trio_dicom.protocol.pdu import PDU, AssociateAC, AssociateRQ, PDataTF
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.protocol.upper_layer import ConnectionClosed, Side, UpperLayer
from trio_dicom.services.instance import Instance
from trio_dicom.services.storage_scp import StorageSCP
from trio_dicom.settings import AssociationSettings, Limits
from trio_dicom.testing import SOPClass

from .finding import documented, require

LIMITS = Limits()
SETTINGS = AssociationSettings()
SERVICES = Services(StorageSCP(Instance.read))  # never called
REQUEST = propose(as_presentation_contexts([SOPClass.CT]), "PACS", SETTINGS)


def check(data: bytes) -> None:
    pdus = _heard([data])
    small = 1 if len(data) < 2000 else 997
    pieces = (data[at : at + small] for at in range(0, len(data), small))
    require(_heard(pieces) == pdus, "the same bytes in other pieces are other PDUs")
    assembler = MessageAssembler(LIMITS)
    with documented(ProtocolViolation):
        for pdu in pdus:
            if isinstance(pdu, AssociateRQ):
                with documented(AssociationError):
                    answer(pdu, SERVICES.supported(pdu), SETTINGS)
            elif isinstance(pdu, AssociateAC):
                with documented(AssociationError):
                    conclude(REQUEST, pdu, SETTINGS)
            elif isinstance(pdu, PDataTF):
                for pdv in pdu.pdvs:
                    assembler.receive(pdv)
    for side in Side:
        _machine(side, data)


def _heard(pieces: Iterable[bytes]) -> list[PDU | str]:
    """PDUs, and what is said of what is none."""
    buffer = ReceiveBuffer(LIMITS)
    heard: list[PDU | str] = []
    for piece in pieces:
        buffer.feed(piece)
        pdu: PDU | str | None = ""
        while pdu is not None:
            try:
                pdu = buffer.next_pdu()
            except ProtocolViolation as error:
                pdu = str(error)
            if isinstance(pdu, PDU):
                _check_round_trip(pdu)
            if pdu is not None:
                heard.append(pdu)
    return heard


def _check_round_trip(pdu: PDU) -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(b"".join(pdu.encode()))
    again = buffer.next_pdu()
    require(again == pdu and not buffer.is_inside_pdu, f"encoded and decoded it is {again}, not {pdu}")


def _machine(side: Side, data: bytes) -> None:
    machine = UpperLayer(side, LIMITS)
    machine.connected()
    if side is Side.REQUESTOR:
        machine.send(REQUEST)
    machine.receive_data(data)
    machine.receive_data(b"")
    told: list[object] = []
    with documented(ProtocolViolation):
        while (event := machine.next_event()) is not None:
            told.append(event)
            if isinstance(event, AssociateRQ):
                with documented(LocalProtocolError, AssociationError):
                    machine.send(answer(event, SERVICES.supported(event), SETTINGS)[0])
        require(machine.must_close or (told and isinstance(told[-1], ConnectionClosed)), "the end is not told")
    replies = b"".join(machine.reply())
    require(not any(isinstance(each, str) for each in _heard([replies])), "a reply is no PDU")
