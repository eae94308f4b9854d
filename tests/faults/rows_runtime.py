"""What is done to the library from its own side: cancellation, crashes; and TLS."""

from __future__ import annotations

from .fault_row import FaultRow as Row

RUNTIME = (
    Row(
        112,
        "A call is cancelled, at any checkpoint of it",
        "What :doc:`cancellation` promises: whole PDUs, an A-ABORT only between PDUs, nothing left behind.",
    ),
    Row(
        113,
        "It is cancelled twice, or while it cleans up, or at once; Ctrl-C; a neighbour in the nursery crashes",
        "The same; an exception goes on by itself or in the group of your own nursery.",
    ),
    Row(
        114,
        "Several tasks use one association",
        "One message after another, never mixed.",
    ),
    Row(
        115,
        "A callback, an iterator or a stream of yours raises in the middle of sending",
        "A(0, 0) if a part had gone out. A source's error is the cause of a `ReadError`; that of an iterator of "
        "inputs goes on as it is. Each input has its outcome.",
    ),
    Row(
        116,
        "The receiver is killed, or the power fails, at any moment",
        "No part of an object under a final name; what was acknowledged is on the disk.",
    ),
    Row(117, "The wall clock is set", "No deadline notices: they are measured by a clock that only goes on."),
)

TLS = (
    Row(
        118,
        "The certificate is of an unknown authority, expired, not valid yet, of another host, or for another use",
        "`TLSVerifyError` before the first byte of DICOM; `AFTER_CONFIG`.",
    ),
    Row(119, "The peer has nothing but TLS 1.1 or weak ciphers", "`TLSError`: the handshake fails."),
    Row(
        120, "One side speaks TLS, and the other does not", "An error that says so; plain TCP is never fallen back to."
    ),
    Row(
        121,
        "A handshake that stalls, drips, is garbage, or half closed",
        "It has a task and a deadline of its own (`Timeouts.tls_handshake`); others are let in meanwhile.",
    ),
    Row(
        122,
        "The client has no certificate, or one that is not trusted, or another AE title than it stands for",
        "It is not let in.",
    ),
    Row(
        123,
        "The connection ends without TLS's good-bye",
        "`ConnectionLost`, what waited for an answer is `IN_DOUBT`; after a release it is tolerated.",
    ),
    Row(
        124,
        "Renegotiation, many key updates, session tickets, records of a byte",
        "No renegotiation and no 0-RTT; the data comes through as it was sent.",
    ),
    Row(
        125,
        "A write over TLS is cancelled",
        "The connection counts as broken, and is closed without an A-ABORT.",
    ),
)
