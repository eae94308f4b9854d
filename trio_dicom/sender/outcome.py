"""Outcome: the one end that every object comes to, and the report that says so."""

from __future__ import annotations

import enum

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

    path: str | None
    outcome: Outcome
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    transfer_syntax_uid: str | None = None  #: as sent
    status: Status | None = None
    attempts: int = 0
    bytes_sent: int = 0  #: of the data set, in the last attempt
    reason: str = ""
    retry: Retry = Retry.NEVER


def outcome_of_status(status: Status) -> Outcome:
    """The outcome that a final C-STORE status means."""
    if status.is_success:
        return Outcome.STORED
    if status.is_warning:
        return Outcome.STORED_WITH_WARNING
    return Outcome.ALREADY_PRESENT if status == DUPLICATE_SOP_INSTANCE else Outcome.REFUSED


def report_of_response(path: str | None, delivery: StoreDelivery, response: CStoreResponse) -> InstanceReport:
    """The report of an object that was answered."""
    outcome = outcome_of_status(response.status)
    return InstanceReport(
        path=path,
        outcome=outcome,
        sop_class_uid=response.sop_class_uid,
        sop_instance_uid=response.sop_instance_uid,
        transfer_syntax_uid=delivery.transfer_syntax_uid,
        status=response.status,
        attempts=response.attempts,
        bytes_sent=response.bytes_sent,
        reason="" if outcome is Outcome.STORED else response.status.meaning,
        retry=response.status.retry,
    )


def report_of_failure(path: str | None, delivery: StoreDelivery | None, error: TrioDicomError | None) -> InstanceReport:
    """The report of an object that was not answered: for an error, or, without one, for a cancellation.

    `delivery` is None for an object that was never begun.
    """
    reason = str(error) if error is not None else "interrupted"
    retry = error.retry if error is not None else Retry.LATER
    if delivery is None:
        outcome = _outcome_of_error(error, has_begun=False)
        return InstanceReport(path=path, outcome=outcome, reason=reason, retry=retry)
    source, status = delivery.source, delivery.status
    if status is not None:  # an answer came all the same
        outcome, reason, retry = outcome_of_status(status), status.meaning, status.retry
    elif delivery.in_doubt:
        outcome = Outcome.IN_DOUBT
    else:
        outcome = _outcome_of_error(error, has_begun=delivery.bytes_sent > 0)
    return InstanceReport(
        path=path,
        outcome=outcome,
        sop_class_uid=source.sop_class_uid if source is not None else None,
        sop_instance_uid=source.sop_instance_uid if source is not None else None,
        transfer_syntax_uid=delivery.transfer_syntax_uid,
        status=status,
        attempts=delivery.attempts,
        bytes_sent=delivery.bytes_sent,
        reason=reason,
        retry=retry,
    )


def _outcome_of_error(error: TrioDicomError | None, *, has_begun: bool) -> Outcome:
    if isinstance(error, NoPresentationContext | NoAcceptedContexts):
        return Outcome.NO_CONTEXT
    if isinstance(error, ObjectChanged) or (isinstance(error, ReadError) and has_begun):
        return Outcome.NOT_SENT
    return Outcome.INVALID if isinstance(error, InvalidObject) else Outcome.NOT_SENT
