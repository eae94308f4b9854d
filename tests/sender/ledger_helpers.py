"""Inputs for ledgers, and what a ledger says of them, read from the file as any program could."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from trio_dicom import InstanceReport, Outcome, Retry, Status
from trio_dicom.sender.ledger import InputIdentity, LedgerEntry

CT = "1.2.840.10008.5.1.4.1.1.2"
PEER = "PACS@10.0.0.5:104"


def identity(number: int, **other: Any) -> InputIdentity:
    return InputIdentity(**{"name": b"/data/%d.dcm" % number, "size": 1000 + number, "mtime_ns": 5, **other})


def entry(of: InputIdentity | int) -> LedgerEntry:
    of = identity(of) if isinstance(of, int) else of
    return LedgerEntry(of, CT, "1.2.3")


def report(outcome: Outcome = Outcome.STORED, **other: Any) -> InstanceReport:
    """A report as a sender makes it; of what failed, to be tried again unless it says otherwise."""
    retry = Retry.NEVER if outcome.is_stored or outcome is Outcome.ALREADY_PRESENT else Retry.LATER
    status = Status(0) if outcome is Outcome.STORED else None
    fields = {"status": status, "attempts": 1, "bytes_sent": 700, "retry": retry, "reason": ""}
    return InstanceReport(
        path="as called", outcome=outcome, sop_class_uid=CT, sop_instance_uid="1.2.3", **fields | other
    )


def rows(path: Path) -> dict[bytes, dict[str, Any]]:
    """The rows of the view `report`, by name."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes  # names may be no UTF-8
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM report ORDER BY number")]
    return {
        row["name"]: {
            k: v.decode() if isinstance(v, bytes) and k not in ("name", "path") else v for k, v in row.items()
        }
        for row in found
    }


def outcomes(path: Path) -> dict[bytes, str]:
    """By the names without folder and suffix."""
    return {name.removeprefix(b"/data/").removesuffix(b".dcm"): row["outcome"] for name, row in rows(path).items()}
