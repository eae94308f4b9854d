"""Every exception of trio_dicom, on one screen.

`ProtocolViolation` and what is below it are the peer's mistakes, and carry the A-ABORT that answers them.
`LocalProtocolError` is the caller's. `InternalError` is ours: please report it. Nothing else leaves the library, but
for trio's own (`trio.Cancelled`, `trio.ClosedResourceError`) and Python's for wrong arguments (`TypeError`,
`ValueError`).

No message holds patient data, nor text of a peer that was not escaped and cut.
"""

from __future__ import annotations

import enum
from typing import Any

import attrs


class Retry(enum.Enum):
    """When the same work may be tried again."""

    NEVER = "never"  #: the same bytes will meet the same answer
    LATER = "later"  #: the cause is likely to pass
    NEW_ASSOCIATION = "new_association"  #: at once, but not on this association
    AFTER_CONFIG = "after_config"  #: somebody must change a setting first


def printable(text: str | bytes, limit: int = 64) -> str:
    """A peer's words, safe for a log line: ASCII, escaped, cut to `limit` characters."""
    if isinstance(text, bytes):
        text = text[: limit + 1].decode("latin-1")
    cut = text[:limit].encode("unicode_escape").decode("ascii")
    return cut + "..." if len(text) > limit else cut


class TrioDicomError(Exception):
    """The root of all errors of this library.

    `retry` tells when the same work may be tried again. `in_doubt` is True when the object of the failed operation had
    been handed over whole: the peer may have stored it.
    """

    retry: Retry = Retry.NEVER
    in_doubt: bool = False


class LocalProtocolError(TrioDicomError):
    """The caller asked for what the protocol does not allow in this state; nothing was sent."""


class InternalError(TrioDicomError):
    """A bug of trio_dicom; the cause is chained."""


# --- before there is an association ---------------------------------------------------------------------------------


@attrs.define(eq=False, slots=False)
class ConnectFailed(TrioDicomError):
    """No connection came about. `attempts` has each address that was tried with its `OSError`; nothing was sent."""

    peer: str
    attempts: tuple[tuple[str, OSError], ...] = ()
    retry = Retry.LATER

    @property
    def errno(self) -> int | None:
        """The `errno` of the last address tried."""
        return self.attempts[-1][1].errno if self.attempts else None

    def __str__(self) -> str:
        texts = [(address, error.strerror or str(error)) for address, error in self.attempts]
        tried = "; ".join(f"{address}: {text}" if address else text for address, text in texts)
        return f"cannot connect to {self.peer} ({tried or 'no address'})"


@attrs.define(eq=False, slots=False)
class TLSError(TrioDicomError):
    """The TLS handshake failed; no DICOM byte was sent, and plain TCP is never fallen back to."""

    peer: str
    reason: str
    is_cut_off: bool = False  #: the peer closed the connection without a word of TLS as to why
    retry = Retry.AFTER_CONFIG

    def __str__(self) -> str:
        return f"TLS handshake with {self.peer} failed: {self.reason}"


class TLSVerifyError(TLSError):
    """The peer's certificate is not trusted, has expired, or is another host's."""


@attrs.define(eq=False, slots=False)
class TLSFileError(TrioDicomError):
    """A file for TLS cannot be used. `role` is "certificate", "key", "ca" or "crl"; nobody was connected to."""

    role: str
    path: str
    reason: str
    retry = Retry.AFTER_CONFIG

    def __str__(self) -> str:
        return f"{self.role} {printable(self.path, 400)}: {self.reason}"


# --- an association and what ends it --------------------------------------------------------------------------------


class AssociationError(TrioDicomError):
    """An association did not come about or has ended."""

    retry = Retry.NEW_ASSOCIATION


@attrs.define(eq=False, slots=False)
class AssociationTimeout(AssociationError):
    """Connecting, TLS, the association request or a PDU (`phase`) took longer than its deadline of `seconds`."""

    phase: str
    seconds: float
    retry = Retry.LATER

    def __str__(self) -> str:
        return f"{self.phase} took longer than {self.seconds:g} s"


@attrs.define(eq=False, slots=False)
class AssociationRejected(AssociationError):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4), the peer's answer or, `by_peer` being False, ours.

    Values outside the standard's tables are kept as they came, and so are the AE titles of a request that we rejected.
    """

    result: int
    source: int
    reason: int
    text: str = ""
    by_peer: bool = True
    calling_ae_title: str | None = None
    called_ae_title: str | None = None

    @property
    def retry(self) -> Retry:  # type: ignore[override]
        """`LATER` for result 2, rejected-transient; `AFTER_CONFIG` otherwise."""
        return Retry.LATER if self.result == 2 else Retry.AFTER_CONFIG

    def __str__(self) -> str:
        kind = {1: "permanently", 2: "for now"}.get(self.result, f"(result {self.result})")
        why = self.text or f"source {self.source}, reason {self.reason}"
        who = "the peer rejected the association" if self.by_peer else "the association was rejected"
        if self.calling_ae_title is not None and self.called_ae_title is not None:
            calling, called = (printable(title, 16) or '""' for title in (self.calling_ae_title, self.called_ae_title))
            who = f"{calling} called {called}: {who}"
        return f"{who} {kind}: {why}"


_RESULTS = {
    1: "user rejection",
    2: "no reason",
    3: "SOP class not supported",
    4: "transfer syntaxes not supported",
}


def _result(result: int) -> str:
    """Of a presentation context, in words (PS3.8 table 9-18)."""
    return f"{_RESULTS.get(result, 'for a reason that the standard does not have')} (result {result})"


@attrs.define(eq=False, slots=False)
class NoAcceptedContexts(AssociationError):
    """The peer accepted the association, but none of its presentation contexts."""

    rejected: tuple[tuple[str, int], ...] = ()  #: (abstract syntax UID, result of PS3.8 table 9-18)
    retry = Retry.NEVER

    def __str__(self) -> str:
        listed = ", ".join(f"{uid}: {_result(result)}" for uid, result in self.rejected[:8])
        return f"the peer accepted none of the presentation contexts: {listed}"


@attrs.define(eq=False, slots=False)
class PeerLimitUnusable(AssociationError):
    """The peer's maximum PDU length leaves no room for a single byte of data."""

    max_pdu_length: int
    retry = Retry.AFTER_CONFIG

    def __str__(self) -> str:
        return (
            f"the peer's maximum PDU length of {self.max_pdu_length} leaves no room for data (8 is the least that does)"
        )


class IdentityNotConfirmed(AssociationError):
    """A positive response to the user identity was asked for, and did not come."""

    retry = Retry.AFTER_CONFIG


class AssociationClosed(AssociationError):
    """The association was released or closed, by us or by the peer; `in_doubt` if a response was still awaited."""


@attrs.define(eq=False, slots=False)
class AssociationAborted(AssociationError):
    """The association was aborted: by the peer's A-ABORT (PS3.8 9.3.8), or by us, `by_peer` being False."""

    source: int
    reason: int
    by_peer: bool = True
    detail: str = ""

    def __str__(self) -> str:
        who = "the peer aborted the association" if self.by_peer else "the association was aborted"
        return f"{who} (source {self.source}, reason {self.reason}){': ' if self.detail else ''}{self.detail}"


@attrs.define(eq=False, slots=False)
class ConnectionLost(AssociationError):
    """The transport connection ended without release or abort."""

    detail: str = "the peer closed the connection"

    def __str__(self) -> str:
        return self.detail


@attrs.define(eq=False, slots=False)
class OperationTimeout(AssociationError):
    """An operation made no progress within its timeout, or exceeded its maximum duration; the association was aborted.

    `phase` is what it was doing, `seconds` the limit, `bytes_sent` what the transport had taken of the data set.
    """

    phase: str
    seconds: float
    bytes_sent: int
    in_all: bool = False  # it was the maximum duration

    def __str__(self) -> str:
        limit = f"not done within {self.seconds:g} s" if self.in_all else f"no progress for {self.seconds:g} s"
        return f"{limit} while {self.phase}, after {self.bytes_sent} bytes of the data set"


@attrs.define(eq=False, slots=False)
class ProtocolViolation(AssociationError):
    """The peer broke the protocol. `abort_source` and `abort_reason` are those of the A-ABORT that answers it."""

    detail: str
    abort_source: int = 2
    abort_reason: int = 0

    def __str__(self) -> str:
        return f"protocol violation by the peer: {self.detail}"


class InvalidPDU(ProtocolViolation):
    """A PDU, item or PDV whose lengths or values are not those of PS3.8 section 9.3."""


class UnrecognisedPDU(ProtocolViolation):
    """A PDU type that PS3.8 does not have; often another protocol on that port."""


class UnexpectedPDU(ProtocolViolation):
    """A PDU or PDV that is valid, but not now (PS3.8 table 9-10)."""


class DIMSEDecodeError(ProtocolViolation):
    """A command set that is not what PS3.7 section 6.3 says."""


class InvalidResponse(ProtocolViolation):
    """A response that answers no question of ours, or not in the way the service allows."""


class UnexpectedMessageID(InvalidResponse):
    """A response to a message ID that is not in flight."""


# --- what was to be sent --------------------------------------------------------------------------------------------


@attrs.define(eq=False, slots=False)
class InvalidObject(TrioDicomError):
    """The input is no DICOM object that can be sent: what is wrong, and where (a path, an offset, a tag)."""

    reason: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


class ObjectChanged(InvalidObject):
    """The input grew, shrank or was replaced. If a part of it had gone out, the association was aborted."""


class ReadError(InvalidObject):
    """The input could not be opened or read; the `OSError`, or the error of the caller's source, is chained."""


@attrs.define(eq=False, slots=False)
class NoPresentationContext(TrioDicomError):
    """No presentation context was accepted in which this object can be sent unharmed; nothing was sent."""

    sop_class_uid: str
    transfer_syntax_uid: str
    accepted: tuple[str, ...] = ()  #: transfer syntax UIDs accepted for the SOP class
    result: int | None = None  #: how the peer rejected it (PS3.8 table 9-18), if it did

    def __str__(self) -> str:
        have = (
            f"accepted for it: {', '.join(self.accepted)}"
            if self.accepted
            else "it was not proposed, or the peer is its SCU"
        )
        if self.result is not None:
            have = f"the peer rejected it: {_result(self.result)}" + (f"; {have}" if self.accepted else "")
        wanted = f"SOP class {self.sop_class_uid} in transfer syntax {self.transfer_syntax_uid}"
        return f"no presentation context for {wanted}; {have}"


@attrs.define(eq=False, slots=False)
class StatusError(TrioDicomError):
    """`raise_for_status()` met a response that is a failure: the `CStoreResponse` is in `response`."""

    response: Any
    status: str
    retry: Retry = Retry.NEVER  # that of the status

    def __str__(self) -> str:
        return f"the peer did not store the object: {self.status}"


# --- what is noted of it --------------------------------------------------------------------------------------------


@attrs.define(eq=False, slots=False)
class LedgerError(TrioDicomError):
    """The ledger at `path` cannot be used, read or written. What it holds is as it was; nothing more is begun."""

    path: str
    reason: str
    retry = Retry.AFTER_CONFIG

    def __str__(self) -> str:
        return f"ledger {printable(self.path, 400)}: {self.reason}"
