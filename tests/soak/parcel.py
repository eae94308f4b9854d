"""Parcel: an object that is sent in a soak, what is done with it at the receiver, and what is said of it at the end."""

from __future__ import annotations

import enum

import attrs
import trio

from trio_dicom import InstanceReport, InvalidObject, Outcome
from trio_dicom.protocol.status import Status
from trio_dicom.sources.part10 import parse_head
from trio_dicom.testing import SOPClass, instance_uid, make_instance_file


class Treatment(enum.Enum):
    """What the receiver does with a request, where it does not simply answer with a status."""

    STORE = "store"
    PAUSE = "pause"  # until the sender has left; then it stores what comes
    LATE = "late"  # it stores, and answers when the sender has left
    MUTE = "mute"  # it does nothing at all
    RAISE = "raise"
    ABORT_BEFORE = "abort before"
    ABORT_MIDDLE = "abort in the middle"
    ABORT_AFTER = "abort after"


@attrs.define(eq=False)
class Parcel:
    """One object. Its bytes are made anew whenever they are looked at: thousands may be under way."""

    number: int
    size: int  # of its pixels
    scene: str
    may_end: frozenset[Outcome]
    treatments: list[Treatment | int]  # of the first requests for it; further ones are stored
    outcome: Outcome | None = None
    status: Status | None = None
    reports: int = 0
    answers: list[int] = attrs.field(factory=list)  # the receiver's
    begun: trio.Event = attrs.field(factory=trio.Event)  # it has come to the receiver
    stored: trio.Event = attrs.field(factory=trio.Event)  # the receiver has filed it
    left: trio.Event = attrs.field(factory=trio.Event)  # the sender waits no more

    @property
    def uid(self) -> str:
        return instance_uid(self.number)

    @property
    def file(self) -> bytes:
        return make_instance_file(self.size, SOPClass.CT, number=self.number)

    def note(self, report: InstanceReport) -> None:
        """What its sender says of it."""
        self.reports += 1
        self.outcome, self.status = report.outcome, report.status

    def lie(self, filed: bytes | None) -> str | None:
        """What is wrong with what is said of it, where the receiver has `filed` this."""
        if self.outcome is None or self.reports != 1:
            return f"it has {self.reports} outcomes"
        is_there = filed is not None
        if is_there and data_set_of(filed) != data_set_of(self.file):
            return "other bytes were filed than were sent"
        truth = {
            Outcome.STORED: is_there and 0 in self.answers,
            Outcome.STORED_WITH_WARNING: is_there and self.status in self.answers,
            Outcome.ALREADY_PRESENT: self.answers[-1:] == [0x0111],
            Outcome.REFUSED: not is_there and self.answers[-1:] == [self.status],
            Outcome.IN_DOUBT: True,
        }.get(self.outcome, not is_there)
        if not truth:
            there = "there" if is_there else "not there"
            answers = ", ".join(f"{answer:04X}" for answer in self.answers) or "nothing"
            return f"{self.outcome.value}, it says, and it is {there}, and was answered with {answers}"
        if self.outcome not in self.may_end:
            return f"{self.outcome.value} is no end that this can come to"
        return None


def data_set_of(file: bytes) -> bytes:
    """What follows the head of a DICOM file; of what is none, nothing."""
    try:
        head = parse_head(file, at_end=True)
    except InvalidObject:
        head = None
    return b"" if head is None else file[head.data_set_offset :]
