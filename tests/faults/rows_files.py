"""What is wrong with a file that is to be sent. "Invalid" is `InvalidObject`, and the outcome `INVALID`."""

from __future__ import annotations

from .fault_row import FaultRow as Row

FILES = (
    Row(93, "It is empty, or has less than 132 bytes", "Invalid: no DICOM file. The others are sent."),
    Row(
        94,
        "It has no preamble, no File Meta Information, or is a JPEG, a ZIP, a text",
        "Invalid, with the reason. No transfer syntax is ever guessed.",
    ),
    Row(
        95,
        "The group length of its File Meta Information is absent, wrong or enormous",
        "Tolerated: it is read element by element, up to 64 KiB.",
    ),
    Row(
        96,
        "It names no transfer syntax, or one that nobody knows",
        "None: invalid. An unknown one that is a UID is proposed as it is.",
    ),
    Row(
        97,
        "Its File Meta Information has other UIDs than its data set",
        "Invalid: an object never goes out under two names.",
    ),
    Row(
        98,
        "Its UIDs are missing, of several values, too long, or no UIDs",
        "Invalid. Padding by one NUL or space is taken off; a leading zero in a component is let pass.",
    ),
    Row(
        99,
        "It is cut off: in an element, in the pixel data, inside a sequence",
        "Invalid. It shows before the first byte goes out; in a stream whose bytes are not in memory, before the last "
        "one does: then the association is aborted, and the peer never has all of it.",
    ),
    Row(
        100,
        "Its data set has an odd length",
        "Invalid; no PDV of odd length is ever sent. An element of odd length in a data set of even length goes out "
        "as it lies.",
    ),
    Row(
        101,
        "Its data set has elements of group 0000 or 0002, or something behind its end",
        "Groups 0000 and 0002: invalid. Padding (FFFC,FFFC) belongs to it.",
    ),
    Row(
        102,
        "Its transfer syntax is deflated",
        "Sent as it is, still deflated, where the peer accepts that; else encoded anew (row 104), which a stream "
        "cannot be: `NO_CONTEXT`.",
    ),
    Row(
        103,
        "It is compressed, and the peer accepts uncompressed objects only, or the other way round",
        "`NO_CONTEXT`; nothing is decompressed or compressed unless you ask for it (:doc:`converting`).",
    ),
    Row(
        104,
        "The peer accepts another uncompressed transfer syntax than its own",
        "From one of Explicit, Implicit and Deflated VR Little Endian into another it is encoded anew: each value "
        "keeps its bytes. Big Endian: `NO_CONTEXT`, unless you ask for it.",
    ),
    Row(
        105,
        "It is a DICOMDIR",
        "Never sent as an object. If it is named itself, the files that it lists are sent, so far as they lie "
        "beneath its folder, links included.",
    ),
    Row(
        106,
        "It is a folder, a FIFO, a socket, a device, or a symbolic link to nothing or to itself",
        "Invalid, at once: only regular files are opened.",
    ),
    Row(
        107,
        "It cannot be opened, vanishes, fails while it is read, or lies on a file server that hangs",
        "`ReadError`. If a part had gone out, the association is aborted, the object is `NOT_SENT`, and the others "
        "go over another one. What hangs, hangs in a thread, and can be cancelled.",
    ),
    Row(
        108,
        "It grows, shrinks, or is replaced or written to while it is sent",
        "`ObjectChanged`, `NOT_SENT`: it is looked at once more before its last fragment goes out. The association "
        "is aborted; the peer never has all of it.",
    ),
    Row(
        109,
        "It has more than 4 GiB, or there are very many, or of very many kinds",
        "Memory stays as it is; kinds that do not fit into one association go over several.",
    ),
    Row(
        110,
        "The same file, or the same UID, is there twice",
        "Each input has its outcome; `SenderOptions.same_instance` says whether it is sent twice.",
    ),
    Row(
        111,
        "Its name has bytes that are no text, a line feed, 255 characters, or begins with a hyphen",
        "It is sent; the name is escaped in logs and errors.",
    ),
)
