"""What a person, or a program, sees of a transfer: plain lines, JSON lines, or a live display (see `live`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import trio

from ..errors import printable
from ..sender.outcome import InstanceReport, Outcome
from ..sender.reports import TransferReport
from ..sender.sender import Sender
from ..services.storage_scu import ProgressChannel
from ..sources.threads import run_abandonable
from .estimate import Estimate, Estimator
from .line_queue import LAST_WAIT, LineQueue
from .report import full_json
from .scan import Scan
from .wording import duration, plural, size_of, spelled

if TYPE_CHECKING:
    from .failures import FailureGroups

TICK = 0.25  # s
PROGRESS_EVERY = 10.0  # s from one plain line about the progress to the next
SCAN_AFTER = 5.0  # s: a transfer that is over by then needs no totals
GROUPS_SHOWN = 20  # of failures
MOST_AHEAD, ENOUGH_READ = 1000, 500  # JSON lines that nobody has read yet, before no further input is settled


@attrs.frozen
class Ending:
    """How a transfer ended."""

    totals: TransferReport
    is_complete: bool  # all inputs are known
    outcomes: dict[Outcome, int]
    failure: str | None  # why the destination was given up
    code: int  # of the command


class TransferDisplay:
    """Plain lines: one for each object that was not stored, at once, and some about the progress if it takes long."""

    progress: ProgressChannel | None = None  # for that of the objects that are on their way

    def __init__(self, *, quiet: bool = False, shows_progress: bool = True) -> None:
        self._lines = LineQueue()
        self._quiet = quiet
        self._shows_progress = shows_progress and not quiet
        self._estimator = Estimator()
        self._ticks = 0

    # --- what happens

    def settled(self, report: InstanceReport) -> None:
        """An input has come to its end."""
        self._estimator.settled(report)
        if is_news(report):
            self.say(line_of(report))

    async def wait_room(self) -> None:
        """Wait, if nothing further is to be settled before somebody has read what was said."""

    def say(self, text: str) -> None:
        """A line of its own, on standard error."""
        self._lines.put(text, to_errors=True)

    async def run(self, sender: Sender, scan: Scan) -> None:
        """Show how it goes on, until cancelled."""
        if not self._shows_progress:
            return
        await trio.sleep(SCAN_AFTER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan.run)
            self._estimate(sender, scan)
            await trio.sleep(PROGRESS_EVERY - SCAN_AFTER)
            while True:
                totals = sender.report
                associations = plural(totals.open_associations, "association")
                self.say(f"{self._estimate(sender, scan)}; {associations}")
                await trio.sleep(PROGRESS_EVERY)

    def _estimate(self, sender: Sender, scan: Scan) -> Estimate:
        return self._estimator.estimate(sender.report, scan, 0, trio.current_time())

    def summarise(self, ending: Ending) -> None:
        """The last lines."""
        if not self._quiet:
            for line in summary(ending):
                self._lines.put(line, always=True)
            if dropped := self._lines.dropped:
                self.say(f"{plural(dropped, 'line')} dropped, since nobody read them")

    def close(self, *, patiently: bool = True) -> OSError | None:
        """Wait until what was said is written, but not for a reader that does not read. What kept it from that."""
        self._lines.close()
        return None


class JSONDisplay(TransferDisplay):
    """A line of JSON for each input on standard output, and one for all. They wait for whoever reads them."""

    def settled(self, report: InstanceReport) -> None:
        self._put(full_json(report))

    async def wait_room(self) -> None:
        if self._lines.backlog > MOST_AHEAD:
            await run_abandonable(self._lines.wait_room, ENOUGH_READ)

    def summarise(self, ending: Ending) -> None:
        self._put(totals_json(ending))

    def close(self, *, patiently: bool = True) -> OSError | None:
        self._lines.close(None if patiently else LAST_WAIT)
        return self._lines.failure

    def _put(self, fields: dict[str, object]) -> None:
        import json  # most transfers have none

        self._lines.put(json.dumps(fields), always=True)


def open_display(*, quiet: bool, as_json: bool) -> TransferDisplay:
    """A live one if standard error is a terminal, and standard output is not needed for something else."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if as_json:
        return JSONDisplay(quiet=quiet, shows_progress=False)
    if quiet or not is_terminal:
        return TransferDisplay(quiet=quiet)
    from .live import LiveDisplay

    return LiveDisplay()


# --- in words ---------------------------------------------------------------------------------------------------------


def is_news(report: InstanceReport) -> bool:
    """Whether it gets a line: what was not stored, except for what was never begun, since all ended before."""
    is_unbegun = report.outcome is Outcome.NOT_SENT and not report.attempts
    return report.outcome is not Outcome.STORED and not is_unbegun


def line_of(report: InstanceReport) -> str:
    """`refused A700: a.dcm: Refused: Out of Resources`."""
    when = " (in an earlier run)" if report.is_earlier else ""
    name, reason = printable(report.path or "-", 400), printable(report.reason, 400)
    return f"{_outcome(report.outcome, report.status)}: {name}: {reason}{when}"


def summary(ending: Ending) -> Iterator[str]:
    """How many of how many, how much, and how fast."""
    totals = ending.totals
    counts = ", ".join(f"{count:,} {spelled(outcome)}" for outcome, count in ending.outcomes.items() if count)
    earlier = f" ({totals.earlier:,} in an earlier run)" if totals.earlier else ""
    seconds = max(totals.elapsed, 1e-9)
    amount = (
        f"{size_of(totals.bytes_stored)} in {duration(totals.elapsed)}, {totals.bytes_stored / seconds / 1e6:.1f} MB/s"
    )
    work = f"{plural(totals.attempts, 'attempt')}, {plural(totals.associations, 'association')}"
    if totals.failed_associations:
        work += f", {totals.failed_associations:,} that failed"
    yield f"{plural(totals.inputs, 'input')}{': ' if counts else ''}{counts}{earlier}; {amount}; {work}"


def failure_lines(failures: FailureGroups) -> Iterator[str]:
    """What was not stored, by reason, with some names."""
    groups = failures.largest_first()
    for each in groups[:GROUPS_SHOWN]:
        yield f"{heading(each.outcome, each.status, each.reason)}: {each.inputs:,}"
        for name in each.names:
            yield f"    {printable(name, 400)}"
        if each.inputs > len(each.names):
            yield f"    and {each.inputs - len(each.names):,} more"
    left = sum(each.inputs for each in groups[GROUPS_SHOWN:]) + failures.others
    if left:
        yield f"for other reasons: {left:,}"


def heading(outcome: Outcome, status: int | None, reason: str) -> str:
    """`refused A700 (Refused: Out of Resources)`."""
    return f"{_outcome(outcome, status)}{f' ({printable(reason, 400)})' if reason else ''}"


def _outcome(outcome: Outcome, status: int | None) -> str:
    return spelled(outcome) if status is None else f"{spelled(outcome)} {status:04X}"


# --- in JSON ----------------------------------------------------------------------------------------------------------


def totals_json(ending: Ending) -> dict[str, object]:
    """The fields of the last line: as `trio-dicom report --json` has them, as far as both have them."""
    totals = ending.totals
    return {
        "count": totals.inputs,
        "counts": {outcome.value: ending.outcomes.get(outcome, 0) for outcome in Outcome},
        "delivered": totals.delivered,
        "earlier": totals.earlier,
        "is_complete": ending.is_complete,
        "bytes_sent": totals.bytes_sent,
        "bytes_stored": totals.bytes_stored,
        "attempts": totals.attempts,
        "retries": totals.retries,
        "associations": totals.associations,
        "failed_associations": totals.failed_associations,
        "seconds": round(totals.elapsed, 3),
        "bytes_per_second": round(totals.bytes_per_second),
        "failure": ending.failure,
        "exit_code": int(ending.code),
    }
