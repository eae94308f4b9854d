"""What a peer does that calls us."""

from __future__ import annotations

from .fault_row import FaultRow as Row

ACCEPTOR = (
    Row(
        60,
        "It connects and says nothing, or drips",
        "Closed without a word after `Timeouts.artim`; others do not notice.",
    ),
    Row(
        61,
        "Silent connections by the thousand; no file descriptors left",
        "Those who have waited longest for their request make room (`Admission`); accepting goes on, and rests a "
        "little when there are no descriptors.",
    ),
    Row(
        62,
        "An association request of a length that cannot be, or another PDU or protocol in its place",
        "Refused by its first 6 bytes: A(2, 6); A(2, 1) for what is no PDU, and A(2, 2) for another PDU. Nothing is "
        "allocated.",
    ),
    Row(63, "A protocol version without bit 0", "Rejected: result 1, source 2, reason 2."),
    Row(64, "Another application context", "Rejected: result 1, source 1, reason 2."),
    Row(
        65,
        "An AE title that is not let in, its own or ours",
        "Rejected: result 1, source 1, reason 3 (calling) or 7 (called). A user identity that `Admission` does not "
        "accept: reason 1.",
    ),
    Row(
        66,
        "An AE title that is a path, blank, or has control or 8-bit characters",
        "Rejected as in row 65, unless it is one to the standard, as `../x` is. It is escaped in logs, and "
        "percent-encoded where a layout makes it a part of a path.",
    ),
    Row(
        67,
        "More associations than there may be",
        "Rejected at once: result 2, source 3, reason 2. A place is free again in whatever way an association ends.",
    ),
    Row(
        68,
        "No presentation context, more than 128, or with an ID that is even or there twice, or without its syntaxes",
        "A(2, 6). 128 contexts are answered, one by one.",
    ),
    Row(
        69,
        "Thousands of sub-items that declare more than they have",
        "A(2, 6). Nothing is read beyond an item's end, and memory stays as it is.",
    ),
    Row(
        70,
        "User information twice, a maximum length twice, or items of kinds that nobody knows",
        "Twice: A(2, 6). Unknown: not looked at.",
    ),
    Row(
        71,
        "A second association request, also in the middle of a data set",
        "A(2, 2). The handler is cancelled, the temporary file removed.",
    ),
    Row(
        72,
        "A PDU that is longer than we announced",
        "Taken up to `Limits.pdu_length`, with one warning in the log for an association; beyond that A(2, 6).",
    ),
    Row(
        73,
        "A C-STORE of another SOP class than that of its presentation context",
        "The data set is dropped, the answer is 0122, and the association goes on.",
    ),
    Row(
        74,
        "A C-STORE without UIDs, with a strange priority, or with message ID 0 or none",
        "Without a SOP class UID 0122, without an instance UID C000; without a message ID, which an answer needs, "
        "A(2, 6). Message ID 0 and any priority are taken.",
    ),
    Row(
        75,
        "A SOP Instance UID that is a path, a device, too long, of other digits, or otherwise no UID",
        "C000, nothing is filed. The name of a file is never taken from a peer unless it is a UID, of ASCII digits "
        "and dots; no link in the folder is followed.",
    ),
    Row(
        76,
        "The same UID twice, one after the other or at once, with other bytes",
        "Either the one or the other, whole, as `Duplicates` says; never a mixture.",
    ),
    Row(
        77,
        "A data set that is another instance's than its request says",
        "A900, nothing is filed.",
    ),
    Row(
        78,
        "The association ends inside a data set, at any byte",
        "No file is left, and no temporary one: after a receiver was killed, those go when the next one begins.",
    ),
    Row(79, "A data set of no bytes", "C000, no file."),
    Row(
        80,
        "Ten thousand nested sequences, or lengths that go on behind the end",
        "What is not needed is not parsed; what is, within a bound and without recursion.",
    ),
    Row(
        81,
        "A deflated data set that is damaged, or a bomb",
        "Filed as it comes, since only its beginning is inflated, to a limit, for what has to be known of it. Where "
        "that is damaged: C000, no file.",
    ),
    Row(
        82,
        "The disk is full, fails, or may not be written to",
        "A700, no file; the association goes on, and the next object works when there is room again.",
    ),
    Row(
        83,
        "A handler raises, hangs, or returns something else than a status",
        "0110, after `Timeouts.handler` at most; C000 for an `InvalidObject` that it raises. The association and all "
        "others go on.",
    ),
    Row(
        84,
        "A request of a service that nobody performs, or of an unknown Command Field; a response to nothing",
        "A request is answered with 0211, whatever it is. A response: A(0, 0), since its PDUs are in order; A(2, 6) if "
        "its Command Field is unknown.",
    ),
    Row(85, "A C-CANCEL of what is not there or is done", "Not looked at."),
    Row(
        86,
        "C-FIND with wildcards, keys or character sets that are made to be costly",
        "Matching in linear time, within limits.",
        "there is no C-FIND SCP yet; a request is answered with 0211",
    ),
    Row(
        87,
        "C-MOVE to an unknown destination",
        "A801; only destinations that were configured.",
        "there is no C-MOVE SCP yet; a request is answered with 0211",
    ),
    Row(
        88,
        "The peer goes away during a C-GET or C-MOVE",
        "The sub-operations stop.",
        "there is no C-GET and C-MOVE SCP yet; a request is answered with 0211",
    ),
    Row(
        89,
        "A message that comes a byte a second",
        "A(0, 0) where it is slower than `Limits.minimum_rate` over 60 s, or stops; the handler is cancelled, the "
        "temporary file removed.",
    ),
    Row(
        90,
        "A release or an abort in the middle of a data set",
        "The object is dropped, and no file is left; a release is answered.",
    ),
    Row(
        91,
        "It stays, or goes on sending, after our last word",
        "What comes is dropped; closed after `Timeouts.abort_linger`.",
    ),
    Row(
        92,
        "Associations, releases and aborts without an end",
        "No task, descriptor, place or memory is left by any.",
    ),
)
