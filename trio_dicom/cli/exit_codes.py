"""What the exit code of a command says; 65 to 75 are those of sysexits.h."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ..errors import Retry
from ..sender.outcome import InstanceReport, Outcome


class ExitCode(enum.IntEnum):
    """130 and 143, after SIGINT and SIGTERM, are 128 and the signal's number."""

    OK = 0  # every input was stored; a receiver was stopped, and cut no object off
    NOT_STORED = 1  # some were not, and trying again will not help
    USAGE = 2
    NO_INPUT = 65  # no input is a DICOM object that can be sent
    REFUSED = 69  # the peer refused for good, as a whole
    TRY_AGAIN = 75  # some were not stored, and trying again may help; the port is in use


def exit_code_of(reports: Sequence[InstanceReport], *, is_peer_refusal: bool = False) -> ExitCode:
    """The code for what became of all inputs. `is_peer_refusal`: no association came about, for good."""
    if all(report.outcome is Outcome.INVALID for report in reports):
        return ExitCode.NO_INPUT
    if all(report.outcome.is_stored for report in reports):
        return ExitCode.OK
    if is_peer_refusal:
        return ExitCode.REFUSED
    left = [report for report in reports if not report.outcome.is_stored]
    may_help = any(report.retry in (Retry.LATER, Retry.NEW_ASSOCIATION) for report in left)
    return ExitCode.TRY_AGAIN if may_help else ExitCode.NOT_STORED
