"""Each limit of what a peer may ask of us, at it and one past it, with the numbers that are the defaults."""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable

import attrs
import pytest

from trio_dicom import Admission, AssociationSettings, InstanceFolder, Limits, ProtocolViolation, Timeouts
from trio_dicom.association import acceptor, performing
from trio_dicom.association.in_flight import InFlight
from trio_dicom.errors import DIMSEDecodeError, InvalidPDU
from trio_dicom.protocol.message import MessageAssembler
from trio_dicom.protocol.negotiation import as_presentation_contexts, propose
from trio_dicom.protocol.pdu import PDV, PresentationContextRQ, decode_pdu
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.protocol.user_information import RoleSelection
from trio_dicom.testing import association_request, encoded
from trio_dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

LIMITS = Limits()


def pdu(kind: int, length: int) -> None:
    """From the header alone: nothing of the body is there yet."""
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(struct.pack(">BxL", kind, length))
    assert buffer.next_pdu() is None


def request(**changes: object) -> None:
    asked = attrs.evolve(association_request([VERIFICATION]), **changes)
    decode_pdu(1, memoryview(encoded(asked))[6:], LIMITS)


def contexts(count: int) -> None:
    made = tuple(PresentationContextRQ(2 * n + 1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)) for n in range(count))
    request(presentation_contexts=made)


def transfer_syntaxes(count: int) -> None:
    names = tuple(f"1.2.{number}" for number in range(count))
    request(presentation_contexts=(PresentationContextRQ(1, VERIFICATION, names),))


def user_items(count: int) -> None:
    few = association_request([VERIFICATION]).user_information
    roles = tuple(RoleSelection(f"1.2.{number}", True, False) for number in range(count - len(few)))
    request(user_information=(*few, *roles))


def uid(length: int) -> None:
    request(presentation_contexts=(PresentationContextRQ(1, "1." + "2" * (length - 2), (IMPLICIT_VR_LITTLE_ENDIAN,)),))


def pdvs(count: int) -> None:
    body = struct.pack(">LBB", 2, 1, 0) * count
    decode_pdu(4, memoryview(body), LIMITS)


def feed(data: list[bytes], *, is_command: bool = True) -> None:
    assembler = MessageAssembler(LIMITS)
    for each in data:
        assembler.receive(PDV(1, is_command, False, memoryview(each)))


def command_bytes(count: int) -> None:
    feed([bytes(256)] * (count // 256) + [bytes(count % 256)])


def fragments(count: int) -> None:
    feed([b"\0\0"] * count)


def empty_pdvs(count: int) -> None:
    feed([b""] * count)


AT_AND_PAST: dict[str, tuple[Callable[[int], None], int, type[ProtocolViolation]]] = {
    "A-ASSOCIATE-RQ": (lambda length: pdu(1, length), 1 << 20, InvalidPDU),
    "A-ASSOCIATE-AC": (lambda length: pdu(2, length), 1 << 20, InvalidPDU),
    "P-DATA-TF": (lambda length: pdu(4, length), 1 << 20, InvalidPDU),
    "A-ABORT": (lambda length: pdu(7, length), 4, InvalidPDU),
    "transfer syntaxes": (transfer_syntaxes, 128, InvalidPDU),
    "user items": (user_items, 256, InvalidPDU),
    "length of a UID": (uid, 64, InvalidPDU),
    "PDVs in a PDU": (pdvs, 1024, InvalidPDU),
    "bytes of a command set": (command_bytes, 16 << 10, DIMSEDecodeError),
    "fragments of a command set": (fragments, 256, DIMSEDecodeError),
    "empty PDVs in a row": (empty_pdvs, 64, InvalidPDU),
}


@pytest.mark.parametrize("name", AT_AND_PAST)
def test_at_a_limit_and_one_past_it(name: str) -> None:
    do, most, error = AT_AND_PAST[name]
    do(most)
    with pytest.raises(error):
        do(most + 1)


SETTINGS: dict[str, tuple[Callable[[int], object], int, int]] = {  # the least and the most that is taken
    "max_pdu_length": (lambda value: AssociationSettings(max_pdu_length=value), 4096, 1 << 20),
    "send_pdu_length": (lambda value: AssociationSettings(send_pdu_length=value), 8, 1 << 20),
    "operations_window": (lambda value: AssociationSettings(operations_window=value), 0, 65_535),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_settings_take(name: str) -> None:
    make, least, most = SETTINGS[name]
    make(least), make(most)
    for value in (least - 1, most + 1):
        with pytest.raises(ValueError, match=name):
            make(value)


def test_contexts_are_128_at_most() -> None:
    """There are no more identifiers."""
    contexts(128)
    propose(_proposed(128), "PACS", AssociationSettings())
    with pytest.raises(ValueError, match="128"):
        propose(_proposed(129), "PACS", AssociationSettings())


def _proposed(count: int) -> list[object]:
    return list(as_presentation_contexts([f"1.2.{number}" for number in range(count)]))


def test_the_defaults_that_are_safe(tmp_path) -> None:
    settings, admission, timeouts = AssociationSettings(), Admission(), Timeouts()
    assert (settings.max_pdu_length, settings.operations_window, LIMITS.operations_window) == (131_072, 1, 64)
    assert (admission.associations, admission.associations_per_host) == (64, 8)
    assert (admission.connections_waiting, acceptor.BACKLOG) == (128, 128)
    assert (timeouts.artim, timeouts.connect, timeouts.tls_handshake) == (10, 10, 10)
    assert (timeouts.association, timeouts.release, timeouts.abort_linger) == (30, 10, 1)
    assert (timeouts.idle, timeouts.pdu, LIMITS.minimum_rate, performing.RATE_PERIOD) == (60, 30, 1024, 60)
    assert performing.MOST_BUFFERED == 4 << 20
    assert InFlight(1, LIMITS.response_data_set).has_room
    assert InstanceFolder(tmp_path)._max_object_size == 16 << 30
    parameters = inspect.signature(acceptor.serve_associations).parameters
    assert parameters["host"].default == "127.0.0.1"


def test_what_is_announced_is_not_refused() -> None:
    AssociationSettings(max_pdu_length=4096, limits=Limits(pdu_length=4096))
    with pytest.raises(ValueError, match=r"max_pdu_length of 4097 is more than limits\.pdu_length, 4096"):
        AssociationSettings(max_pdu_length=4097, limits=Limits(pdu_length=4096))
