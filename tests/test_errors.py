"""Errors: what they say, that they survive a copy, and that they never carry what a peer wrote unescaped."""

from __future__ import annotations

import copy
import errno
import inspect
import os
import pickle

import pytest

import trio_dicom
from trio_dicom import Retry, errors

SAMPLES: list[tuple[errors.TrioDicomError, str]] = [
    (errors.TrioDicomError("x"), "x"),
    (errors.LocalProtocolError("no P-DATA-TF in Sta7"), "no P-DATA-TF in Sta7"),
    (errors.InternalError("a bug"), "a bug"),
    (
        errors.ConnectFailed("A@h:1", (("h:1", OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))),)),
        "cannot connect to A@h:1 (h:1: Connection refused)",
    ),
    (errors.ConnectFailed("A@h:1"), "cannot connect to A@h:1 (no address)"),
    (errors.TLSError("A@h:1", "hm"), "TLS handshake with A@h:1 failed: hm"),
    (errors.TLSFileError("key", "a\nb.pem", "it is not there"), "key a\\nb.pem: it is not there"),
    (errors.TLSVerifyError("A@h:1", "expired"), "TLS handshake with A@h:1 failed: expired"),
    (errors.AssociationError("x"), "x"),
    (errors.AssociationTimeout("connecting", 10.0), "connecting took longer than 10 s"),
    (
        errors.AssociationRejected(1, 1, 7, "called AE title not recognized"),
        "the peer rejected the association permanently: called AE title not recognized",
    ),
    (
        errors.AssociationRejected(1, 1, 7, "why", False, "CT\n" + 20 * "1", ""),
        'CT\\n1111111111111... called "": the association was rejected permanently: why',
    ),
    (errors.AssociationRejected(2, 3, 2), "the peer rejected the association for now: source 3, reason 2"),
    (errors.AssociationRejected(0, 255, 9), "the peer rejected the association (result 0): source 255, reason 9"),
    (
        errors.NoAcceptedContexts((("1.2", 3),)),
        "the peer accepted none of the presentation contexts: 1.2: SOP class not supported (result 3)",
    ),
    (
        errors.PeerLimitUnusable(7),
        "the peer's maximum PDU length of 7 leaves no room for data (8 is the least that does)",
    ),
    (errors.IdentityNotConfirmed("not confirmed"), "not confirmed"),
    (errors.AssociationClosed("was closed"), "was closed"),
    (errors.AssociationAborted(2, 6), "the peer aborted the association (source 2, reason 6)"),
    (
        errors.AssociationAborted(0, 0, by_peer=False, detail="why"),
        "the association was aborted (source 0, reason 0): why",
    ),
    (errors.ConnectionLost(), "the peer closed the connection"),
    (errors.ConnectionLost("it broke"), "it broke"),
    (
        errors.OperationTimeout("writing", 30.0, 4096),
        "no progress for 30 s while writing, after 4096 bytes of the data set",
    ),
    (errors.InvalidObject("no DICM"), "no DICM"),
    (errors.InvalidObject("no DICM", "a.dcm"), "a.dcm: no DICM"),
    (errors.ObjectChanged("shrank", "a.dcm"), "a.dcm: shrank"),
    (errors.ReadError("gone", "a.dcm"), "a.dcm: gone"),
    (
        errors.NoPresentationContext("1.2", "1.3", ("1.4", "1.5")),
        "no presentation context for SOP class 1.2 in transfer syntax 1.3; accepted for it: 1.4, 1.5",
    ),
    (
        errors.NoPresentationContext("1.2", "1.3"),
        "no presentation context for SOP class 1.2 in transfer syntax 1.3; it was not proposed, or the peer is its SCU",
    ),
    (
        errors.NoPresentationContext("1.2", "1.3", result=4),
        "no presentation context for SOP class 1.2 in transfer syntax 1.3; "
        "the peer rejected it: transfer syntaxes not supported (result 4)",
    ),
    (
        errors.NoPresentationContext("1.2", "1.3", ("1.4",), 99),
        "no presentation context for SOP class 1.2 in transfer syntax 1.3; "
        "the peer rejected it: for a reason that the standard does not have (result 99); accepted for it: 1.4",
    ),
    (errors.LedgerError("a\n.db", "it is damaged"), "ledger a\\n.db: it is damaged"),
    (errors.StatusError(None, "0xA700", Retry.LATER), "the peer did not store the object: 0xA700"),
    *[
        (kind("what was wrong", 2, 6), "what was wrong")
        for kind in (
            errors.ProtocolViolation,
            errors.InvalidPDU,
            errors.UnrecognisedPDU,
            errors.UnexpectedPDU,
            errors.DIMSEDecodeError,
            errors.InvalidResponse,
            errors.UnexpectedMessageID,
        )
    ],
]
NAMES = [f"{type(error).__name__}-{number}" for number, (error, _) in enumerate(SAMPLES)]


@pytest.mark.parametrize(("error", "text"), SAMPLES, ids=NAMES)
def test_what_it_says(error: errors.TrioDicomError, text: str) -> None:
    assert text in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(("error", "text"), SAMPLES, ids=NAMES)
def test_a_copy_says_the_same(error: errors.TrioDicomError, text: str) -> None:
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert again is not error
        assert str(again) == str(error)
        assert again.retry is error.retry


def all_errors() -> list[type[BaseException]]:
    return [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, BaseException)]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_public_and_has_one_root(kind: type[BaseException]) -> None:
    assert issubclass(kind, errors.TrioDicomError)
    assert getattr(trio_dicom, kind.__name__) is kind
    assert any(type(error) is kind for error, _ in SAMPLES)


def test_doubt_outlives_a_copy() -> None:
    error = errors.AssociationAborted(0, 0)
    assert not error.in_doubt
    error.in_doubt = True
    assert copy.copy(error).in_doubt
    assert not errors.AssociationAborted(0, 0).in_doubt


def test_errors_are_equal_only_to_themselves() -> None:
    assert errors.AssociationAborted(0, 0) != errors.AssociationAborted(0, 0)
    assert len({errors.ConnectionLost(), errors.ConnectionLost()}) == 2


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (errors.ConnectFailed("A@h:1"), Retry.LATER),
        (errors.TLSError("A@h:1", ""), Retry.AFTER_CONFIG),
        (errors.TLSVerifyError("A@h:1", ""), Retry.AFTER_CONFIG),
        (errors.AssociationTimeout("", 1), Retry.LATER),
        (errors.AssociationRejected(1, 1, 1), Retry.AFTER_CONFIG),
        (errors.AssociationRejected(2, 3, 1), Retry.LATER),
        (errors.AssociationRejected(0, 0, 0), Retry.AFTER_CONFIG),
        (errors.NoAcceptedContexts(), Retry.NEVER),
        (errors.AssociationAborted(0, 0), Retry.NEW_ASSOCIATION),
        (errors.ConnectionLost(), Retry.NEW_ASSOCIATION),
        (errors.OperationTimeout("", 1, 0), Retry.NEW_ASSOCIATION),
        (errors.InvalidObject(""), Retry.NEVER),
        (errors.NoPresentationContext("1.2", "1.3"), Retry.NEVER),
        (errors.LedgerError("run.db", ""), Retry.AFTER_CONFIG),
        (errors.StatusError(None, ""), Retry.NEVER),
    ],
    ids=lambda each: type(each).__name__,
)
def test_when_to_try_again(error: errors.TrioDicomError, retry: Retry) -> None:
    assert error.retry is retry


def test_errno_is_that_of_the_last_address() -> None:
    error = errors.ConnectFailed("A@h:1", (("a", OSError(1, "x")), ("b", OSError(errno.EHOSTUNREACH, "y"))))
    assert error.errno == errno.EHOSTUNREACH
    assert errors.ConnectFailed("A@h:1").errno is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        (b"plain", "plain"),
        ("two\nlines\r\x1b[31m", r"two\nlines\r\x1b[31m"),
        (b"\xff\x00", r"\xff\x00"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64 + "..."),
        (b"x" * 1000, "x" * 64 + "..."),
        ("\u202e", r"\u202e"),
    ],
)
def test_a_peers_words_are_escaped_and_cut(text: str | bytes, shown: str) -> None:
    assert errors.printable(text) == shown
