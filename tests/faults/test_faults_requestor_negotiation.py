"""Peers that answer an association request with something else: rows 1 to 19 of the fault table, 54 and 55."""

from __future__ import annotations

import errno
import logging
import socket
import struct

import attrs
import pytest
import trio

from support.encounter import meet
from trio_dicom import (
    AssociationAborted,
    AssociationRejected,
    AssociationSettings,
    AssociationTimeout,
    ConnectFailed,
    ConnectionLost,
    IdentityNotConfirmed,
    InvalidPDU,
    NoAcceptedContexts,
    Outcome,
    PeerLimitUnusable,
    PresentationContext,
    Retry,
    UnexpectedPDU,
    UnrecognisedPDU,
    UserIdentity,
    open_association,
)
from trio_dicom.protocol.pdu import (
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PresentationContextAC,
    ReleaseRP,
    ReleaseRQ,
)
from trio_dicom.protocol.user_information import RoleSelection, UnknownItem, UserIdentityAC, encode_item
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    acceptance,
    encoded,
    instead_of_accept,
    instead_of_response,
    message,
    scripted_link,
)
from trio_dicom.uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

MR = "1.2.840.10008.5.1.4.1.1.4"
NOT_SENT, NO_CONTEXT, IN_DOUBT, STORED = Outcome.NOT_SENT, Outcome.NO_CONTEXT, Outcome.IN_DOUBT, Outcome.STORED


def header(pdu_type: int, length: int) -> bytes:
    return struct.pack(">BxL", pdu_type, length)


# --- 1: no connection -----------------------------------------------------------------------------------------------


class Resolver(trio.abc.HostnameResolver):
    """Names without a network."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


class Unreachable(trio.abc.SocketFactory):
    def socket(self, family=None, type=None, proto=None):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.fault_row(1)
@pytest.mark.parametrize(
    ("addresses", "factory", "number"),
    [
        pytest.param(["127.0.0.1", "127.0.0.2"], None, errno.ECONNREFUSED, id="fault1-refused"),
        pytest.param([], None, socket.EAI_NONAME, id="fault1-no_such_name"),
        pytest.param(["127.0.0.1"], Unreachable(), errno.ENETUNREACH, id="fault1-unreachable"),
    ],
)
async def test_no_connection(addresses, factory, number):
    trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
    if factory:
        trio.socket.set_custom_socket_factory(factory)
    with pytest.raises(ConnectFailed) as caught:
        async with open_association(f"PACS@pacs.example:{unused_port()}", [SOPClass.CT]):
            pass
    assert caught.value.errno == number
    assert len(caught.value.attempts) == max(1, len(addresses))
    assert caught.value.retry is Retry.LATER


# --- 2: silence -----------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(2)
async def test_fault2_silence(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.hold()

    met = await meet(script, settings=AssociationSettings())
    assert type(met.error) is AssociationTimeout
    assert met.error.seconds == 30
    assert 30 <= met.seconds <= 31.1
    assert met.aborted_with == (0, 0)
    assert met.outcome is NOT_SENT
    assert met.error.retry is Retry.LATER


async def test_a_connection_closed_for_an_answer(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.receive_pdu()
        await peer.close()

    met = await meet(script)
    assert type(met.error) is ConnectionLost
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ]


async def test_an_abort_for_an_answer(autojump_clock):
    met = await meet(instead_of_accept(Abort(2, 1)))
    assert type(met.error) is AssociationAborted
    assert (met.error.source, met.error.reason, met.error.by_peer) == (2, 1, True)
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ]


# --- 3, 4: rejections -----------------------------------------------------------------------------------------------

SOURCES_AND_REASONS = [(1, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]


@pytest.mark.fault_row(3, 4)
@pytest.mark.parametrize(
    ("triple", "retry"),
    [
        pytest.param((result, *pair), retry, id=f"fault3-{result}-{pair[0]}-{pair[1]}")
        for pair in SOURCES_AND_REASONS
        for result, retry in ((1, Retry.AFTER_CONFIG), (2, Retry.LATER))
    ]
    + [
        pytest.param(triple, retry, id="fault4-{}-{}-{}".format(*triple))
        for triple, retry in [
            ((0, 0, 0), Retry.AFTER_CONFIG),
            ((255, 255, 255), Retry.AFTER_CONFIG),
            ((3, 1, 1), Retry.AFTER_CONFIG),
            ((1, 1, 255), Retry.AFTER_CONFIG),
            ((2, 0, 99), Retry.LATER),
        ]
    ],
)
async def test_rejected(triple, retry, autojump_clock):
    met = await meet(instead_of_accept(AssociateRJ(*triple)))
    assert type(met.error) is AssociationRejected
    assert (met.error.result, met.error.source, met.error.reason) == triple
    assert met.error.retry is retry
    assert str(met.error)
    assert met.outcome is NOT_SENT
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ]  # closed without a further word


# --- 5 to 14: the acceptance ----------------------------------------------------------------------------------------


def accept(context_ids_and_syntaxes, result=0, **changes):
    """A script that accepts with just these contexts, then stores what comes."""

    async def script(peer: ScriptedPeer) -> None:
        contexts = tuple(PresentationContextAC(number, result, uids) for number, uids in context_ids_and_syntaxes)
        await peer.accept(presentation_contexts=contexts, **changes)
        await peer.serve_requests()

    return script


EXPLICIT = (EXPLICIT_VR_LITTLE_ENDIAN,)


@pytest.mark.fault_row(5)
@pytest.mark.parametrize(
    "contexts",
    [
        pytest.param([(1, EXPLICIT), (3, EXPLICIT)], id="fault5-never_proposed"),
        pytest.param([(2, EXPLICIT)], id="fault5-even"),
        pytest.param([(0, EXPLICIT)], id="fault5-zero"),
        pytest.param([(1, EXPLICIT), (1, EXPLICIT)], id="fault5-duplicate"),
    ],
)
async def test_contexts_that_were_not_proposed(contexts, autojump_clock):
    (await meet(accept(contexts))).check_violation(InvalidPDU, 2, 6, NOT_SENT)


@pytest.mark.fault_row(6)
@pytest.mark.parametrize(
    "syntaxes",
    [
        pytest.param((EXPLICIT_VR_BIG_ENDIAN,), id="fault6-not_proposed"),
        pytest.param((), id="fault6-none"),
        pytest.param((EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN), id="fault6-two"),
    ],
)
async def test_a_context_accepted_without_one_proposed_transfer_syntax(syntaxes, autojump_clock):
    alone = await meet(accept([(1, syntaxes)]))
    assert type(alone.error) is NoAcceptedContexts
    assert alone.outcome is NO_CONTEXT
    beside_another = await meet(accept([(1, syntaxes), (3, EXPLICIT)]), contexts=[SOPClass.CT, MR])
    assert beside_another.outcome is NO_CONTEXT
    assert beside_another.association.failure is None
    assert [type(pdu) for pdu in beside_another.pdus] == [AssociateRQ, ReleaseRQ]  # nothing was sent on it


@pytest.mark.fault_row(6)
async def test_fault6_the_syntaxes_of_a_rejected_context_are_not_looked_at(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.receive_pdu()
        answer = attrs.evolve(acceptance(request), presentation_contexts=(PresentationContextAC(1, 0, EXPLICIT),))
        rejected = encode_item(0x21, bytes((3, 0, 4, 0)) + encode_item(0x40, b"no UID") + b"\xff\xff")
        await peer.send(with_item(answer, rejected))
        await peer.serve_requests()

    assert (await meet(script, contexts=[SOPClass.CT, MR])).outcome is STORED


@pytest.mark.fault_row(7)
@pytest.mark.parametrize("result", [1, 2, 3, 4, 255], ids="fault7-result_{}".format)
async def test_none_accepted(result, autojump_clock):
    met = await meet(accept([(1, EXPLICIT)], result))
    assert type(met.error) is NoAcceptedContexts
    assert met.error.rejected == ((SOPClass.CT, result),)
    assert met.outcome is NO_CONTEXT
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ, ReleaseRQ]
    assert met.seconds == 0  # the release is over with its answer


@pytest.mark.fault_row(7)
async def test_fault7_no_answer_to_the_release(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(presentation_contexts=())
        await peer.hold()

    met = await meet(script)
    assert type(met.error) is NoAcceptedContexts
    assert met.seconds <= 10


@pytest.mark.fault_row(8)
async def test_fault8_contexts_left_out(autojump_clock):
    two = [PresentationContext(MR), PresentationContext(SOPClass.CT)]
    met = await meet(accept([(3, EXPLICIT)]), contexts=two)
    assert met.outcome is STORED
    (rejected,) = met.association.negotiated.rejected
    assert rejected.abstract_syntax == MR


def with_item(answer: AssociateAC, item: bytes) -> bytes:
    """`answer` with a raw item appended."""
    raw = encoded(answer)
    return header(2, len(raw) - 6 + len(item)) + raw[6:] + item


@pytest.mark.fault_row(9)
async def test_fault9_what_is_not_tested(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.receive_pdu()
        raw = bytearray(encoded(acceptance(request, user_items=[UnknownItem(0x5F, b"?"), UnknownItem(0xFF, b"")])))
        for reserved in (1, 8, 9, *range(10, 74), 75):  # 10 to 41 are the AE titles
            raw[reserved] = 0xFF
        await peer.send(bytes(raw))
        await peer.serve_requests()

    assert (await meet(script)).outcome is STORED


@pytest.mark.fault_row(9)
async def test_fault9_blank_titles(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(called_ae_title="", calling_ae_title="SOMEONE ELSE")
        await peer.serve_requests()

    assert (await meet(script)).outcome is STORED


OWN_CAP = AssociationSettings().send_pdu_length


@pytest.mark.fault_row(10, 11, 12)
@pytest.mark.parametrize(
    ("length", "most"),
    [
        pytest.param(None, OWN_CAP, id="fault10-no_item"),
        pytest.param(0, OWN_CAP, id="fault10-zero"),
        pytest.param(0xFFFFFFFF, OWN_CAP, id="fault12-largest"),
        *(pytest.param(length, length, id=f"fault11-{length}") for length in (8, 9, 10, 11, 4097, OWN_CAP - 1)),
    ],
)
async def test_the_lengths_of_our_pdus(length, most, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(max_pdu_length=length)
        await peer.serve_requests()

    met = await meet(script, size=1000 if length and length < 100 else 300_000)
    assert met.outcome is STORED
    pdvs = [pdu.pdvs for pdu in met.pdus if isinstance(pdu, PDataTF)]
    assert max(len(each[0].data) + 6 for each in pdvs) == most - most % 2
    assert all(len(each) == 1 and len(each[0].data) % 2 == 0 for each in pdvs)


@pytest.mark.fault_row(11)
@pytest.mark.parametrize("length", range(1, 8), ids="fault11-{}".format)
async def test_a_maximum_length_without_room_for_data(length, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(max_pdu_length=length)

    met = await meet(script)
    assert type(met.error) is PeerLimitUnusable
    assert met.error.max_pdu_length == length
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ, ReleaseRQ]
    assert met.outcome is NOT_SENT


@pytest.mark.fault_row(13)
async def test_fault13_another_application_context_is_tolerated(autojump_clock, caplog):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(application_context="1.2.3")
        await peer.serve_requests()

    assert (await meet(script)).outcome is STORED
    assert "application context 1.2.3" in caplog.text


def context_item(transfer_syntax: bytes) -> bytes:
    return encode_item(0x21, b"\1\0\0\0" + encode_item(0x40, transfer_syntax))


USER_ITEM = encode_item(0x50, b"\x51\0\0\x04\0\0\x40\0")
APPLICATION_CONTEXT = encode_item(0x10, b"1.2.840.10008.3.1.1.1")


@pytest.mark.fault_row(14)
@pytest.mark.parametrize(
    "items",
    [
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + b"\x21\0\xff\xff\1\0\0\0", id="fault14-item_past_the_end"),
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + b"\x21\0\0", id="fault14-item_header_cut"),
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + encode_item(0x21, b"\1\0"), id="fault14-context_too_short"),
        pytest.param(
            APPLICATION_CONTEXT + USER_ITEM + encode_item(0x21, b"\1\0\0\0\x40\0\0\x20" + b"1.2"),
            id="fault14-sub_item_past_its_item",
        ),
        pytest.param(
            APPLICATION_CONTEXT + encode_item(0x50, b"\x51\0\0\x08\0\0\x40\0"), id="fault14-user_item_past_its_item"
        ),
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + context_item(b""), id="fault14-empty_uid"),
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + context_item(b"1." + b"2" * 63), id="fault14-uid_of_65"),
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + context_item(b"1.2.\xe9"), id="fault14-uid_not_ascii"),
        pytest.param(APPLICATION_CONTEXT + USER_ITEM + context_item("1.٣".encode()), id="fault14-uid_of_other_digits"),
        pytest.param(USER_ITEM + context_item(b"1.2.840.10008.1.2"), id="fault14-no_application_context"),
        pytest.param(
            APPLICATION_CONTEXT + USER_ITEM + USER_ITEM + context_item(b"1.2.840.10008.1.2"), id="fault14-twice"
        ),
    ],
)
async def test_an_acceptance_that_cannot_be_read(items, autojump_clock):
    body = struct.pack(">HH16s16s32x", 1, 0, b"PACS", b"US") + items
    met = await meet(instead_of_accept(header(2, len(body)) + body))
    met.check_violation(InvalidPDU, 2, 6, NOT_SENT)


# --- 15 to 19: PDUs that cannot be ----------------------------------------------------------------------------------

PDU_NAMES = {1: "RQ", 2: "AC", 3: "RJ", 4: "DATA", 5: "RELEASE_RQ", 6: "RELEASE_RP", 7: "ABORT"}


@pytest.mark.fault_row(15, 16, 17)
@pytest.mark.parametrize("script", [instead_of_accept, instead_of_response], ids=["for_the_AC", "for_the_RSP"])
@pytest.mark.parametrize(
    ("error", "abort", "raw"),
    [
        pytest.param(InvalidPDU, (2, 6), header(number, length), id=f"fault15-{name}-{length:X}")
        for number, name in PDU_NAMES.items()
        for length in (0xFFFFFFFF, 0x80000000, 0)
    ]
    + [
        pytest.param(InvalidPDU, (2, 6), header(number, length) + bytes(length), id=f"fault16-{name}-{length}")
        for number, name in PDU_NAMES.items()
        if number in (3, 5, 6, 7)
        for length in (2, 3, 5, 10)
    ]
    + [
        pytest.param(UnrecognisedPDU, (2, 1), header(number, 4) + bytes(4), id=f"fault17-{number:02X}")
        for number in (0x00, 0x08, 0xFF)
    ],
)
async def test_a_pdu_refused_by_its_header(script, error, abort, raw, autojump_clock):
    met = await meet(script(raw))
    met.check_violation(error, *abort, NOT_SENT if script is instead_of_accept else IN_DOUBT)
    assert met.seconds <= 1.1  # at once: nothing more was waited for


@pytest.mark.fault_row(17)
@pytest.mark.parametrize("script", [instead_of_accept, instead_of_response], ids=["for_the_AC", "for_the_RSP"])
@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP", id="fault17-http"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x16", "TLS", id="fault17-tls_alert"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "SSH", id="fault17-ssh"),
    ],
)
async def test_another_protocol(script, raw, hint, autojump_clock):
    met = await meet(script(raw))
    met.check_violation(UnrecognisedPDU, 2, 1, NOT_SENT if script is instead_of_accept else IN_DOUBT)
    assert f"the peer speaks {hint}" in str(met.error)


@pytest.mark.fault_row(18, 41)
@pytest.mark.parametrize(
    ("pdu", "abort"),
    [
        pytest.param(AssociateAC("A", "B", (), ()), (2, 2), id="fault18-second_AC"),
        pytest.param(AssociateRJ(1, 1, 1), (2, 2), id="fault18-RJ"),
        pytest.param(header(1, 68 + 25 + 50) + bytes(143), (2, 6), id="fault18-RQ_of_zeros"),
        pytest.param(ReleaseRP(), (2, 2), id="fault41-RELEASE_RP"),
    ],
)
async def test_a_pdu_out_of_turn(pdu, abort, autojump_clock):
    kind = UnexpectedPDU if abort == (2, 2) else InvalidPDU
    (await meet(instead_of_response(pdu))).check_violation(kind, *abort)


@pytest.mark.fault_row(18)
async def test_fault18_two_acceptances_in_one_segment(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        answer = acceptance(await peer.receive_pdu())
        await peer.send(answer, answer)
        assert await peer.receive_pdu() == Abort(2, 2)

    async with scripted_link(script) as association:
        await association.wait_closed()
    assert type(association.failure) is UnexpectedPDU


@pytest.mark.fault_row(18)
async def test_fault18_an_association_request_to_the_requestor(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.accept()
        await peer.receive_message()
        await peer.send(request)

    (await meet(script)).check_violation(UnexpectedPDU, 2, 2)


@pytest.mark.fault_row(19)
@pytest.mark.parametrize(
    "pdu",
    [
        pytest.param(message(1, b"\0\0\0\0\4\0\0\0\0\0\0\0"), id="fault19-data"),
        pytest.param(ReleaseRQ(), id="fault19-release_request"),
        pytest.param(ReleaseRP(), id="fault19-release_answer"),
    ],
)
async def test_a_pdu_before_the_acceptance(pdu, autojump_clock):
    (await meet(instead_of_accept(pdu))).check_violation(UnexpectedPDU, 2, 2, NOT_SENT)


# --- 54, 55: what was not proposed, or not answered -------------------------------------------------------------


@pytest.mark.fault_row(54)
async def test_fault54_a_role_that_was_not_proposed(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(user_items=[RoleSelection(SOPClass.CT, scu=False, scp=True)])
        await peer.serve_requests()

    assert (await meet(script)).outcome is STORED


@pytest.mark.fault_row(55)
@pytest.mark.parametrize(
    ("response", "error"),
    [
        pytest.param(None, IdentityNotConfirmed, id="fault55-missing"),
        pytest.param(b"", None, id="fault55-empty"),
        pytest.param(b"t" * 65_000, None, id="fault55-oversized"),
    ],
)
async def test_the_answer_to_a_user_identity(response, error, autojump_clock, caplog):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(user_items=[] if response is None else [UserIdentityAC(response)])
        await peer.serve_requests()

    caplog.set_level(logging.DEBUG, "trio_dicom")
    identity = UserIdentity(type=2, primary=b"alice", secondary=b"open sesame", positive_response=True)
    met = await meet(script, settings=AssociationSettings(user_identity=identity))
    if error is None:
        assert met.outcome is STORED
    else:
        assert type(met.error) is error
        assert met.aborted_with == (0, 0)
        assert met.outcome is NOT_SENT
    told = f"{caplog.text} {met} {met.error!r} {met.error}"
    assert "alice" not in told
    assert "sesame" not in told
