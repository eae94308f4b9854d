"""The seven PDUs: what is written is read again; what the peer gets wrong ends in a documented error."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_dicom.errors import InvalidPDU, UnrecognisedPDU
from trio_dicom.protocol import user_information as ui
from trio_dicom.protocol.pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ContextResult,
    PDataTF,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
)
from trio_dicom.settings import Limits
from trio_dicom.uids import (
    APPLICATION_CONTEXT,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)

LIMITS = Limits()


def encode(pdu: PDU) -> bytes:
    return b"".join(pdu.encode())


def decode(raw: bytes, limits: Limits = LIMITS) -> PDU:
    return decode_pdu(raw[0], memoryview(raw)[6:], limits)


# --- what is written is read again ----------------------------------------------------------------------------------

uids = st.lists(st.integers(0, 10**6), min_size=1, max_size=8).map(lambda parts: ".".join(map(str, parts)))
ae_titles = st.text(st.characters(max_codepoint=0xFF), max_size=16).map(lambda title: title.strip(" "))
octets = st.integers(0, 255)
syntaxes = st.lists(uids, min_size=1, max_size=4).map(tuple)
user_information = st.sampled_from(
    [
        (),
        (ui.MaximumLength(16384),),
        (ui.MaximumLength(0), ui.ImplementationClassUID("1.2.3"), ui.ImplementationVersionName("X_1")),
        (ui.AsynchronousOperationsWindow(0, 1), ui.RoleSelection("1.2", True, True), ui.UnknownItem(0x5A, b"?")),
    ]
)
contexts_rq = st.lists(
    st.builds(PresentationContextRQ, st.integers(0, 127).map(lambda n: 2 * n + 1), uids, syntaxes),
    min_size=1,
    max_size=5,
    unique_by=lambda context: context.context_id,
).map(tuple)
contexts_ac = st.lists(
    st.builds(PresentationContextAC, octets, octets, st.lists(uids, max_size=2).map(tuple)), max_size=5
).map(tuple)
pdvs = st.builds(PDV, octets, st.booleans(), st.booleans(), st.binary(max_size=50))
versions = st.integers(0, 0xFFFF)

pdus = st.one_of(
    st.builds(AssociateRQ, ae_titles, ae_titles, contexts_rq, user_information, uids, versions),
    st.builds(AssociateAC, ae_titles, ae_titles, contexts_ac, user_information, uids, versions),
    st.builds(AssociateRJ, octets, octets, octets),
    st.builds(PDataTF, st.lists(pdvs, min_size=1, max_size=4).map(tuple)),
    st.just(ReleaseRQ()),
    st.just(ReleaseRP()),
    st.builds(Abort, octets, octets),
)


@given(pdus)
def test_pdus_come_back_as_they_were_written(pdu: PDU) -> None:
    raw = encode(pdu)
    assert raw[0] == pdu.pdu_type
    assert int.from_bytes(raw[2:6], "big") == len(raw) - 6
    assert decode(raw) == pdu


@pytest.mark.parametrize(
    ("pdu", "raw"),
    [
        (AssociateRJ(1, 1, 7), "03 00 00000004 00 01 01 07"),
        (ReleaseRQ(), "05 00 00000004 00000000"),
        (ReleaseRP(), "06 00 00000004 00000000"),
        (Abort(2, 6), "07 00 00000004 00 00 02 06"),
        (Abort(), "07 00 00000004 00000000"),
        (PDataTF((PDV(1, True, True, b"ab"),)), "04 00 00000008 00000004 01 03 6162"),
        (
            PDataTF((PDV(1, True, False, b"ab"), PDV(3, False, True, b"c"))),
            "04 00 0000000f 00000004 01 01 6162 00000003 03 02 63",
        ),
        (PDataTF(()), ""),
        (
            AssociateRQ(
                "CALLED", "CALLING", (PresentationContextRQ(1, "1.2", ("1.3", "1.4")),), (ui.MaximumLength(8),), "1.5"
            ),
            "01 00 00000074 0001 0000 43414c4c4544" + "20" * 10 + "43414c4c494e47" + "20" * 9 + "00" * 32 +
            "10000003 312e35"
            "20000019 01000000 30000003 312e32 40000003 312e33 40000003 312e34"
            "50000008 51000004 00000008",
        ),
        (
            AssociateAC("A", "B", (PresentationContextAC(1, 0, ("1.3",)),), (), "1.5"),
            "02 00 0000005e 0001 0000 41" + "20" * 15 + "42" + "20" * 15 + "00" * 32 +
            "10000003 312e35"
            "2100000b 01000000 40000003 312e33"
            "50000000",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)  # fmt: skip
def test_pdus_look_on_the_wire_as_the_standard_draws_them(pdu: PDU, raw: str) -> None:
    assert encode(pdu) == bytes.fromhex(raw)


def test_payload_is_neither_copied_when_written_nor_when_read() -> None:
    payload = bytearray(b"pixels")
    buffers = PDataTF((PDV(1, False, True, payload),)).encode()
    assert buffers[1] is payload

    raw = b"".join(buffers)
    pdu = decode(raw)
    assert isinstance(pdu, PDataTF)
    (pdv,) = pdu.pdvs
    assert isinstance(pdv.data, memoryview)
    assert pdv.data.obj is raw


def test_payload_does_not_show() -> None:
    assert "Doe^Jane" not in repr(PDataTF((PDV(1, False, True, b"Doe^Jane"),)))


@pytest.mark.parametrize(
    ("called", "calling"), [("A" * 17, "B"), ("A", "B" * 17), ("\u0416", "B")], ids=["called", "calling", "cyrillic"]
)
def test_a_title_that_does_not_fit_is_not_written(called: str, calling: str) -> None:
    with pytest.raises(ValueError, match=r"at most 16|latin-1"):
        AssociateRQ(called, calling, (), ()).encode()


@pytest.mark.parametrize(
    ("rejection", "text"),
    [
        (AssociateRJ(1, 1, 1), "no reason given"),
        (AssociateRJ(1, 1, 2), "application context name not supported"),
        (AssociateRJ(1, 1, 3), "calling AE title not recognised"),
        (AssociateRJ(1, 1, 7), "called AE title not recognised"),
        (AssociateRJ(2, 2, 1), "no reason given by the service provider"),
        (AssociateRJ(1, 2, 2), "protocol version not supported"),
        (AssociateRJ(2, 3, 1), "temporary congestion"),
        (AssociateRJ(2, 3, 2), "local limit exceeded"),
        (AssociateRJ(1, 1, 4), "result 1, source 1, reason 4"),
        (AssociateRJ(0, 1, 1), "result 0, source 1, reason 1"),
        (AssociateRJ(255, 255, 255), "result 255, source 255, reason 255"),
    ],
)
def test_a_rejection_says_what_it_means(rejection: AssociateRJ, text: str) -> None:
    assert rejection.text == text


# --- what is let pass -----------------------------------------------------------------------------------------------


def item(item_type: int, *values: bytes) -> bytes:
    return ui.encode_item(item_type, b"".join(values))


def associate(pdu_type: int, *items: bytes, called: bytes = b"PACS".ljust(16), version: int = 1) -> bytes:
    body = version.to_bytes(2, "big") + bytes(2) + called + b"MODALITY".ljust(16) + bytes(32) + b"".join(items)
    return bytes((pdu_type, 0)) + len(body).to_bytes(4, "big") + body


APPLICATION_ITEM = item(0x10, APPLICATION_CONTEXT.encode())
ABSTRACT_ITEM = item(0x30, VERIFICATION.encode())
TRANSFER_ITEM = item(0x40, IMPLICIT_VR_LITTLE_ENDIAN.encode())
CONTEXT_RQ = item(0x20, b"\1\0\0\0", ABSTRACT_ITEM, TRANSFER_ITEM)
CONTEXT_AC = item(0x21, b"\1\0\0\0", TRANSFER_ITEM)
USER_ITEM = item(0x50, ui.MaximumLength(16384).encode())


def test_an_acceptance_built_by_hand_is_read() -> None:
    assert decode(associate(2, APPLICATION_ITEM, CONTEXT_AC, USER_ITEM)) == AssociateAC(
        "PACS", "MODALITY", (PresentationContextAC(1, 0, (IMPLICIT_VR_LITTLE_ENDIAN,)),), (ui.MaximumLength(16384),)
    )


@pytest.mark.fault_row(9)
def test_fault09_reserved_bytes_titles_and_unknown_items_of_an_acceptance_are_not_tested() -> None:
    raw = bytearray(
        associate(2, APPLICATION_ITEM, CONTEXT_AC, item(0x5F, b"?"), item(0x50), called=b"\xff\0\x1b" * 5 + b" ")
    )
    for reserved in (1, 8, 9, *range(42, 74)):
        raw[reserved] = 0xFF
    context = raw.index(CONTEXT_AC)
    for reserved in (1, 5, 7):
        raw[context + reserved] = 0xFF
    pdu = decode(bytes(raw))
    assert isinstance(pdu, AssociateAC)
    assert pdu.called_ae_title == "\xff\0\x1b" * 5
    assert pdu.presentation_contexts == (PresentationContextAC(1, 0, (IMPLICIT_VR_LITTLE_ENDIAN,)),)


def test_reserved_bytes_of_a_request_are_not_tested() -> None:
    raw = bytearray(associate(1, APPLICATION_ITEM, CONTEXT_RQ, USER_ITEM))
    context = raw.index(CONTEXT_RQ)
    for reserved in (1, 8, 9, *range(42, 74), context + 1, context + 5, context + 6, context + 7):
        raw[reserved] = 0xFF
    assert decode(bytes(raw)) == decode(associate(1, APPLICATION_ITEM, CONTEXT_RQ, USER_ITEM))


def test_unknown_items_in_a_context_are_skipped() -> None:
    context = item(0x20, b"\1\0\0\0", item(0x77, b"new"), ABSTRACT_ITEM, TRANSFER_ITEM)
    pdu = decode(associate(1, APPLICATION_ITEM, context))
    assert isinstance(pdu, AssociateRQ)
    assert pdu.presentation_contexts == (PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),)


@pytest.mark.fault_row(10)
@pytest.mark.parametrize("user_items", [(), (item(0x50),)], ids=["no-item", "fault10-no-maximum-length"])
def test_user_information_may_be_missing(user_items: tuple[bytes, ...]) -> None:
    pdu = decode(associate(2, APPLICATION_ITEM, CONTEXT_AC, *user_items))
    assert isinstance(pdu, AssociateAC)
    assert pdu.user_information == ()


@pytest.mark.fault_row(10, 11, 12)
@pytest.mark.parametrize("length", [0, 1, 7, 0xFFFFFFFF], ids=["fault10-0", "fault11-1", "fault11-7", "fault12"])
def test_any_maximum_length_is_read_and_nothing_is_allocated_for_it(length: int) -> None:
    pdu = decode(associate(2, APPLICATION_ITEM, CONTEXT_AC, item(0x50, ui.MaximumLength(length).encode())))
    assert isinstance(pdu, AssociateAC)
    assert pdu.user_information == (ui.MaximumLength(length),)


@pytest.mark.fault_row(13)
def test_fault13_another_application_context_is_for_the_negotiation_to_judge() -> None:
    pdu = decode(associate(2, item(0x10, b"1.2.3"), CONTEXT_AC, USER_ITEM))
    assert isinstance(pdu, AssociateAC)
    assert pdu.application_context == "1.2.3"


@pytest.mark.fault_row(63)
def test_fault63_another_protocol_version_is_for_the_state_machine_to_judge() -> None:
    pdu = decode(associate(1, APPLICATION_ITEM, CONTEXT_RQ, USER_ITEM, version=2))
    assert isinstance(pdu, AssociateRQ)
    assert pdu.protocol_version == 2


@pytest.mark.fault_row(5)
def test_fault05_context_ids_of_an_acceptance_are_for_the_negotiation_to_judge() -> None:
    answers = [item(0x21, bytes((context_id, 0, 0, 0)), TRANSFER_ITEM) for context_id in (0, 2, 255, 255)]
    pdu = decode(associate(2, APPLICATION_ITEM, *answers, USER_ITEM))
    assert isinstance(pdu, AssociateAC)
    assert [context.context_id for context in pdu.presentation_contexts] == [0, 2, 255, 255]


@pytest.mark.fault_row(6)
def test_fault06_transfer_syntaxes_of_an_acceptance_are_kept_as_they_came() -> None:
    explicit = item(0x40, EXPLICIT_VR_LITTLE_ENDIAN.encode())
    answers = [item(0x21, b"\1\0\0\0", *syntaxes) for syntaxes in ((), (TRANSFER_ITEM,), (TRANSFER_ITEM, explicit))]
    pdu = decode(associate(2, APPLICATION_ITEM, *answers, USER_ITEM))
    assert isinstance(pdu, AssociateAC)
    assert [context.transfer_syntaxes for context in pdu.presentation_contexts] == [
        (),
        (IMPLICIT_VR_LITTLE_ENDIAN,),
        (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
    ]


@pytest.mark.fault_row(6)
@pytest.mark.parametrize("rest", [b"", b"\x40", b"\x40\0\0\0", b"\x40\0\0\5x", b"\x40\0\0\1x"])
@pytest.mark.parametrize("result", [1, 2, 3, 4, 255])
def test_fault06_transfer_syntaxes_of_a_rejected_context_are_not_significant(result: int, rest: bytes) -> None:
    pdu = decode(associate(2, APPLICATION_ITEM, item(0x21, bytes((1, 0, result, 0)), rest), USER_ITEM))
    assert isinstance(pdu, AssociateAC)
    assert pdu.presentation_contexts == (PresentationContextAC(1, result, ()),)


def test_results_are_those_of_the_standard() -> None:
    assert [result.value for result in ContextResult] == [0, 1, 2, 3, 4]


@pytest.mark.fault_row(68)
def test_fault68_128_contexts_are_read() -> None:
    contexts = [item(0x20, bytes((n, 0, 0, 0)), ABSTRACT_ITEM, TRANSFER_ITEM) for n in range(1, 256, 2)]
    pdu = decode(associate(1, APPLICATION_ITEM, *contexts, USER_ITEM))
    assert isinstance(pdu, AssociateRQ)
    assert [context.context_id for context in pdu.presentation_contexts] == list(range(1, 256, 2))


@pytest.mark.fault_row(22)
@pytest.mark.parametrize("control", range(256))
def test_fault22_reserved_bits_of_the_control_header_are_ignored(control: int) -> None:
    pdu = decode(bytes.fromhex("04 00 00000008 00000004 01") + bytes((control,)) + b"ab")
    assert pdu == PDataTF((PDV(1, bool(control & 1), bool(control & 2), b"ab"),))


# --- what is refused ------------------------------------------------------------------------------------------------


def assert_refused(raw: bytes, limits: Limits = LIMITS) -> str:
    """What it says."""
    with pytest.raises(InvalidPDU) as caught:
        decode(raw, limits)
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)
    return str(caught.value)


def context_rq(*parts: bytes) -> bytes:
    return associate(1, APPLICATION_ITEM, item(0x20, *parts), USER_ITEM)


def context_ac(*parts: bytes) -> bytes:
    return associate(2, APPLICATION_ITEM, item(0x21, *parts), USER_ITEM)


REFUSED = {
    "fault14-item-past-the-pdu": associate(2, APPLICATION_ITEM, CONTEXT_AC, b"\x50\0\0\x09" + bytes(8)),
    "fault14-item-of-65535": associate(2, APPLICATION_ITEM, b"\x21\0\xff\xff" + bytes(8)),
    "fault14-half-an-item-header": associate(2, APPLICATION_ITEM, CONTEXT_AC, USER_ITEM, b"\x50\0\0"),
    "fault14-sub-item-past-the-item": context_ac(b"\1\0\0\0", b"\x40\0\0\x20", b"1.2.840.10008.1.2"),
    "fault14-empty-uid": context_ac(b"\1\0\0\0", item(0x40)),
    "fault14-uid-of-padding": context_ac(b"\1\0\0\0", item(0x40, b"\0 \0")),
    "fault14-uid-of-65": context_ac(b"\1\0\0\0", item(0x40, b"1" * 65)),
    "fault14-uid-not-ascii": context_ac(b"\1\0\0\0", item(0x40, "1.2.\u0663".encode())),
    "fault14-user-item-past-its-item": associate(
        2, APPLICATION_ITEM, CONTEXT_AC, item(0x50, b"\x51\0\0\x05" + bytes(4))
    ),
    "ac-context-of-3-bytes": context_ac(b"\1\0\0"),
    "ac-without-application-context": associate(2, CONTEXT_AC, USER_ITEM),
    "ac-with-two-application-contexts": associate(2, APPLICATION_ITEM, APPLICATION_ITEM, CONTEXT_AC, USER_ITEM),
    "ac-application-context-is-no-uid": associate(2, item(0x10, b"DICOM"), CONTEXT_AC, USER_ITEM),
    "ac-two-user-information-items": associate(2, APPLICATION_ITEM, CONTEXT_AC, USER_ITEM, USER_ITEM),
    "rq-without-application-context": associate(1, CONTEXT_RQ, USER_ITEM),
    "rq-two-user-information-items": associate(1, APPLICATION_ITEM, CONTEXT_RQ, USER_ITEM, USER_ITEM),
    "fault68-no-contexts": associate(1, APPLICATION_ITEM, USER_ITEM),
    "fault68-129-contexts": associate(
        1,
        APPLICATION_ITEM,
        *(item(0x20, bytes((n % 256, 0, 0, 0)), ABSTRACT_ITEM, TRANSFER_ITEM) for n in range(1, 258, 2)),
    ),
    "fault68-id-0": context_rq(b"\0\0\0\0", ABSTRACT_ITEM, TRANSFER_ITEM),
    "fault68-id-even": context_rq(b"\2\0\0\0", ABSTRACT_ITEM, TRANSFER_ITEM),
    "fault68-id-twice": associate(1, APPLICATION_ITEM, CONTEXT_RQ, CONTEXT_RQ, USER_ITEM),
    "fault68-no-abstract-syntax": context_rq(b"\1\0\0\0", TRANSFER_ITEM),
    "fault68-two-abstract-syntaxes": context_rq(b"\1\0\0\0", ABSTRACT_ITEM, ABSTRACT_ITEM, TRANSFER_ITEM),
    "fault68-no-transfer-syntax": context_rq(b"\1\0\0\0", ABSTRACT_ITEM),
    "fault68-empty-context": context_rq(),
    "fault69-sub-items-that-declare-65535": context_rq(b"\1\0\0\0", ABSTRACT_ITEM, b"\x40\0\xff\xff" * 16_000),
    "fault69-sub-items-of-nothing": context_rq(b"\1\0\0\0", ABSTRACT_ITEM, b"\x40\0\0\0" * 16_000),
    "129-transfer-syntaxes": context_rq(b"\1\0\0\0", ABSTRACT_ITEM, TRANSFER_ITEM * 129),
    "fault70-two-maximum-lengths": associate(
        1, APPLICATION_ITEM, CONTEXT_RQ, item(0x50, ui.MaximumLength(1).encode(), ui.MaximumLength(2).encode())
    ),
    "fault20-pdv-length-0": bytes.fromhex("04 00 00000006 00000000 01 03"),
    "fault20-pdv-length-1": bytes.fromhex("04 00 00000006 00000001 01 03"),
    "fault20-pdv-length-too-large": bytes.fromhex("04 00 00000008 00000005 01 03 6162"),
    "fault20-pdv-length-of-4-gib": bytes.fromhex("04 00 00000008 ffffffff 01 03 6162"),
    "fault20-residue-1": bytes.fromhex("04 00 00000009 00000004 01 03 6162 00"),
    "fault20-residue-2": bytes.fromhex("04 00 0000000a 00000004 01 03 6162 0000"),
    "fault20-residue-3": bytes.fromhex("04 00 0000000b 00000004 01 03 6162 000000"),
    "fault20-residue-4": bytes.fromhex("04 00 0000000c 00000004 01 03 6162 00000000"),
    "fault20-residue-5": bytes.fromhex("04 00 0000000d 00000004 01 03 6162 00000001 01"),
    "fault15-p-data-of-nothing": bytes.fromhex("04 00 00000000"),
    "fault62-rq-of-67": associate(1)[:-1],
    "fault62-ac-of-67": associate(2)[:-1],
    "fault62-rq-above-the-limit": associate(1, bytes(LIMITS.pdu_length - 67)),
    **{
        f"fault16-type-{pdu_type:02X}-of-{length}": bytes((pdu_type, 0, 0, 0, 0, length)) + bytes(length)
        for pdu_type in (3, 5, 6, 7)
        for length in (0, 3, 5)
    },
}


@pytest.mark.fault_row(14, 15, 16, 20, 62, 68, 69, 70)
@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_what_the_standard_does_not_have_is_refused(raw: bytes) -> None:
    assert_refused(raw)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("fault14-half-an-item-header", "3 bytes are left over after the last item"),
        (
            "fault14-sub-item-past-the-item",
            "item 40H of answered presentation context 1 declares 32 bytes where 17 are",
        ),
        ("ac-context-of-3-bytes", "a presentation context item has 3 bytes, and needs 4"),
        ("fault68-two-abstract-syntaxes", "proposed presentation context 1 has 2 abstract syntaxes"),
        ("fault20-residue-3", "3 bytes left"),
        ("fault20-pdv-length-too-large", "a PDV declares 5 bytes where 2 to 4 can be"),
        ("fault16-type-03-of-5", "A-ASSOCIATE-RJ cannot have 5 bytes (4 to 4)"),
        ("fault62-rq-above-the-limit", f"cannot have {LIMITS.pdu_length + 1} bytes (68 to {LIMITS.pdu_length})"),
    ],
)
def test_what_is_refused_is_counted_right(name: str, counts: str) -> None:
    assert counts in assert_refused(REFUSED[name])


@pytest.mark.fault_row(17)
@pytest.mark.parametrize("pdu_type", [0x00, 0x08, 0x15, 0xFF])
def test_fault17_an_unknown_type_is_refused(pdu_type: int) -> None:
    with pytest.raises(UnrecognisedPDU) as caught:
        decode(bytes((pdu_type, 0, 0, 0, 0, 4)) + bytes(4))
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 1)


def test_limits_are_settings() -> None:
    limits = Limits(transfer_syntaxes=2, pdu_length=4096)
    decode(context_rq(b"\1\0\0\0", ABSTRACT_ITEM, TRANSFER_ITEM * 2), limits)
    assert_refused(context_rq(b"\1\0\0\0", ABSTRACT_ITEM, TRANSFER_ITEM * 3), limits)
    assert_refused(encode(PDataTF((PDV(1, False, True, bytes(4096)),))), limits)


@pytest.mark.fault_row(69)
@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("fault69")])
def test_fault69_memory_is_bounded_by_the_bytes_received(name: str) -> None:
    raw = REFUSED[name]
    tracemalloc.start()
    try:
        assert_refused(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(raw)


# --- every truncation and every mutation of a byte ------------------------------------------------------------------

EXAMPLES = {
    "request": AssociateRQ(
        "PACS", "ME", (PresentationContextRQ(1, "1.2", ("1.3", "1.4")),), (ui.MaximumLength(8),), "1.5"
    ),
    "request-of-two": AssociateRQ(
        "A", "B", (PresentationContextRQ(1, "1.2", ("1.3",)), PresentationContextRQ(3, "1.6", ("1.3",))), (), "1.5"
    ),
    "request-with-roles-and-identity": AssociateRQ(
        "A",
        "B",
        (PresentationContextRQ(1, "1.2", ("1.3",)),),
        (ui.RoleSelection("1.2", True, True), ui.UserIdentityRQ(2, True, b"me", b"pw")),
        "1.5",
    ),
    "request-with-extended-negotiation": AssociateRQ(
        "A",
        "B",
        (PresentationContextRQ(1, "1.2", ("1.3",)),),
        (ui.SOPClassExtendedNegotiation("1.2", b"\1"), ui.SOPClassCommonExtendedNegotiation("1.2", "1.7", ("1.8",))),
        "1.5",
    ),
    "acceptance": AssociateAC("PACS", "ME", (PresentationContextAC(1, 0, ("1.3",)),), (ui.MaximumLength(8),), "1.5"),
    "acceptance-of-one-of-two": AssociateAC(
        "A",
        "B",
        (PresentationContextAC(1, 0, ("1.3",)), PresentationContextAC(3, 3, ())),
        (ui.AsynchronousOperationsWindow(8, 1), ui.UserIdentityAC(b"ok")),
        "1.5",
    ),
    "acceptance-with-names": AssociateAC(
        "A",
        "B",
        (),
        (ui.ImplementationClassUID("1.9"), ui.ImplementationVersionName("X"), ui.UnknownItem(0x5A, b"?")),
        "1.5",
    ),
    "rejection": AssociateRJ(1, 1, 7),
    "data": PDataTF((PDV(1, False, False, b"pixels"),)),
    "data-of-three": PDataTF((PDV(1, True, True, b"abcd"), PDV(1, False, False, b""), PDV(1, False, True, b"ef"))),
    "release-request": ReleaseRQ(),
    "release-response": ReleaseRP(),
    "abort": Abort(2, 6),
}


@pytest.mark.fault_row(14)
@pytest.mark.parametrize("pdu", EXAMPLES.values(), ids=EXAMPLES)
def test_a_truncated_pdu_is_refused_or_read(pdu: PDU) -> None:
    raw = encode(pdu)
    for end in range(6, len(raw)):
        try:
            shorter = decode(raw[:end])
        except InvalidPDU:
            continue
        # It ended where an optional item or a PDV ends, and is as good a PDU as any.
        assert isinstance(pdu, AssociateRQ | AssociateAC | PDataTF)
        assert decode(encode(shorter)) == shorter


@pytest.mark.fault_row(14)
@pytest.mark.parametrize("pdu", EXAMPLES.values(), ids=EXAMPLES)
def test_a_pdu_with_one_wrong_byte_is_refused_or_read(pdu: PDU) -> None:
    raw = encode(pdu)
    for at in range(len(raw)):
        mutant = bytearray(raw)
        for value in range(256):
            mutant[at] = value
            try:
                read = decode_pdu(mutant[0], memoryview(mutant)[6:], LIMITS)
            except (InvalidPDU, UnrecognisedPDU):
                assert value != raw[at]
            else:
                assert type(read) is type(pdu) or at == 0


@given(st.integers(0, 9), st.binary(max_size=200))
def test_noise_is_refused_or_read(pdu_type: int, body: bytes) -> None:
    try:
        decode_pdu(pdu_type, memoryview(body), LIMITS)
    except (InvalidPDU, UnrecognisedPDU):
        pass


@given(st.sampled_from([1, 2]), st.binary(max_size=80))
def test_noise_behind_the_fixed_part_is_refused_or_read(pdu_type: int, rest: bytes) -> None:
    try:
        pdu = decode(associate(pdu_type, APPLICATION_ITEM, rest))
    except InvalidPDU:
        return
    assert decode(encode(pdu)) == pdu


@pytest.mark.fault_row(69)
@pytest.mark.parametrize("count", [1024, 1025])
def test_fault69_more_items_than_there_can_be(count: int) -> None:
    contexts = (PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),)
    raw = encode(AssociateRQ("PACS", "ME", contexts, ()))  # three items: application context, this, user information
    raw += b"\x77\0\0\0" * (count - 3)
    raw = raw[:2] + (len(raw) - 6).to_bytes(4, "big") + raw[6:]
    if count == 1024:
        assert isinstance(decode(raw), AssociateRQ)
    else:
        assert "more than 1024 items" in assert_refused(raw)


def test_more_pdvs_in_a_pdu_than_the_limit() -> None:
    pdvs = tuple(PDV(1, False, False, b"") for _ in range(3))
    assert decode(encode(PDataTF(pdvs)), Limits(pdvs=3)) == PDataTF(pdvs)
    with pytest.raises(InvalidPDU, match="more than 2 PDVs"):
        decode(encode(PDataTF(pdvs)), Limits(pdvs=2))
