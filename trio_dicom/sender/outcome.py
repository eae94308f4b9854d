"""Outcome: the one end that every object comes to, and the report that says so."""

from __future__ import annotations

import enum
from typing import TypedDict

import attrs

from ..errors import (
    InvalidObject,
    NoAcceptedContexts,
    NoPresentationContext,
    ObjectChanged,
    ReadError,
    Retry,
    TrioDicomError,
)
from ..protocol.status import DUPLICATE_SOP_INSTANCE, Status
from ..services.storage_scu import CStoreResponse, StoreDelivery


class Outcome(enum.Enum):
    """What became of one object. Every input ends in exactly one of these."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored_with_warning"  #: B000, B006, B007: the peer changed or dropped elements
    ALREADY_PRESENT = "already_present"  #: 0111: the peer has an object of this UID, not necessarily these bytes
    REFUSED = "refused"  #: the peer answered, and did not store it
    INVALID = "invalid"  #: it is no object that can be sent
    NO_CONTEXT = "no_context"  #: the peer takes no such object, or not in this transfer syntax
    NOT_SENT = "not_sent"  #: the peer never had all of it
    IN_DOUBT = "in_doubt"  #: the peer had all of it, and gave no valid answer

    @property
    def is_stored(self) -> bool:
        """The peer acknowledged it."""
        return self in (Outcome.STORED, Outcome.STORED_WITH_WARNING)


@attrs.frozen(kw_only=True)
class InstanceReport:
    """What became of one input."""

    path: str | None  #: the input's name: a path, `archive.zip!member`, or what kind of thing it was
    outcome: Outcome
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    transfer_syntax_uid: str | None = None  #: as sent
    status: Status | None = None
    attempts: int = 0
    bytes_sent: int = 0  #: of the data set, in the last attempt
    reason: str = ""
    retry: Retry = Retry.NEVER
    number: int = 0  #: of the input among those of its call, from 0
    was_in_doubt: bool = False  #: after one attempt at least, whatever came of a later one
    is_earlier: bool = False  #: settled in an earlier run, as the ledger says; nothing was sent for it now

    @property
    def is_delivered(self) -> bool:
        """The peer has it from us: stored, or already present when an attempt before had ended in doubt."""
        return self.outcome.is_stored or (self.outcome is Outcome.ALREADY_PRESENT and self.was_in_doubt)


class Particulars(TypedDict, total=False):
    """What a report says of an input beside the end of its last attempt."""

    number: int
    attempts: int
    was_in_doubt: bool


def outcome_of_status(status: Status) -> Outcome:
    """The outcome that a final C-STORE status means."""
    if status.is_success:
        return Outcome.STORED
    if status.is_warning:
        return Outcome.STORED_WITH_WARNING
    return Outcome.ALREADY_PRESENT if status == DUPLICATE_SOP_INSTANCE else Outcome.REFUSED


def report_of_response(
    path: str | None, delivery: StoreDelivery, response: CStoreResponse, particulars: Particulars | None = None
) -> InstanceReport:
    """The report of an object that was answered."""
    status = response.status
    outcome = outcome_of_status(status)
    particulars = particulars or {"attempts": delivery.attempts}
    return InstanceReport(
        path=path,
        outcome=outcome,
        sop_class_uid=response.sop_class_uid,
        sop_instance_uid=response.sop_instance_uid,
        transfer_syntax_uid=delivery.transfer_syntax_uid,
        status=status,
        bytes_sent=response.bytes_sent,
        reason="" if outcome is Outcome.STORED else status.meaning,
        retry=status.retry,
        **particulars,
    )


def report_of_failure(
    path: str | None, delivery: StoreDelivery | None, error: TrioDicomError, particulars: Particulars | None = None
) -> InstanceReport:
    """The report of an object that was not answered, for `error`; `delivery` is None if it was never begun."""
    reason = error.reason if isinstance(error, InvalidObject) else str(error)  # the path is there already
    if particulars is None:
        particulars = {} if delivery is None else {"attempts": delivery.attempts}
    retry = Retry.AFTER_CONFIG if isinstance(error, NoPresentationContext | NoAcceptedContexts) else error.retry
    if delivery is None:
        outcome = _outcome_of_error(error, has_begun=False)
        if particulars.get("was_in_doubt"):  # what comes later does not take back what an earlier attempt did
            outcome = Outcome.IN_DOUBT
        return InstanceReport(path=path, outcome=outcome, reason=reason, retry=retry, **particulars)
    status = delivery.status
    if status is not None:  # an answer came all the same
        outcome, reason, retry = outcome_of_status(status), status.meaning, status.retry
    elif delivery.in_doubt or particulars.get("was_in_doubt"):
        outcome = Outcome.IN_DOUBT
    else:
        outcome = _outcome_of_error(error, has_begun=delivery.has_begun)
    source = delivery.source
    return InstanceReport(
        path=path,
        outcome=outcome,
        sop_class_uid=source.sop_class_uid if source is not None else None,
        sop_instance_uid=source.sop_instance_uid if source is not None else None,
        transfer_syntax_uid=delivery.transfer_syntax_uid,
        status=status,
        bytes_sent=delivery.bytes_sent,
        reason=reason,
        retry=retry,
        **particulars,
    )


def _outcome_of_error(error: TrioDicomError, *, has_begun: bool) -> Outcome:
    if isinstance(error, NoPresentationContext | NoAcceptedContexts):
        return Outcome.NO_CONTEXT
    if isinstance(error, ObjectChanged) or (isinstance(error, ReadError) and has_begun):
        return Outcome.NOT_SENT
    is_our_fault = error.retry is not Retry.NEVER and not isinstance(error, ReadError)  # a codec that is not installed
    return Outcome.INVALID if isinstance(error, InvalidObject) and not is_our_fault else Outcome.NOT_SENT
