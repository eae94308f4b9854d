"""Peers whose PDUs are right and whose messages are not: rows 20 to 36 of the fault table."""

from __future__ import annotations

import io
import logging
import struct

import attrs
import pytest
import trio
import trio.testing

from support.encounter import BLOCKING, meet
from trio_dicom import (
    AssociationAborted,
    AssociationSettings,
    CStoreOptions,
    CStoreSCU,
    DIMSEDecodeError,
    InvalidPDU,
    InvalidResponse,
    Limits,
    OperationTimeout,
    Outcome,
    Retry,
    Status,
    StatusError,
    UnexpectedMessageID,
    UnexpectedPDU,
)
from trio_dicom.protocol.command import CEchoRSP, CStoreRQ, CStoreRSP, encode_command
from trio_dicom.protocol.other_services import CFindRSP, NEventReportRQ
from trio_dicom.protocol.pdu import Abort
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    acceptance,
    instead_of_response,
    make_instance_file,
    message,
    response_to,
    scripted_link,
)

VERIFICATION = "1.2.840.10008.1.1"
NOT_SENT, IN_DOUBT, STORED, REFUSED = Outcome.NOT_SENT, Outcome.IN_DOUBT, Outcome.STORED, Outcome.REFUSED
MORE, LAST, COMMAND = 0, 2, 1  # of the control header


def success(context_id, request):
    return message(context_id, response_to(request))


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxL", 4, len(body)) + body


def pdv(control: int, data: bytes = b"", *, context_id: int = 1, length: int | None = None) -> bytes:
    return struct.pack(">LBB", len(data) + 2 if length is None else length, context_id, control) + data


def us(element: int, value: int) -> bytes:
    return raw(element, value.to_bytes(2, "little"))


def raw(element: int, value: bytes, *, group: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<HHL", group, element, len(value) if length is None else length) + value


def uid(element: int, text: str, pad: bytes = b"\0") -> bytes:
    return raw(element, text.encode() + pad * (len(text) % 2))


# --- 20 to 24: PDVs -------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(20)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(pdv(3, bytes(4), length=0), id="fault20-length_0"),
        pytest.param(pdv(3, bytes(4), length=1), id="fault20-length_1"),
        pytest.param(pdv(3, bytes(4), length=7), id="fault20-past_the_end"),
        pytest.param(pdv(3, bytes(4), length=0xFFFFFFFF), id="fault20-huge"),
        *(pytest.param(pdv(0, bytes(4)) + bytes(residue), id=f"fault20-residue_{residue}") for residue in (1, 2, 3, 5)),
    ],
)
async def test_pdvs_that_do_not_fill_their_pdu(body, autojump_clock):
    (await meet(instead_of_response(p_data(body)))).check_violation(InvalidPDU, 2, 6)


@pytest.mark.fault_row(21)
@pytest.mark.parametrize("context_id", [0, 2, 5, 255], ids="fault21-{}".format)
async def test_a_response_on_a_context_that_was_not_accepted(context_id, autojump_clock):
    met = await meet(instead_of_response(lambda _, request: success(context_id, request)))
    met.check_violation(UnexpectedPDU, 2, 5)


@pytest.mark.fault_row(23)
async def test_fault23_a_response_on_the_context_of_another_request(autojump_clock):
    met = await meet(instead_of_response(lambda _, request: success(3, request)), contexts=[SOPClass.CT, VERIFICATION])
    met.check_violation(InvalidResponse, 2, 5)


@pytest.mark.fault_row(22)
async def test_fault22_reserved_bits_are_not_tested(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        answer = bytearray(success(context_id, request))
        answer[11] |= 0xFC
        await peer.send(answer)

    assert (await meet(script)).outcome is STORED


def split_response(*, second_context: int = 1, between: bytes = b"") -> object:
    """A C-STORE-RSP in two PDVs."""

    def answer(context_id, request):
        command = encode_command(response_to(request))
        head, tail = command[:20], command[20:]
        return p_data(pdv(COMMAND, head)) + between + p_data(pdv(COMMAND | LAST, tail, context_id=second_context))

    return answer


WITH_DATA = attrs.evolve(CStoreRSP(1, 0), has_data_set=True)


@pytest.mark.fault_row(23)
@pytest.mark.parametrize(
    ("answer", "contexts"),
    [
        pytest.param(p_data(pdv(LAST, bytes(8))), [SOPClass.CT], id="fault23-data_for_a_command"),
        pytest.param(
            split_response(between=p_data(pdv(MORE, bytes(8)))), [SOPClass.CT], id="fault23-data_inside_a_command"
        ),
        pytest.param(
            message(1, WITH_DATA) + p_data(pdv(COMMAND, bytes(8))), [SOPClass.CT], id="fault23-command_for_data"
        ),
        pytest.param(split_response(second_context=3), [SOPClass.CT, VERIFICATION], id="fault23-interleaved"),
    ],
)
async def test_fragments_out_of_order(answer, contexts, autojump_clock):
    (await meet(instead_of_response(answer), contexts=contexts)).check_violation(UnexpectedPDU, 2, 6)


async def test_a_response_in_pieces(autojump_clock):
    assert (await meet(instead_of_response(split_response()))).outcome is STORED


def endless(fragment: bytes):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        for _ in range(100_000):
            await peer.send(p_data(fragment))
            await trio.sleep(0.001)

    return script


@pytest.mark.fault_row(24)
@pytest.mark.parametrize(
    ("fragment", "error", "limit"),
    [
        pytest.param(pdv(COMMAND, bytes(1000)), DIMSEDecodeError, "16384 bytes", id="fault24-bytes"),
        pytest.param(pdv(COMMAND, bytes(2)), DIMSEDecodeError, "256 fragments", id="fault24-fragments"),
        pytest.param(pdv(COMMAND), InvalidPDU, "64 empty", id="fault24-empty"),
    ],
)
async def test_a_command_set_without_end(fragment, error, limit, autojump_clock):
    met = await meet(endless(fragment))
    met.check_violation(error, 2, 6)
    assert limit in met.error.detail
    assert met.seconds < 2


# --- 25 to 29: responses --------------------------------------------------------------------------------------------

INSTANCE = "2.25.1000.1"
ELEMENTS = {
    0x0002: uid(0x0002, SOPClass.CT),
    0x0100: us(0x0100, 0x8001),
    0x0120: us(0x0120, 1),
    0x0800: us(0x0800, 0x0101),
    0x0900: us(0x0900, 0),
    0x1000: uid(0x1000, INSTANCE),
}


def command_set(changes: dict[int, bytes] = {}, *, group_length: int | None = None, tail: bytes = b"") -> bytes:  # noqa: B006
    """A C-STORE-RSP, success, with `changes` to its elements; b"" leaves one out."""
    elements = ELEMENTS | changes
    body = b"".join(elements[element] for element in sorted(elements)) + tail
    return raw(0, struct.pack("<L", len(body) if group_length is None else group_length)) + body


@pytest.mark.fault_row(25, 28)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command_set(), id="as_it_should_be"),
        pytest.param(command_set(group_length=7), id="fault25-wrong_group_length"),
        pytest.param(command_set()[12:], id="fault25-no_group_length"),
        pytest.param(command_set({0x0901: raw(0x0901, b""), 0x5010: raw(0x5010, b"??")}), id="unknown_elements"),
        pytest.param(command_set({0x0002: b"", 0x1000: b""}), id="fault28-no_uids"),
        pytest.param(command_set({0x0002: uid(0x0002, SOPClass.CT, b" ")}), id="fault28-padded_with_space"),
        pytest.param(command_set({0x1000: uid(0x1000, INSTANCE + " ", b"\0")}), id="fault28-padded_with_both"),
        pytest.param(command_set({0x1000: raw(0x1000, b"")}), id="fault28-empty_uid"),
    ],
)
async def test_responses_that_count(command, autojump_clock):
    met = await meet(instead_of_response(message(1, command)))
    assert met.outcome is STORED
    assert met.association.failure is None


BAD = DIMSEDecodeError, (2, 6)
INCOMPLETE = InvalidResponse, (2, 6)
WRONG = InvalidResponse, (0, 0)
OTHER_ID = UnexpectedMessageID, (0, 0)
REQUEST = UnexpectedPDU, (0, 0)


@pytest.mark.fault_row(25, 26, 27, 28, 29, 33)
@pytest.mark.parametrize(
    ("command", "error", "abort"),
    [
        pytest.param(encode_command(CStoreRSP(1, 0))[:-1], *BAD, id="fault25-truncated"),
        pytest.param(b"", *BAD, id="fault25-empty"),
        pytest.param(b"\0\0\0", *BAD, id="fault25-header_cut"),
        pytest.param(command_set(tail=raw(0x1031, b"\1")), *BAD, id="fault25-odd_length"),
        pytest.param(command_set(tail=raw(0x10, b"", group=8)), *BAD, id="fault25-another_group"),
        pytest.param(command_set({0x0900: us(0x0900, 0) * 2}), *BAD, id="fault25-duplicate"),
        pytest.param(command_set(tail=us(0x0110, 1)), *BAD, id="fault25-unsorted"),
        pytest.param(command_set(tail=raw(0x5010, b"", length=0xFFFFFFFF)), *BAD, id="fault25-undefined_length"),
        pytest.param(command_set(tail=raw(0x5010, b"", length=0x7FFFFFFE)), *BAD, id="fault25-huge_length"),
        pytest.param(b"\0\0\0\0UL\4\0\0\0\0\0" + b"\0\0\0\1US\2\0\1\x80", *BAD, id="fault25-explicit_vr"),
        pytest.param(command_set({0x0900: b""}), *INCOMPLETE, id="fault26-no_status"),
        pytest.param(command_set({0x0120: b""}), *INCOMPLETE, id="fault26-no_message_id"),
        pytest.param(command_set({0x0100: b""}), *BAD, id="fault26-no_command_field"),
        pytest.param(command_set({0x0800: b""}), *BAD, id="fault26-no_data_set_type"),
        pytest.param(command_set({0x0900: raw(0x0900, b"")}), *BAD, id="fault26-status_of_0_bytes"),
        pytest.param(command_set({0x0900: raw(0x0900, bytes(4))}), *BAD, id="fault26-status_of_4_bytes"),
        pytest.param(command_set({0x0900: raw(0x0900, b"\0")}), *BAD, id="fault26-status_of_1_byte"),
        pytest.param(command_set({0x0100: us(0x0100, 0x8002)}), *BAD, id="fault26-unknown_command_field"),
        pytest.param(command_set({0x0120: us(0x0120, 2)}), *OTHER_ID, id="fault27-next"),
        pytest.param(command_set({0x0120: us(0x0120, 0)}), *OTHER_ID, id="fault27-zero"),
        pytest.param(command_set({0x0120: us(0x0120, 0xFFFF)}), *OTHER_ID, id="fault27-last"),
        pytest.param(command_set({0x1000: uid(0x1000, "2.25.1000.2")}), *WRONG, id="fault28-other_instance"),
        pytest.param(command_set({0x1000: uid(0x1000, INSTANCE + "1")}), *WRONG, id="fault28-longer_instance"),
        pytest.param(command_set({0x0002: uid(0x0002, SOPClass.CT + ".1")}), *WRONG, id="fault28-other_class"),
        pytest.param(command_set({0x0100: us(0x0100, 0x8030)}), *WRONG, id="fault29-echo_response"),
        pytest.param(command_set({0x0100: us(0x0100, 0x8020)}), *WRONG, id="fault29-find_response"),
        pytest.param(
            encode_command(CStoreRQ(1, SOPClass.CT, INSTANCE, has_data_set=False)), *REQUEST, id="fault29-request"
        ),
        pytest.param(encode_command(NEventReportRQ(1, SOPClass.CT, INSTANCE, 1)), *REQUEST, id="fault29-event_report"),
        pytest.param(command_set({0x0900: us(0x0900, 0xFF00)}), *WRONG, id="fault33-FF00"),
        pytest.param(command_set({0x0900: us(0x0900, 0xFF01)}), *WRONG, id="fault33-FF01"),
        pytest.param(command_set({0x0900: us(0x0900, 0xFE00)}), *WRONG, id="fault33-FE00"),
    ],
)
async def test_responses_that_do_not_count(command, error, abort, autojump_clock):
    met = await meet(instead_of_response(message(1, command)))
    met.check_violation(error, *abort)
    assert met.seconds <= 1.1


@pytest.mark.fault_row(27, 29)
@pytest.mark.parametrize(
    "response",
    [
        pytest.param(CStoreRSP(1, 0), id="fault29-store"),
        pytest.param(CFindRSP(1, 0), id="fault29-find"),
        pytest.param(CEchoRSP(2, 0), id="fault27-other_id"),
        pytest.param(CEchoRSP(1, 0x0110), id="failure"),
        pytest.param(CEchoRSP(1, 0xFF00), id="pending"),
    ],
)
async def test_responses_to_an_echo_that_do_not_count(response, autojump_clock):
    with pytest.raises(InvalidResponse):
        async with scripted_link(instead_of_response(message(1, response)), [VERIFICATION]) as association:
            await association.echo()


@pytest.mark.fault_row(29)
async def test_fault29_the_success_of_an_echo_is_not_that_of_a_store(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=2)
        requests = [await peer.receive_message() for _ in range(2)]
        by_kind = {type(request): request.message_id for _, request, _ in requests}
        await peer.send(message(1, CEchoRSP(by_kind[CStoreRQ], 0)))

    settings = AssociationSettings(operations_window=2)
    results = []

    async def attempt(call, *args):
        with pytest.raises(InvalidResponse) as caught:
            await call(*args)
        results.append(caught.value.in_doubt)

    link = scripted_link(script, [SOPClass.CT, VERIFICATION], settings=settings)
    async with link as association, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, CStoreSCU(association).send, io.BytesIO(make_instance_file()))
        nursery.start_soon(attempt, association.echo)
    assert results == [True, True]


# --- 30 to 32: the right response at the wrong time -----------------------------------------------------------------


@pytest.mark.fault_row(30)
async def test_fault30_a_response_twice_at_once(autojump_clock):
    def twice(context_id, request):
        return success(context_id, request) * 2

    met = await meet(instead_of_response(twice), files=2)
    assert met.outcomes == [STORED, NOT_SENT]
    assert type(met.association.failure) is UnexpectedMessageID
    assert not met.errors[1].in_doubt


@pytest.mark.fault_row(30)
async def test_fault30_a_stale_response_to_the_next_request(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, first, _ = await peer.receive_message()
        await peer.answer(context_id, first)
        await peer.receive_message()
        await peer.answer(context_id, first)
        await peer.answer(context_id, first)

    met = await meet(script, files=3)
    assert met.outcomes == [STORED, IN_DOUBT, NOT_SENT]
    assert [type(error) for error in met.errors] == [type(None), UnexpectedMessageID, UnexpectedMessageID]
    assert [error.in_doubt for error in met.errors[1:]] == [True, False]
    assert met.aborted_with == (0, 0)
    assert not any(isinstance(pdu, CStoreRSP) for pdu in met.pdus)


@pytest.mark.fault_row(30)
async def test_fault30_a_stale_response_with_the_new_message_id(autojump_clock):
    """Its SOP Instance UID gives it away."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, first, _ = await peer.receive_message()
        await peer.answer(context_id, first)
        _, second, _ = await peer.receive_message()
        await peer.answer(context_id, first, message_id_being_responded_to=second.message_id)

    met = await meet(script, files=2)
    assert met.outcomes == [STORED, IN_DOUBT]
    assert type(met.errors[1]) is InvalidResponse


@pytest.mark.fault_row(31)
@pytest.mark.parametrize("wait", [0.0, 1.0], ids=["fault31-with_the_acceptance", "fault31-when_idle"])
async def test_a_response_to_nothing(wait, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await trio.sleep(wait)
        await peer.send(message(1, CStoreRSP(1, 0)))
        assert await peer.receive_pdu() == Abort(0, 0)

    async with scripted_link(script) as association:
        await association.wait_closed()
        assert type(association.failure) is UnexpectedMessageID
        with pytest.raises(UnexpectedMessageID) as caught:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file()))
        assert not caught.value.in_doubt


@pytest.mark.fault_row(31)
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA700, 0xC000])
async def test_fault31_a_response_to_what_is_about_to_be_sent(status, autojump_clock):
    """Not even a refusal counts: the object never went out."""

    async def script(peer: ScriptedPeer) -> None:
        request = CStoreRQ(1, SOPClass.CT, "2.25.1000.1")
        proposal = await peer.receive_pdu()
        await peer.send(acceptance(proposal), message(1, response_to(request, status)))

    met = await meet(script)
    met.check_violation(InvalidResponse, 0, 0, NOT_SENT)
    assert met.data_sets_completed == 0


def early(status: int):
    """A peer that answers after the first PDV of the data set."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request = await peer.receive_command()
        await peer.receive_pdv()
        await peer.answer(context_id, request, status)

    return script


@pytest.mark.fault_row(32)
@BLOCKING
@pytest.mark.parametrize("size", [3 << 19, 5 << 20], ids=["last_part_waiting", "more_to_be_read"])
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007], ids="fault32-{:04X}".format)
async def test_success_before_the_last_pdv_is_none(status, size, streams, autojump_clock):
    met = await meet(early(status), files=2, size=size, streams=streams())
    assert type(met.error) is InvalidResponse
    assert met.error.in_doubt
    assert met.outcomes == [IN_DOUBT, NOT_SENT]
    assert met.data_sets_completed == 0


@pytest.mark.fault_row(32)
@BLOCKING
@pytest.mark.parametrize("status", [0xA700, 0x0122, 0xC001], ids="fault32-{:04X}".format)
async def test_failure_before_the_last_pdv_counts(status, streams, autojump_clock):
    met = await meet(early(status), files=2, size=5 << 20, options=CStoreOptions(max_retries=3), streams=streams())
    assert met.outcomes == [REFUSED, NOT_SENT]
    assert met.reports[0].status == status
    assert met.reports[0].attempts == 1
    assert type(met.association.failure) is AssociationAborted
    assert met.data_sets_completed == 0


# --- 34 to 36 -------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(34)
@pytest.mark.parametrize(
    ("status", "outcome", "retry"),
    [
        pytest.param(0x0000, STORED, Retry.NEVER, id="0000"),
        pytest.param(0xB000, Outcome.STORED_WITH_WARNING, Retry.NEVER, id="B000"),
        pytest.param(0xB006, Outcome.STORED_WITH_WARNING, Retry.NEVER, id="B006"),
        pytest.param(0xB007, Outcome.STORED_WITH_WARNING, Retry.NEVER, id="B007"),
        pytest.param(0x1234, REFUSED, Retry.NEVER, id="fault34-1234"),
        pytest.param(0xFF02, REFUSED, Retry.NEVER, id="fault34-FF02"),
        pytest.param(0xFFFF, REFUSED, Retry.NEVER, id="fault34-FFFF"),
        pytest.param(0x0001, REFUSED, Retry.NEVER, id="fault34-0001"),
        pytest.param(0x0107, REFUSED, Retry.NEVER, id="fault34-0107"),
        pytest.param(0x0116, REFUSED, Retry.NEVER, id="fault34-0116"),
        pytest.param(0xB001, REFUSED, Retry.NEVER, id="fault34-B001"),
        pytest.param(0x0111, Outcome.ALREADY_PRESENT, Retry.NEVER, id="0111"),
        pytest.param(0xA7FF, REFUSED, Retry.LATER, id="A7FF"),
        pytest.param(0xA900, REFUSED, Retry.NEVER, id="A900"),
        pytest.param(0x0124, REFUSED, Retry.AFTER_CONFIG, id="0124"),
    ],
)
async def test_statuses(status, outcome, retry, autojump_clock):
    met = await meet(instead_of_response(lambda number, request: message(number, response_to(request, status))))
    assert met.outcome is outcome
    assert met.reports[0].status == Status(status)
    assert met.reports[0].retry is retry
    assert met.association.failure is None  # a status is no reason to part


@pytest.mark.fault_row(35)
async def test_fault35_a_data_set_that_does_not_come(autojump_clock):
    met = await meet(instead_of_response(message(1, WITH_DATA)))
    assert type(met.error) is OperationTimeout
    assert met.outcome is IN_DOUBT
    assert met.seconds <= 31.1
    assert met.aborted_with == (0, 0)


@pytest.mark.fault_row(35)
async def test_fault35_a_data_set_that_drips(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await peer.send(message(1, WITH_DATA))
        while True:
            await trio.sleep(5)
            await peer.send(p_data(pdv(MORE, bytes(2))))

    met = await meet(script)
    assert type(met.error) is OperationTimeout
    assert met.outcome is IN_DOUBT
    assert met.seconds <= 31.1


@pytest.mark.fault_row(35)
@pytest.mark.parametrize(
    ("size", "outcome"),
    [
        pytest.param(0, STORED, id="fault35-empty"),
        pytest.param(100_000, STORED, id="fault35-within_the_limit"),
        pytest.param(100_002, IN_DOUBT, id="fault35-beyond_the_limit"),
    ],
)
async def test_a_data_set_that_comes(size, outcome, autojump_clock):
    settings = AssociationSettings(limits=Limits(response_data_set=100_000))
    met = await meet(instead_of_response(message(1, WITH_DATA, bytes(size))), settings=settings)
    if outcome is STORED:
        assert met.outcome is STORED
    else:
        met.check_violation(InvalidResponse, 0, 0)


@pytest.mark.fault_row(36)
@pytest.mark.parametrize(
    "comment",
    [
        pytest.param("x" * 1000, id="fault36-long"),
        pytest.param("\x1b[2J\r\nINFO stored", id="fault36-control_characters"),
        pytest.param("pas de place: \xe9\xff", id="fault36-8_bit"),
    ],
)
async def test_error_comments(comment, autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "trio_dicom")

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, 0xC000, error_comment=comment)

    async with scripted_link(script) as association:
        response = await CStoreSCU(association).send(io.BytesIO(make_instance_file()))
    assert response.error_comment == comment
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    assert comment not in f"{caplog.text} {caught.value}"
