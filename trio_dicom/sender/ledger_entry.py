"""What a ledger is told of an input: apart from it, since most senders have none."""

from __future__ import annotations

import attrs


@attrs.frozen
class InputIdentity:
    """What tells an input from others, and, with the same name, from its former self.

    Inputs that are given twice have equal ones, but each has its own: it is told by the object which of them has ended.
    """

    name: bytes  #: `os.fsencode` of its absolute path; "!member" follows that of an archive
    size: int | None = None  #: bytes
    mtime_ns: int | None = None  #: time of its last modification


@attrs.frozen
class LedgerEntry:
    """An object that is to be sent."""

    identity: InputIdentity
    sop_class_uid: str
    sop_instance_uid: str
