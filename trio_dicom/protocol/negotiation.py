"""What two applications agree on when an association is made (PS3.8 9.3.2, 9.3.3; PS3.7 annex D): pure functions.

The requestor makes its A-ASSOCIATE-RQ by `propose` and reads the answer by `conclude`; the acceptor makes its answer by
`answer`, after `rejection` had nothing against the request. Both sides end with a `Negotiated`, each from its own point
of view.

1. An acceptance counts only with exactly one transfer syntax, one that was proposed. Else the context is as good as
   rejected; it is not a reason to give up the others.
2. What was not proposed is not taken: roles, extended negotiation, a larger window.
3. A peer's 0 (maximum length, window) is "no limit", and so is the absence of a maximum length.
4. The application context name of an answer is not tested: there is only one, and we proposed it.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from typing import TypeVar

import attrs

from .._version import __version__
from ..errors import IdentityNotConfirmed, InvalidPDU, NoPresentationContext, PeerLimitUnusable
from ..settings import AssociationSettings, Limits, Role
from ..uids import (
    APPLICATION_CONTEXT,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_valid_uid,
)
from .pdu import AssociateAC, AssociateRJ, AssociateRQ, ContextResult, PresentationContextAC, PresentationContextRQ
from .user_information import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentityAC,
    UserIdentityRQ,
    UserItem,
)

MAX_CONTEXTS = 128  # the odd numbers of a byte
MIN_PDU_LENGTH = 8  # room for a PDV of two bytes, the least that is even

_VERSION_NAME = f"TRIO_DICOM_{__version__}"[:16]
ANY_TRANSFER_SYNTAX = ("any",)  #: for messages without a data set

_DEFAULT_ROLE = Role()
_DEFAULT_WINDOW = AsynchronousOperationsWindow(1, 1)

_Item = TypeVar("_Item", bound=UserItem)


# --- what is proposed -----------------------------------------------------------------------------------------------


def _plain(uid: str) -> str:
    text = str(uid)  # of a pydicom UID, too, which is a str with more to it
    if not is_valid_uid(text):
        raise ValueError(f"not a UID: {text!r}")
    return text


def _plain_each(uids: str | Iterable[str]) -> tuple[str, ...]:
    plain = tuple(dict.fromkeys(_plain(uid) for uid in ((uids,) if isinstance(uids, str) else uids)))
    if not plain:
        raise ValueError("a presentation context needs at least one transfer syntax")
    return plain


@attrs.frozen
class PresentationContext:
    """An abstract syntax with the transfer syntaxes that are proposed for it, as UIDs, the preferred one first.

    Raises `ValueError` for what is no UID, or without a transfer syntax. Repeated transfer syntaxes count once.
    """

    abstract_syntax: str = attrs.field(converter=_plain)
    transfer_syntaxes: tuple[str, ...] = attrs.field(
        default=(EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN), converter=_plain_each
    )


def as_presentation_contexts(items: Iterable[PresentationContext | str]) -> tuple[PresentationContext, ...]:
    """The contexts that `items` are, a UID standing for an abstract syntax with the default transfer syntaxes.

    Equal ones count once. Raises `ValueError` unless 1 to 128 remain, which is what one association can propose.
    """
    if isinstance(items, str):
        raise TypeError(f"contexts are a list of abstract syntaxes, not one: write [{items!r}]")
    contexts = tuple(dict.fromkeys(PresentationContext(item) if isinstance(item, str) else item for item in items))
    if not 1 <= len(contexts) <= MAX_CONTEXTS:
        raise ValueError(f"an association proposes 1 to {MAX_CONTEXTS} presentation contexts, not {len(contexts)}")
    return contexts


def propose(
    contexts: Iterable[PresentationContext | str], called_ae_title: str, settings: AssociationSettings
) -> AssociateRQ:
    """The request for an association. Roles and extended negotiation go with the abstract syntaxes that are proposed.

    Raises `ValueError` as `as_presentation_contexts` does.
    """
    contexts = as_presentation_contexts(contexts)
    proposed = {context.abstract_syntax for context in contexts}
    items: list[UserItem] = [MaximumLength(settings.max_pdu_length), ImplementationClassUID(IMPLEMENTATION_CLASS_UID)]
    if settings.operations_window != 1:
        items.append(AsynchronousOperationsWindow(settings.operations_window, 1))
    items += (RoleSelection(uid, role.scu, role.scp) for uid, role in settings.roles.items() if uid in proposed)
    items.append(ImplementationVersionName(_VERSION_NAME))
    items += _extended(settings, proposed)
    if (identity := settings.user_identity) is not None:
        items.append(
            UserIdentityRQ(int(identity.type), identity.positive_response, identity.primary, identity.secondary)
        )
    return AssociateRQ(
        called_ae_title=called_ae_title,
        calling_ae_title=settings.calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextRQ(2 * index + 1, context.abstract_syntax, context.transfer_syntaxes)
            for index, context in enumerate(contexts)
        ),
        user_information=tuple(items),
    )


def _extended(settings: AssociationSettings, abstract_syntaxes: Collection[str]) -> list[UserItem]:
    return [
        SOPClassExtendedNegotiation(uid, information)
        for uid, information in settings.extended_negotiation.items()
        if uid in abstract_syntaxes
    ]


# --- what is agreed on ----------------------------------------------------------------------------------------------


@attrs.frozen
class AcceptedContext:
    """A presentation context that both sides know, and the roles in it of this side."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    as_scu: bool = True
    as_scp: bool = False


@attrs.frozen
class RejectedContext:
    """A presentation context that did not come about; `result` is a `ContextResult`, or the number that came."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    result: int


@attrs.frozen
class Negotiated:
    """What an association is, seen from this side.

    `peer_max_pdu_length` is in bytes, as PS3.8 D.1 counts them, 0 where the peer has no limit. `operations_window` is
    how many requests of ours may wait for their responses together, `performed_window` how many of the peer's.
    """

    accepted: Mapping[int, AcceptedContext]  #: by presentation context ID
    rejected: tuple[RejectedContext, ...] = ()
    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_max_pdu_length: int = 0
    operations_window: int = 1
    performed_window: int = 1
    peer_implementation_class_uid: str | None = None
    peer_implementation_version_name: str | None = None
    user_identity_response: bytes | None = attrs.field(default=None, repr=False)
    extended_negotiation: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)

    def contexts_for(self, abstract_syntax: str) -> tuple[AcceptedContext, ...]:
        """The accepted contexts of an abstract syntax, in order of their IDs."""
        return tuple(context for context in self.accepted.values() if context.abstract_syntax == abstract_syntax)

    def find(self, abstract_syntax: str, transfer_syntaxes: tuple[str, ...]) -> AcceptedContext:
        """The context in which this side is SCU with the first of `transfer_syntaxes` that was accepted.

        With `ANY_TRANSFER_SYNTAX` it is the first context. Raises `NoPresentationContext`.
        """
        contexts = [each for each in self.contexts_for(abstract_syntax) if each.as_scu]
        if transfer_syntaxes == ANY_TRANSFER_SYNTAX and contexts:
            return contexts[0]
        for transfer_syntax in transfer_syntaxes:
            for context in contexts:
                if context.transfer_syntax == transfer_syntax:
                    return context
        accepted = tuple(context.transfer_syntax for context in contexts)
        results = (
            each.result
            for each in self.rejected
            if each.abstract_syntax == abstract_syntax
            and (
                transfer_syntaxes == ANY_TRANSFER_SYNTAX
                or not set(transfer_syntaxes).isdisjoint(each.transfer_syntaxes)
            )
        )
        raise NoPresentationContext(abstract_syntax, transfer_syntaxes[0], accepted, next(results, None))


def conclude(request: AssociateRQ, answer: AssociateAC, settings: AssociationSettings) -> Negotiated:
    """What `answer` makes of our `request`; a context that it does not mention is rejected.

    Raises `InvalidPDU`, A-ABORT (2, 6), for an answer to a context that was not proposed, or a second answer to one;
    `PeerLimitUnusable` for a maximum length without room for data; `IdentityNotConfirmed` if a positive response to the
    user identity was asked for and is not there. The association is to be aborted in each case.
    """
    proposed = {context.context_id: context for context in request.presentation_contexts}
    answers: dict[int, PresentationContextAC] = {}
    for context in answer.presentation_contexts:
        if context.context_id not in proposed:
            raise InvalidPDU(f"an answer to presentation context {context.context_id}, which was not proposed", 2, 6)
        if context.context_id in answers:
            raise InvalidPDU(f"two answers to presentation context {context.context_id}", 2, 6)
        answers[context.context_id] = context
    asked = _find(request.user_information, UserIdentityRQ)
    confirmed = _find(answer.user_information, UserIdentityAC)
    if asked is not None and asked.positive_response_requested and confirmed is None:
        raise IdentityNotConfirmed("the peer did not confirm the user identity, as it was asked to")

    roles = _roles(request, answer)
    accepted: dict[int, AcceptedContext] = {}
    rejected = []
    for context_id, offer in proposed.items():
        result = _result(offer, answers.get(context_id))
        if result == ContextResult.ACCEPTANCE:
            role = roles.get(offer.abstract_syntax, _DEFAULT_ROLE)
            (transfer_syntax,) = answers[context_id].transfer_syntaxes
            accepted[context_id] = AcceptedContext(
                context_id, offer.abstract_syntax, transfer_syntax, as_scu=role.scu, as_scp=role.scp
            )
        else:
            rejected.append(RejectedContext(offer.abstract_syntax, offer.transfer_syntaxes, result))
    ours = _find(request.user_information, AsynchronousOperationsWindow) or _DEFAULT_WINDOW
    theirs = _find(answer.user_information, AsynchronousOperationsWindow) or _DEFAULT_WINDOW
    extended = _extended_negotiation(request)
    return _negotiated(
        request,
        answer,
        accepted,
        rejected,
        operations_window=_window(ours.invoked, theirs.invoked, settings.limits),
        performed_window=_window(ours.performed, theirs.performed, settings.limits),
        user_identity_response=None if confirmed is None else confirmed.server_response.reveal(),
        extended_negotiation={uid: data for uid, data in _extended_negotiation(answer).items() if uid in extended},
    )


def rejection(request: AssociateRQ) -> AssociateRJ | None:
    """What an acceptor has against `request` whoever it is: an application context that is not DICOM's."""
    return AssociateRJ(1, 1, 2) if request.application_context != APPLICATION_CONTEXT else None


def answer(
    request: AssociateRQ,
    supported: Mapping[str, Container[str]],
    settings: AssociationSettings,
    *,
    identity_response: bytes | None = None,
) -> tuple[AssociateAC, Negotiated]:
    """The acceptor's answer, and what is agreed on by it.

    `supported` has the transfer syntax UIDs by abstract syntax UID. Of those that were proposed the first is taken, in
    the requestor's order. `settings.roles` are the roles that a requestor may take, by default that of an SCU alone.
    `identity_response` (possibly b"") confirms the user identity where that is asked for.

    Raises `PeerLimitUnusable` for a maximum length without room for data.
    """
    asked_roles = _role_selections(request)
    roles = {
        uid: Role(scu=role.scu and allowed.scu, scp=role.scp and allowed.scp)
        for uid, role in asked_roles.items()
        for allowed in (settings.roles.get(uid, _DEFAULT_ROLE),)
        if uid in supported
    }
    answers = []
    accepted: dict[int, AcceptedContext] = {}
    rejected = []
    for offer in request.presentation_contexts:
        possible = supported.get(offer.abstract_syntax, ())
        chosen = next((uid for uid in offer.transfer_syntaxes if uid in possible), None)
        if chosen is not None:
            result = ContextResult.ACCEPTANCE
            role = roles.get(offer.abstract_syntax, _DEFAULT_ROLE)
            accepted[offer.context_id] = AcceptedContext(
                offer.context_id, offer.abstract_syntax, chosen, as_scu=role.scp, as_scp=role.scu
            )
        else:
            is_known = offer.abstract_syntax in supported
            result = (
                ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
                if is_known
                else ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
            )
            rejected.append(RejectedContext(offer.abstract_syntax, offer.transfer_syntaxes, result))
        # A rejection has a transfer syntax too, which says nothing (PS3.8 9.3.3.2).
        answers.append(PresentationContextAC(offer.context_id, result, (chosen or offer.transfer_syntaxes[0],)))

    items: list[UserItem] = [MaximumLength(settings.max_pdu_length), ImplementationClassUID(IMPLEMENTATION_CLASS_UID)]
    window = _DEFAULT_WINDOW
    if (asked_window := _find(request.user_information, AsynchronousOperationsWindow)) is not None:
        window = AsynchronousOperationsWindow(
            _window(asked_window.invoked, settings.operations_window, settings.limits),
            _window(asked_window.performed, settings.operations_window, settings.limits),
        )
        items.append(window)
    items += (RoleSelection(uid, role.scu, role.scp) for uid, role in roles.items())
    items.append(ImplementationVersionName(_VERSION_NAME))
    extended = _extended_negotiation(request)
    items += _extended(settings, extended)
    identity = _find(request.user_information, UserIdentityRQ)
    if identity is not None and identity.positive_response_requested and identity_response is not None:
        items.append(UserIdentityAC(identity_response))
    response = AssociateAC(request.called_ae_title, request.calling_ae_title, tuple(answers), tuple(items))
    return response, _negotiated(
        request,
        request,
        accepted,
        rejected,
        operations_window=window.performed,
        performed_window=window.invoked,
        user_identity_response=None,
        extended_negotiation=extended,
    )


# --- parts ----------------------------------------------------------------------------------------------------------


def _find(items: Iterable[UserItem], kind: type[_Item]) -> _Item | None:
    return next((item for item in items if isinstance(item, kind)), None)


def _role_selections(pdu: AssociateRQ | AssociateAC) -> dict[str, Role]:
    return {
        item.sop_class_uid: Role(scu=item.scu, scp=item.scp)
        for item in pdu.user_information
        if isinstance(item, RoleSelection)
    }


def _roles(request: AssociateRQ, answer: AssociateAC) -> dict[str, Role]:
    """The requestor's roles: those proposed and accepted. Without an answer the default stands (PS3.7 D.3.3.4.2)."""
    accepted = _role_selections(answer)
    return {
        uid: Role(scu=role.scu and accepted[uid].scu, scp=role.scp and accepted[uid].scp)
        for uid, role in _role_selections(request).items()
        if uid in accepted
    }


def _extended_negotiation(pdu: AssociateRQ | AssociateAC) -> dict[str, bytes]:
    return {
        item.sop_class_uid: item.information
        for item in pdu.user_information
        if isinstance(item, SOPClassExtendedNegotiation)
    }


def _result(offer: PresentationContextRQ, answer: PresentationContextAC | None) -> int:
    if answer is None:
        return ContextResult.NO_REASON
    if answer.result == ContextResult.ACCEPTANCE and (
        len(answer.transfer_syntaxes) != 1 or answer.transfer_syntaxes[0] not in offer.transfer_syntaxes
    ):
        return ContextResult.NO_REASON
    return answer.result


def _window(one: int, other: int, limits: Limits) -> int:
    return min(one or limits.operations_window, other or limits.operations_window)


def _negotiated(
    request: AssociateRQ,
    peer: AssociateRQ | AssociateAC,
    accepted: Mapping[int, AcceptedContext],
    rejected: Iterable[RejectedContext],
    *,
    operations_window: int,
    performed_window: int,
    user_identity_response: bytes | None,
    extended_negotiation: Mapping[str, bytes],
) -> Negotiated:
    length = _find(peer.user_information, MaximumLength)
    if length is not None and 0 < length.length < MIN_PDU_LENGTH:
        raise PeerLimitUnusable(length.length)
    class_uid = _find(peer.user_information, ImplementationClassUID)
    version_name = _find(peer.user_information, ImplementationVersionName)
    return Negotiated(
        accepted=accepted,
        rejected=tuple(rejected),
        calling_ae_title=request.calling_ae_title,
        called_ae_title=request.called_ae_title,
        peer_max_pdu_length=0 if length is None else length.length,
        operations_window=operations_window,
        performed_window=performed_window,
        peer_implementation_class_uid=None if class_uid is None else class_uid.uid,
        peer_implementation_version_name=None if version_name is None else version_name.name,
        user_identity_response=user_identity_response,
        extended_negotiation=extended_negotiation,
    )
