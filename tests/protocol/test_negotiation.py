"""Negotiation: what is proposed, what an answer makes of it, and what an acceptor answers."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import pytest
from pydicom.uid import UID

from trio_dicom._version import __version__
from trio_dicom.errors import IdentityNotConfirmed, InvalidPDU, NoPresentationContext, PeerLimitUnusable
from trio_dicom.protocol.negotiation import (
    ANY_TRANSFER_SYNTAX,
    AcceptedContext,
    Negotiated,
    PresentationContext,
    RejectedContext,
    answer,
    as_presentation_contexts,
    conclude,
    propose,
    rejection,
)
from trio_dicom.protocol.pdu import (
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PresentationContextAC,
    PresentationContextRQ,
    decode_pdu,
)
from trio_dicom.protocol.user_information import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentityAC,
    UserIdentityRQ,
    UserItem,
)
from trio_dicom.settings import AssociationSettings, Limits, Role, UserIdentity, UserIdentityType
from trio_dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"
DEFAULTS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
SETTINGS = AssociationSettings()


def request(
    settings: AssociationSettings = SETTINGS, contexts: Iterable[PresentationContext | str] = (CT, MR)
) -> AssociateRQ:
    return propose(contexts, "PACS", settings)


def reply(*contexts: PresentationContextAC, items: Iterable[UserItem] = ()) -> AssociateAC:
    return AssociateAC("PACS", "TRIO_DICOM", contexts, tuple(items))


def accept(context_id: int = 1, transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> PresentationContextAC:
    return PresentationContextAC(context_id, 0, (transfer_syntax,))


def concluded(*items: UserItem, settings: AssociationSettings = SETTINGS) -> Negotiated:
    return conclude(request(settings), reply(accept(), items=items), settings)


# --- presentation contexts


def test_a_context_holds_plain_strings_once_each() -> None:
    context = PresentationContext(UID(CT), [UID(JPEG), EXPLICIT_VR_LITTLE_ENDIAN, JPEG])
    assert context == PresentationContext(CT, (JPEG, EXPLICIT_VR_LITTLE_ENDIAN))
    assert type(context.abstract_syntax) is str
    assert [type(uid) for uid in context.transfer_syntaxes] == [str, str]
    assert PresentationContext(CT).transfer_syntaxes == DEFAULTS
    assert PresentationContext(CT, JPEG) == PresentationContext(CT, [JPEG])


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntaxes", "message"),
    [
        ("CT", DEFAULTS, "not a UID: 'CT'"),
        ("1." * 33, DEFAULTS, "not a UID"),
        (CT, ["1.2", ""], "not a UID: ''"),
        (CT, [], "at least one transfer syntax"),
    ],
)
def test_a_context_that_cannot_be_proposed(abstract_syntax: str, transfer_syntaxes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PresentationContext(abstract_syntax, transfer_syntaxes)


def test_contexts_from_uids_and_contexts() -> None:
    jpeg = PresentationContext(CT, [JPEG])
    assert as_presentation_contexts([CT, jpeg, UID(CT), jpeg]) == (PresentationContext(CT), jpeg)


@pytest.mark.parametrize("count", [0, 129])
def test_an_association_has_1_to_128_contexts(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 128 presentation contexts, not {count}"):
        as_presentation_contexts(f"1.2.{number}" for number in range(count))


def test_one_uid_is_no_list_of_contexts() -> None:
    with pytest.raises(TypeError, match=r"write \['1.2.3'\]"):
        as_presentation_contexts("1.2.3")


# --- proposing


def test_a_plain_proposal() -> None:
    proposal = request()
    assert (proposal.called_ae_title, proposal.calling_ae_title) == ("PACS", "TRIO_DICOM")
    assert proposal.presentation_contexts == (
        PresentationContextRQ(1, CT, DEFAULTS),
        PresentationContextRQ(3, MR, DEFAULTS),
    )
    length, implementation, version = proposal.user_information
    assert length == MaximumLength(131_072)
    assert implementation == ImplementationClassUID(IMPLEMENTATION_CLASS_UID)
    assert isinstance(version, ImplementationVersionName)
    assert len(version.name) == min(16, len(full := f"TRIO_DICOM_{__version__}"))
    assert full.startswith(version.name)
    assert rejection(proposal) is None


def test_a_full_proposal_in_order_of_the_items_and_back_from_its_bytes() -> None:
    settings = AssociationSettings(
        operations_window=8,
        roles={CT: Role(scp=True), VERIFICATION: Role()},
        extended_negotiation={MR: b"\1", VERIFICATION: b"\2"},
        user_identity=UserIdentity(
            type=UserIdentityType.USERNAME_PASSCODE, primary=b"me", secondary=b"pw", positive_response=True
        ),
    )
    proposal = request(settings)
    types = [item.item_type for item in proposal.user_information]
    assert types == [0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x58]
    assert RoleSelection(CT, True, True) in proposal.user_information
    assert AsynchronousOperationsWindow(8, 1) in proposal.user_information
    assert UserIdentityRQ(2, True, b"me", b"pw") in proposal.user_information
    (encoded,) = proposal.encode()
    assert decode_pdu(1, memoryview(encoded)[6:], Limits()) == proposal


def test_128_contexts_have_the_odd_ids() -> None:
    proposal = request(contexts=[f"1.2.{number}" for number in range(128)])
    assert [context.context_id for context in proposal.presentation_contexts] == list(range(1, 256, 2))


# --- concluding


@pytest.mark.fault_row(8)
def test_fault8_what_the_answer_omits_is_rejected() -> None:
    negotiated = conclude(request(), reply(accept(3, IMPLICIT_VR_LITTLE_ENDIAN)), SETTINGS)
    assert negotiated.accepted == {3: AcceptedContext(3, MR, IMPLICIT_VR_LITTLE_ENDIAN)}
    assert negotiated.rejected == (RejectedContext(CT, DEFAULTS, 2),)
    assert negotiated.contexts_for(MR) == (negotiated.accepted[3],)
    assert negotiated.contexts_for(CT) == ()


@pytest.mark.fault_row(7)
def test_fault7_nothing_accepted_is_no_violation() -> None:
    answers = [PresentationContextAC(1, 3, ()), PresentationContextAC(3, 99, (JPEG, CT))]
    negotiated = conclude(request(), reply(*answers), SETTINGS)
    assert negotiated.accepted == {}
    assert [context.result for context in negotiated.rejected] == [3, 99]


@pytest.mark.fault_row(5)
@pytest.mark.parametrize("answers", [[accept(5)], [accept(2)], [accept(0)], [accept(1), accept(3), accept(1)]])
def test_fault5_an_answer_to_what_was_not_asked(answers: list[PresentationContextAC]) -> None:
    with pytest.raises(InvalidPDU, match="answer") as caught:
        conclude(request(), reply(*answers), SETTINGS)
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)


@pytest.mark.fault_row(6)
@pytest.mark.parametrize("transfer_syntaxes", [(), (JPEG,), DEFAULTS])
def test_fault6_an_acceptance_without_one_proposed_transfer_syntax(transfer_syntaxes: tuple[str, ...]) -> None:
    answers = [PresentationContextAC(1, 0, transfer_syntaxes), accept(3)]
    negotiated = conclude(request(), reply(*answers), SETTINGS)
    assert list(negotiated.accepted) == [3]
    assert negotiated.rejected == (RejectedContext(CT, DEFAULTS, 2),)


@pytest.mark.fault_row(9, 13)
def test_fault9_fault13_what_is_not_tested() -> None:
    response = AssociateAC("", "OTHER", (accept(),), (UnknownItem(0x99, b"?"),), application_context="1.2.3")
    assert list(conclude(request(), response, SETTINGS).accepted) == [1]


@pytest.mark.parametrize("length", [0, 8, 16_384, 0xFFFF_FFFF])
def test_the_peers_maximum_length(length: int) -> None:
    assert concluded(MaximumLength(length)).peer_max_pdu_length == length


@pytest.mark.fault_row(10)
def test_fault10_no_maximum_length_is_no_limit() -> None:
    assert concluded().peer_max_pdu_length == 0


@pytest.mark.fault_row(11)
@pytest.mark.parametrize("length", range(1, 8))
def test_fault11_a_maximum_length_without_room(length: int) -> None:
    with pytest.raises(PeerLimitUnusable, match=f"of {length} "):
        concluded(MaximumLength(length))
    with pytest.raises(PeerLimitUnusable):
        answer(attrs.evolve(request(), user_information=(MaximumLength(length),)), {}, SETTINGS)


@pytest.mark.fault_row(51)
@pytest.mark.parametrize(
    ("proposed", "answered", "window"),
    [
        pytest.param(1, None, 1, id="fault51-nothing-said"),
        pytest.param(1, 0, 1, id="fault51-more-than-the-default"),
        pytest.param(8, None, 1, id="fault51-absent"),
        pytest.param(8, 4, 4, id="fault51-fewer"),
        pytest.param(8, 100, 8, id="fault51-more"),
        pytest.param(8, 0, 8, id="fault51-unlimited"),
        pytest.param(100, 0, 64, id="fault51-unlimited-up-to-our-cap"),
        pytest.param(100, 100, 100, id="fault51-agreed"),
        pytest.param(0, 0, 64, id="fault51-both-unlimited"),
        pytest.param(0, 5, 5, id="fault51-theirs"),
        pytest.param(0, 1000, 64, id="fault51-theirs-up-to-our-cap"),
    ],
)
def test_the_operations_window(proposed: int, answered: int | None, window: int) -> None:
    items = [] if answered is None else [AsynchronousOperationsWindow(answered, 9)]
    negotiated = concluded(*items, settings=AssociationSettings(operations_window=proposed))
    assert (negotiated.operations_window, negotiated.performed_window) == (window, 1)


@pytest.mark.fault_row(54)
@pytest.mark.parametrize(
    ("proposed", "answered", "scu", "scp"),
    [
        pytest.param(None, None, True, False, id="default"),
        pytest.param(None, (False, True), True, False, id="fault54-not-proposed"),
        pytest.param(Role(scp=True), None, True, False, id="fault54-no-answer"),
        pytest.param(Role(scp=True), (True, True), True, True, id="both"),
        pytest.param(Role(scp=True), (True, False), True, False, id="fault54-refused"),
        pytest.param(Role(scu=False, scp=True), (True, True), False, True, id="fault54-more-than-proposed"),
    ],
)
def test_roles(proposed: Role | None, answered: tuple[bool, bool] | None, scu: bool, scp: bool) -> None:
    settings = AssociationSettings(roles={} if proposed is None else {CT: proposed})
    items = [] if answered is None else [RoleSelection(CT, *answered)]
    context = concluded(*items, settings=settings).accepted[1]
    assert (context.as_scu, context.as_scp) == (scu, scp)


def identity(positive_response: bool) -> AssociationSettings:
    secret = UserIdentity(type=UserIdentityType.USERNAME, primary=b"hidden", positive_response=positive_response)
    return AssociationSettings(user_identity=secret)


@pytest.mark.fault_row(55)
def test_fault55_an_identity_that_is_not_confirmed() -> None:
    with pytest.raises(IdentityNotConfirmed) as caught:
        concluded(settings=identity(True))
    assert "hidden" not in str(caught.value)
    assert concluded(settings=identity(False)).user_identity_response is None


@pytest.mark.fault_row(55)
def test_fault55_an_identity_that_is_confirmed() -> None:
    negotiated = concluded(UserIdentityAC(b"ticket"), settings=identity(True))
    assert negotiated.user_identity_response == b"ticket"
    assert "ticket" not in repr(negotiated)


def test_who_the_peer_is_and_what_it_says_of_the_classes_proposed() -> None:
    settings = AssociationSettings(extended_negotiation={CT: b"\1"})
    negotiated = concluded(
        ImplementationClassUID("1.2.3"),
        ImplementationVersionName("PACS_1"),
        SOPClassExtendedNegotiation(CT, b"\0"),
        SOPClassExtendedNegotiation(MR, b"not asked"),
        settings=settings,
    )
    assert negotiated.peer_implementation_class_uid == "1.2.3"
    assert negotiated.peer_implementation_version_name == "PACS_1"
    assert negotiated.extended_negotiation == {CT: b"\0"}
    assert concluded().peer_implementation_class_uid is None
    assert concluded().peer_implementation_version_name is None


# --- answering


def test_an_answer_takes_the_first_syntax_of_the_requestor_that_is_supported() -> None:
    contexts: list[PresentationContext | str] = [
        PresentationContext(CT, [JPEG, *DEFAULTS]),
        PresentationContext(MR, [JPEG]),
        VERIFICATION,
    ]
    supported = {CT: [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN], MR: DEFAULTS}
    response, negotiated = answer(request(contexts=contexts), supported, SETTINGS)
    assert response.presentation_contexts == (
        accept(1),
        PresentationContextAC(3, 4, (JPEG,)),
        PresentationContextAC(5, 3, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    )
    assert (response.called_ae_title, response.calling_ae_title) == ("PACS", "TRIO_DICOM")
    assert [item.item_type for item in response.user_information] == [0x51, 0x52, 0x55]
    accepted = AcceptedContext(1, CT, EXPLICIT_VR_LITTLE_ENDIAN, as_scu=False, as_scp=True)
    assert negotiated.accepted == {1: accepted}
    assert [(context.abstract_syntax, context.result) for context in negotiated.rejected] == [
        (MR, 4),
        (VERIFICATION, 3),
    ]
    assert negotiated.peer_max_pdu_length == 131_072
    assert negotiated.peer_implementation_class_uid == IMPLEMENTATION_CLASS_UID


@pytest.mark.fault_row(64)
def test_fault64_another_application_context_is_rejected() -> None:
    assert rejection(attrs.evolve(request(), application_context="1.2.3")) == AssociateRJ(1, 1, 2)


def test_both_sides_agree_on_everything() -> None:
    ours = attrs.evolve(
        identity(True),
        operations_window=0,
        roles={CT: Role(scp=True), MR: Role(scu=True, scp=True)},
        extended_negotiation={CT: b"\1\1"},
    )
    theirs = AssociationSettings(
        operations_window=16,
        max_pdu_length=16_384,
        roles={CT: Role(scp=True)},
        extended_negotiation={CT: b"\1\0", MR: b"not asked for"},
    )
    proposal = request(ours)
    response, acceptor = answer(proposal, {CT: DEFAULTS, MR: DEFAULTS}, theirs, identity_response=b"ok")
    (encoded,) = response.encode()
    decoded = decode_pdu(2, memoryview(encoded)[6:], Limits())
    assert decoded == response
    assert isinstance(decoded, AssociateAC)
    requestor = conclude(proposal, decoded, ours)
    assert requestor.accepted.keys() == acceptor.accepted.keys() == {1, 3}
    for context_id, context in requestor.accepted.items():
        other = acceptor.accepted[context_id]
        assert (context.as_scu, context.as_scp) == (other.as_scp, other.as_scu)
    assert requestor.accepted[1].as_scp
    assert not requestor.accepted[3].as_scp
    assert (requestor.operations_window, requestor.performed_window) == (16, 1)
    assert (acceptor.operations_window, acceptor.performed_window) == (1, 16)
    assert requestor.peer_max_pdu_length == 16_384
    assert requestor.user_identity_response == b"ok"
    assert requestor.extended_negotiation == {CT: b"\1\0"}
    assert acceptor.extended_negotiation == {CT: b"\1\1"}


def test_an_identity_is_confirmed_only_where_that_was_asked_for() -> None:
    for asked, response, confirmed in [(True, b"", True), (True, None, False), (False, b"x", False)]:
        ac, _ = answer(request(identity(asked)), {CT: DEFAULTS}, SETTINGS, identity_response=response)
        assert any(isinstance(item, UserIdentityAC) for item in ac.user_information) == confirmed


ROLES = [Role(scu=scu, scp=scp) for scu in (True, False) for scp in (True, False)]


@pytest.mark.fault_row(54)
@pytest.mark.parametrize("allowed", ROLES, ids=str)
@pytest.mark.parametrize("asked", ROLES, ids=str)
def test_fault54_a_role_is_had_if_it_is_asked_for_and_allowed(asked: Role, allowed: Role) -> None:
    proposal = request(AssociationSettings(roles={CT: asked}))
    response, acceptor = answer(proposal, {CT: DEFAULTS}, AssociationSettings(roles={CT: allowed}))
    scu, scp = asked.scu and allowed.scu, asked.scp and allowed.scp
    assert RoleSelection(CT, scu, scp) in response.user_information
    assert (acceptor.accepted[1].as_scu, acceptor.accepted[1].as_scp) == (scp, scu)
    requestor = conclude(proposal, response, SETTINGS).accepted[1]
    assert (requestor.as_scu, requestor.as_scp) == (scu, scp)


def test_roles_for_classes_that_are_not_supported_are_not_answered() -> None:
    ours = AssociationSettings(roles={CT: Role(scp=True), MR: Role(scp=True)})
    response, _ = answer(request(ours), {CT: DEFAULTS}, SETTINGS)
    roles = [item for item in response.user_information if isinstance(item, RoleSelection)]
    assert roles == [RoleSelection(CT, True, False)]


def test_the_context_for_a_message() -> None:
    contexts = (
        AcceptedContext(1, CT, IMPLICIT_VR_LITTLE_ENDIAN),
        AcceptedContext(3, CT, EXPLICIT_VR_LITTLE_ENDIAN),
        AcceptedContext(5, VERIFICATION, EXPLICIT_VR_LITTLE_ENDIAN, as_scu=False, as_scp=True),
    )
    rejected = (RejectedContext(CT, ("1.2.3", "1.2.4"), 4), RejectedContext(MR, (IMPLICIT_VR_LITTLE_ENDIAN,), 3))
    negotiated = Negotiated({each.context_id: each for each in contexts}, rejected)
    assert (negotiated.operations_window, negotiated.performed_window) == (1, 1)  # unless something else is agreed on
    assert negotiated.find(CT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)) is contexts[1]
    assert negotiated.find(CT, ("1.2.3", IMPLICIT_VR_LITTLE_ENDIAN)) is contexts[0]
    assert negotiated.find(CT, ANY_TRANSFER_SYNTAX) is contexts[0]
    with pytest.raises(NoPresentationContext) as caught:
        negotiated.find(CT, ("1.2.3", "1.2.6"))
    assert caught.value.transfer_syntax_uid == "1.2.3"
    assert caught.value.accepted == (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.result == 4
    for abstract_syntax, transfer_syntaxes, result in (
        (CT, ("1.2.5",), None),  # it was not proposed
        (VERIFICATION, ANY_TRANSFER_SYNTAX, None),  # here the peer is the SCU
        (MR, (IMPLICIT_VR_LITTLE_ENDIAN,), 3),
        (MR, ANY_TRANSFER_SYNTAX, 3),
    ):
        with pytest.raises(NoPresentationContext) as caught:
            negotiated.find(abstract_syntax, transfer_syntaxes)
        assert caught.value.result == result
