"""What the exit code of a command says; 65 to 75 are those of sysexits.h."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import attrs

from ..errors import Retry
from ..sender.outcome import InstanceReport, Outcome


class ExitCode(enum.IntEnum):
    """129, 130 and 143, after SIGHUP, SIGINT and SIGTERM, are 128 and the signal's number."""

    OK = 0  # every input was stored; a receiver was stopped, and cut no object off
    NOT_STORED = 1  # some were not, and trying again will not help
    USAGE = 2
    NO_INPUT = 65  # no input is a DICOM object that can be sent
    REFUSED = 69  # the peer refused for good, as a whole
    TRY_AGAIN = 75  # some were not stored, and trying again may help; the port, or the ledger, is in use


@attrs.define
class Verdict:
    """What is to be made of all inputs, of which it is told one by one."""

    accepts_present: bool = False  # what the peer had before counts as stored
    _inputs: int = 0
    _invalid: int = 0
    _without_context: int = 0
    _left: int = 0  # not stored
    _passing: int = 0  # of those left: trying again may help

    def add(self, report: InstanceReport) -> None:
        """One more input."""
        self._inputs += 1
        self._invalid += report.outcome is Outcome.INVALID
        self._without_context += report.outcome is Outcome.NO_CONTEXT
        if not self.is_delivered(report):
            self._left += 1
            self._passing += report.retry in (Retry.LATER, Retry.NEW_ASSOCIATION)

    def is_delivered(self, report: InstanceReport) -> bool:
        """Whether it counts as stored."""
        is_present = self.accepts_present and report.outcome is Outcome.ALREADY_PRESENT
        return is_present or report.is_delivered

    def exit_code(self, *, is_peer_refusal: bool = False, is_complete: bool = True) -> ExitCode:
        """The code for all of them.

        `is_peer_refusal`: no association came about, for good. Without `is_complete` there may be more inputs.
        """
        is_refused = is_peer_refusal or 0 < self._without_context == self._inputs - self._invalid
        if self._invalid == self._inputs and is_complete:
            return ExitCode.NO_INPUT
        if not self._left and is_complete:
            return ExitCode.OK
        if is_refused:
            return ExitCode.REFUSED
        return ExitCode.TRY_AGAIN if self._passing or not is_complete else ExitCode.NOT_STORED


def exit_code_of(reports: Iterable[InstanceReport], *, is_peer_refusal: bool = False) -> ExitCode:
    """The code for what became of all inputs. `is_peer_refusal`: no association came about, for good."""
    verdict = Verdict()
    for report in reports:
        verdict.add(report)
    return verdict.exit_code(is_peer_refusal=is_peer_refusal)
