"""What the peer does that we call."""

from __future__ import annotations

from .fault_row import FaultRow as Row

REQUESTOR = (
    Row(
        1,
        "Nobody listens there, the host has no such name, or the network is unreachable",
        "`ConnectFailed`, with each address that was tried and its error. Nothing was sent: `NOT_SENT`, `LATER`.",
    ),
    Row(
        2,
        "It takes the connection and says nothing",
        "`AssociationTimeout` when `Timeouts.association` has passed, A(0, 0), closed. `NOT_SENT`, `LATER`.",
    ),
    Row(
        3,
        "It rejects the association, for any reason of the standard",
        "`AssociationRejected` with result, source and reason; nothing was sent. `LATER` if the result is 2 "
        "(transient), and `AFTER_CONFIG` if it is 1 (permanent).",
    ),
    Row(
        4,
        "It rejects with a result, source or reason that the standard does not have",
        "The same, with the values as they came; permanent unless the result is 2.",
    ),
    Row(
        5,
        "It accepts a presentation context that was not proposed, one of an even ID, or one twice",
        "`InvalidPDU`, A(2, 6).",
    ),
    Row(
        6,
        "It accepts a context with a transfer syntax that was not proposed, with none, or with two",
        "That context is not used, nothing is ever sent on it: `NO_CONTEXT` for its objects. What stands in a context "
        "that is rejected is not looked at.",
    ),
    Row(
        7,
        "It accepts the association, and none of its contexts",
        "`NoAcceptedContexts`; the association is released. The objects are `NO_CONTEXT`: it is not an error of the "
        "network.",
    ),
    Row(8, "It leaves contexts out of its answer", "They count as rejected; the others are used."),
    Row(
        9,
        "Its answer has other AE titles, bytes in reserved fields, or user items that nobody knows",
        "Accepted, as the standard has it: these are not tested.",
    ),
    Row(
        10,
        "It names no maximum length of a PDU, or 0, which is none",
        "Our PDUs keep to `AssociationSettings.send_pdu_length`.",
    ),
    Row(
        11,
        "It names a maximum length of a few bytes",
        "1 to 7 have no room for data: `PeerLimitUnusable`, and the association is released. From 8 on objects are "
        "sent, in fragments of even length.",
    ),
    Row(12, "It names a maximum length of 4,294,967,295", "Nothing of that size is made: our own maximum holds."),
    Row(13, "It answers in another application context", "Taken, with a warning in the log."),
    Row(
        14,
        "Its answer cannot be read: an item that goes on behind the end, a UID that is empty, too long or no UID",
        "`InvalidPDU`, A(2, 6). No more is held in memory than came.",
    ),
    Row(
        15,
        "A PDU of any type declares a length of 0, 2 GiB or 4 GiB",
        "Refused by its first 6 bytes, with `InvalidPDU` and A(2, 6); nothing is allocated.",
    ),
    Row(
        16,
        "A PDU of fixed length (A-ASSOCIATE-RJ, A-RELEASE-RQ and -RP, A-ABORT) declares another one",
        "`InvalidPDU`, A(2, 6).",
    ),
    Row(
        17,
        "A PDU of unknown type, or another protocol: HTTP, TLS, SSH",
        "`UnrecognisedPDU`, A(2, 1), with a hint if it is HTTP, TLS or SSH.",
    ),
    Row(
        18,
        "It accepts twice, accepts what is already accepted, or asks for an association itself",
        "`UnexpectedPDU`, A(2, 2). What was sent and not answered is `IN_DOUBT`.",
    ),
    Row(19, "It sends data before its answer to the association request", "`UnexpectedPDU`, A(2, 2)."),
    Row(
        20,
        "Presentation data values (PDVs) that do not fill their PDU: of length 0 or 1, too long, bytes left over",
        "`InvalidPDU`, A(2, 6).",
    ),
    Row(
        21,
        "A PDV on a presentation context that was not accepted, or of an even ID",
        "`UnexpectedPDU`, A(2, 5).",
    ),
    Row(22, "Reserved bits of a control header are set", "Not looked at."),
    Row(
        23,
        "Data where a command should be, a command between data, mixed messages, an answer on another context",
        "`UnexpectedPDU`, A(2, 6); `InvalidResponse`, A(2, 5), for an answer on another context that was accepted. "
        "What waited for its answer is `IN_DOUBT`.",
    ),
    Row(
        24,
        "A command set without an end, or empty fragments without an end",
        "A(2, 6) at `Limits.command_set`, `Limits.command_fragments` or `Limits.empty_pdvs`.",
    ),
    Row(
        25,
        "A command set that cannot be read: cut off, of odd length, elements of other groups, undefined lengths",
        "`DIMSEDecodeError`, A(2, 6). A group length that is wrong or missing, and nothing else, is tolerated.",
    ),
    Row(
        26,
        "A response without Status or Message ID, with a wrong Command Field, or with numbers of a wrong length",
        "`InvalidResponse` or `DIMSEDecodeError`, A(2, 6). The object is `IN_DOUBT`, and never stored, nor stored "
        "with a warning.",
    ),
    Row(
        27,
        "A response to a message ID that is not in flight",
        "`UnexpectedMessageID`, A(0, 0). The object is `IN_DOUBT`.",
    ),
    Row(
        28,
        "A response with the UID of another instance or SOP class",
        "`InvalidResponse`, A(0, 0). The object is `IN_DOUBT`. A response without UIDs counts, since they are "
        "optional, and so does one whose UID is padded with NUL or spaces.",
    ),
    Row(
        29,
        "A response of another service, or a request in its place",
        "`InvalidResponse` or `UnexpectedPDU`, A(0, 0). The object is `IN_DOUBT`.",
    ),
    Row(
        30,
        "A second response to the same request, at once or when the next request is out",
        "`UnexpectedMessageID`, A(0, 0). The first object keeps its outcome; the next one is `IN_DOUBT`, or "
        "`NOT_SENT` if it was not out: never stored by an answer that was not its own.",
    ),
    Row(
        31,
        "A response to nothing, or before its request",
        "`UnexpectedMessageID` or `InvalidResponse`, A(0, 0). No object is affected.",
    ),
    Row(
        32,
        "A response before our last byte was sent",
        "A success is not believed: `InvalidResponse`, A(0, 0), `IN_DOUBT`. A failure is: `REFUSED` with its status; "
        "the rest of the object is not sent, and the association is aborted.",
    ),
    Row(
        33,
        "Status Pending or Cancel, in answer to a C-STORE",
        "`InvalidResponse`, A(0, 0), `IN_DOUBT`: it is no status of this service. Nothing more is waited for.",
    ),
    Row(
        34,
        "A status that is not known, or a warning that is not one of C-STORE",
        "`REFUSED` with that status, never stored.",
    ),
    Row(
        35,
        "A response announces a data set",
        "It is read and dropped, up to `Limits.response_data_set`, and the answer counts. If it does not come within "
        "the timeout, or has more: A(0, 0), `IN_DOUBT`.",
    ),
    Row(
        36,
        "An Error Comment that is long, of 8-bit characters, or with control characters",
        "As it came in `CStoreResponse.error_comment`; escaped and cut in logs and errors.",
    ),
    Row(
        37,
        "It asks for release while objects are being sent",
        "In the middle of a message: A(0, 0). Between messages the release is answered, and there is "
        "`AssociationClosed`. The object whose answer was awaited is `IN_DOUBT`, the others `NOT_SENT`.",
    ),
    Row(38, "Both ask for release at once", "Both answers are exchanged, both sides end well."),
    Row(39, "It sends messages while we wait for its answer to our release", "They are dropped; the deadline stays."),
    Row(
        40,
        "It does not answer our release",
        "A(0, 0) after `Timeouts.release`, and a line in the log. What was stored remains so.",
    ),
    Row(41, "It answers a release that nobody asked for", "`UnexpectedPDU`, A(2, 2)."),
    Row(
        42,
        "It aborts while we send, with any source and reason",
        "`AssociationAborted` at once, also while a write is blocked. The objects are `NOT_SENT`, or `IN_DOUBT` if "
        "their last byte had gone.",
    ),
    Row(
        43,
        "It closes the connection: inside a response, after its acceptance, in place of an answer to the release",
        "`ConnectionLost`; what waited for its answer is `IN_DOUBT`. Where everything is answered it is no error.",
    ),
    Row(44, "The connection is reset, at any place", "`ConnectionLost`; trio's own errors do not come through."),
    Row(
        45,
        "It stalls at any byte of an acceptance, a response or an answer to a release",
        "The deadline of that wait passes: A(0, 0), and what it says in its place.",
    ),
    Row(
        46,
        "What it sends comes byte by byte, or all at once",
        "Nothing is different.",
    ),
    Row(47, "It sends a byte now and then", "Deadlines count from the beginning: they pass all the same."),
    Row(
        48,
        "It never reads, while we have 2 GiB to send",
        "`OperationTimeout` after `CStoreOptions.timeout` without progress; memory stays as it is; an A-ABORT of the "
        "peer is still seen.",
    ),
    Row(49, "It sends garbage without an end while we send", "An abort as soon as it shows; memory stays as it is."),
    Row(
        50,
        "The answer comes when its request has timed out",
        "The association has been aborted: the answer is never counted, for this object or for another.",
    ),
    Row(
        51,
        "It answers the asynchronous operations window with more than proposed, with 0, or not at all",
        "Never more than proposed; without an answer one operation at a time; 0, no limit, is "
        "`Limits.operations_window`.",
    ),
    Row(52, "Responses in another order, within the window", "Each is matched by its message ID."),
    Row(53, "More than 65,535 messages", "Message IDs begin again at 1; those still in use are left out."),
    Row(
        54,
        "Its answer has a role that was not proposed, or lacks one that was",
        "The defaults hold: the requestor is the SCU. A request in a role that was not agreed on: A(0, 0).",
    ),
    Row(
        55,
        "It does not confirm the user identity, where it was asked to",
        "`IdentityNotConfirmed`, A(0, 0). The identity is in no log and no error.",
    ),
    Row(
        56,
        "C-FIND: pending responses without an end, or without an identifier",
        "A limit, then C-CANCEL, then an abort.",
        "there is no C-FIND SCU yet",
    ),
    Row(
        57,
        "C-MOVE and C-GET: counts of sub-operations that contradict each other",
        "Reported as they came; success only with status 0000 and none failed.",
        "there is no C-MOVE and C-GET SCU yet",
    ),
    Row(
        58,
        "C-GET: an object under a UID that is a path",
        "As when it is received (row 75).",
        "there is no C-GET SCU yet",
    ),
    Row(
        59,
        "Storage commitment: a report of an unknown transaction, or of instances that were not asked for",
        "What was not committed in so many words is not committed.",
        "there is no storage commitment yet",
    ),
)
