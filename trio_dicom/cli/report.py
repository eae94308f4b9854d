"""The report: one line of JSON for each input, or each object that came, written as soon as it is settled."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from ..sender.outcome import InstanceReport


class ReportWriter:
    """Writes NDJSON to a file, a new one or on after what is there (`append`), or nowhere if there is no path.

    Raises `OSError` at once if the file cannot be made, `ValueError` if it is a DICOM file.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, append: bool = False) -> None:
        self.failure: OSError | None = None  # the first that befell a line; the transfer goes on
        self._file: io.FileIO | None = None  # one system call for a line: others may append to the file, too
        self._is_torn = False  # what is there ends in the middle of a line
        self.name = os.path.basename(path) if path is not None else ""
        self._status: os.stat_result | None = None
        if path is not None:
            if _is_dicom(path):
                raise ValueError("it is a DICOM file, which would be overwritten")
            self._is_torn = append and _ends_in_a_line(path)
            self._file = open(path, "ab" if append else "wb", buffering=0)  # noqa: SIM115
            self._status = os.fstat(self._file.fileno())

    def is_at(self, path: str) -> bool:
        """Whether `path` leads to the file that is being written."""
        if self._status is None:
            return False
        try:
            return os.path.samestat(os.stat(path), self._status)
        except (OSError, ValueError):
            return False

    def write(self, report: InstanceReport) -> None:
        """One line."""
        if self._file is not None:
            self.write_fields(full_json(report))

    def write_fields(self, fields: Mapping[str, object]) -> None:
        """One line, of these."""
        if self._file is None:
            return
        import json  # most runs write no report

        line = "\n" * self._is_torn + json.dumps(fields) + "\n"
        left = memoryview(line.encode("ascii"))
        try:
            while left:
                left = left[self._file.write(left) :]
                self._is_torn = bool(left)
        except OSError as error:
            self.failure = self.failure or error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _is_dicom(path: str | os.PathLike[str]) -> bool:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0, opener=_open_at_once) as file:
        return (file.read(132) or b"")[128:] == b"DICM"
    return False


def _ends_in_a_line(path: str | os.PathLike[str]) -> bool:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0, opener=_open_at_once) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    return False


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for its other end


def as_json(report: InstanceReport) -> dict[str, object]:
    """The fields of a line; the outcome in lower case, the status a number or null."""
    return {
        "path": report.path,
        "sop_class_uid": report.sop_class_uid,
        "sop_instance_uid": report.sop_instance_uid,
        "transfer_syntax_uid": report.transfer_syntax_uid,
        "outcome": report.outcome.value,
        "status": None if report.status is None else int(report.status),
        "attempts": report.attempts,
        "bytes": report.bytes_sent,
        "reason": report.reason,
    }


def full_json(report: InstanceReport) -> dict[str, object]:
    """The same, with what more there is to say."""
    return {
        **as_json(report),
        "retry": report.retry.value,
        "was_in_doubt": report.was_in_doubt,
        "earlier": report.is_earlier,
    }
