"""`trio-dicom report`: what a ledger says, for people, and as JSON or CSV."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from ..errors import LedgerError, Retry, printable
from ..sender.ledger_view import Entry, LedgerView, Rate, Run, Tally
from ..sender.outcome import Outcome
from .connection import usage_error
from .display import print_line
from .exit_codes import ExitCode, exit_code_of
from .failures import FailureGroups, Failures
from .report import as_json
from .wording import duration, plural, size_of, spelled

GROUPS_SHOWN = 20
BARS = 60
BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
LINES_AT_ONCE = 1000


class Unread(Exception):
    """Nobody reads on, or nothing more can be written: `error` is None for the former."""

    def __init__(self, error: OSError | None) -> None:
        self.error = error


@attrs.frozen
class Summary:
    """All that is said of a ledger as a whole."""

    runs: Sequence[Run]
    tallies: Sequence[Tally]
    failures: Sequence[Failures]
    rates: Sequence[Rate]  # of the last run that stored something
    rated_run: Run | None
    now: float

    @property
    def counts(self) -> dict[Outcome, int]:
        """Inputs by their outcome, in the order of the outcomes; none that is zero."""
        found = {outcome: sum(each.inputs for each in self.tallies if each.outcome is outcome) for outcome in Outcome}
        return {outcome: count for outcome, count in found.items() if count}

    @property
    def inputs(self) -> int:
        return sum(each.inputs for each in self.tallies)

    @property
    def stored(self) -> int:
        return sum(each.inputs for each in self.tallies if each.outcome.is_stored)

    @property
    def bytes_stored(self) -> int:
        return sum(each.bytes_sent for each in self.tallies if each.outcome.is_stored)

    @property
    def attempts(self) -> int:
        return sum(each.attempts for each in self.tallies)

    @property
    def seconds(self) -> float:
        """Of all runs, without what was between them."""
        return sum(run.seconds(self.now) for run in self.runs)

    @property
    def exit_code(self) -> ExitCode:
        """What `send` would have ended with, had it been one run, as far as a ledger can tell."""
        refused = any(each.outcome is Outcome.NOT_SENT and each.retry is Retry.AFTER_CONFIG for each in self.tallies)
        return exit_code_of([each.as_report() for each in self.tallies], is_peer_refusal=refused)


def run_report(path: Path, *, as_json: bool, as_csv: bool, failed: bool) -> int:
    """Print what the ledger says, and give the exit code."""
    if as_json and as_csv:
        raise usage_error("--json and --csv are two formats: give one of them")
    try:
        with LedgerView(path) as view:
            summary = summarise(view)
            try:
                if as_json:
                    _write(_json(view, summary, failed=failed))
                elif as_csv:
                    _write(_csv(view.entries(failed=failed)))
                elif failed:
                    _write(f"{_line(each)}\n" for each in view.entries(failed=True))
                else:
                    _show(view.path, summary)
            except Unread as unread:
                if unread.error is not None:
                    print_line(f"trio-dicom: the output is incomplete: {unread.error.strerror}", to_errors=True)
                    return ExitCode.NOT_STORED
            return summary.exit_code
    except LedgerError as error:
        raise usage_error(str(error)) from None


def summarise(view: LedgerView) -> Summary:
    """All that is said of the ledger as a whole, as it is at one moment."""
    with view.at_one_moment():
        runs, tallies = view.runs(), view.tallies()
        rated_run = next((run for run in reversed(runs) if run.stored), None)
        rates = view.rates(rated_run, most=BARS) if rated_run is not None else []
        failures = FailureGroups(most=math.inf)
        for failure in view.failures():
            failures.add(*failure)
    return Summary(runs, tallies, failures.largest_first(), rates, rated_run, time.time())


# --- for people


def _show(path: str, summary: Summary) -> None:
    lines = list(_lines(path, summary))
    if not _is_terminal():
        _write(f"{text}\n" for text, _ in lines)
        return
    from rich.text import Text

    from .console import console

    output = console()
    for text, style in lines:
        output.print(Text(text, style))


def _lines(path: str, summary: Summary) -> Iterator[tuple[str, str]]:
    """Each with the style that it has on a terminal."""
    runs = summary.runs
    peer = f" of {printable(runs[-1].peer)}" if runs else ""
    counts = ", ".join(f"{count} {spelled(outcome)}" for outcome, count in summary.counts.items())
    is_well = summary.exit_code is ExitCode.OK
    yield f"ledger {printable(path, 400)}{peer}", ""
    yield f"{plural(summary.inputs, 'input')}{': ' if counts else ''}{counts}", "green" if is_well else "bold"
    seconds = summary.seconds
    amount = f"{size_of(summary.bytes_stored)} stored, {plural(summary.attempts, 'attempt')}"
    yield f"{amount}; {duration(seconds)} of sending, {_rate(summary.stored, summary.bytes_stored, seconds)}", ""
    yield "", ""
    for run in runs:
        yield _run_line(run, summary.now), "cyan" if run.is_running else ""
    for each in summary.failures[:GROUPS_SHOWN]:
        yield "", ""
        yield f"{_heading(each)}: {each.inputs}", "red"
        for name in each.names:
            yield f"    {printable(name, 400)}", ""
        if each.inputs > len(each.names):
            yield f"    and {each.inputs - len(each.names)} more: see --failed", ""
    if len(summary.failures) > GROUPS_SHOWN:
        yield "", ""
        yield f"{len(summary.failures) - GROUPS_SHOWN} other kinds of failure: see --failed", "red"
    if len(summary.rates) > 1 and summary.rated_run is not None:
        yield "", ""
        yield from _chart(summary.rated_run, summary.rates)


def _run_line(run: Run, now: float) -> str:
    seconds = run.seconds(now)
    state = "running" if run.is_running else "ended" if run.ended is not None else "cut off"
    done = f"{plural(run.inputs, 'input')}, {run.stored} stored, {size_of(run.bytes_stored)}"
    rate = _rate(run.stored, run.bytes_stored, seconds)
    return f"run {run.number}: {_clock(run.started)}, {duration(seconds)}, {state}: {done}, {rate}"


def _heading(failures: Failures) -> str:
    status = "" if failures.status is None else f" {failures.status:04X}"
    reason = f" ({printable(failures.reason, 400)})" if failures.reason else ""
    return f"{spelled(failures.outcome)}{status}{reason}"


def _chart(run: Run, rates: Sequence[Rate]) -> Iterator[tuple[str, str]]:
    length = rates[0].seconds
    yield f"run {run.number}, {duration(length)} a column, from {_clock(run.started)}", ""
    objects = [rate.objects / length for rate in rates]
    megabytes = [rate.bytes / length / 1e6 for rate in rates]
    yield f"objects/s {_bars(objects)} at most {max(objects):.1f}", ""
    yield f"MB/s      {_bars(megabytes)} at most {max(megabytes):.1f}", ""


def _bars(values: Sequence[float]) -> str:
    encoding = (sys.stdout.encoding or "ascii").replace("-", "").lower() if sys.stdout is not None else "ascii"
    levels = BLOCKS if encoding.startswith("utf") else LETTERS
    top = max(values) or 1.0
    return "".join(levels[round(value / top * (len(levels) - 1))] if value else " " for value in values)


def _rate(objects: int, size: int, seconds: float) -> str:
    seconds = max(seconds, 1e-9)
    return f"{objects / seconds:.1f} objects/s, {size / seconds / 1e6:.1f} MB/s" if objects else "nothing a second"


def _clock(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).isoformat(" ", "seconds")


def _line(entry: Entry) -> str:
    report = entry.report
    return f"{spelled(report.outcome)}: {printable(report.path or '-', 400)}: {printable(report.reason, 400)}"


# --- for programs


def _fields(entry: Entry) -> dict[str, object]:
    """Those of a line of the report of `send`, and what else the ledger has."""
    return {
        **as_json(entry.report),
        "retry": entry.report.retry.value,
        "was_in_doubt": entry.report.was_in_doubt,
        "run": entry.run,
        "begun": _utc(entry.begun),
        "settled": _utc(entry.settled),
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
    }


def _utc(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds")


def _json(view: LedgerView, summary: Summary, *, failed: bool) -> Iterator[str]:
    """One document, an input a line: there may be too many of them for one string."""
    head = json.dumps(_totals(view.path, summary), indent=1)
    yield head.removesuffix("\n}") + ',\n "inputs": ['
    separator = "\n  "
    for entry in view.entries(failed=failed):
        yield separator + json.dumps(_fields(entry))
        separator = ",\n  "
    yield "\n ]\n}\n"


def _totals(path: str, summary: Summary) -> dict[str, Any]:
    seconds = summary.seconds
    return {
        "ledger": path,
        "peer": summary.runs[-1].peer if summary.runs else None,
        "count": summary.inputs,
        "counts": {outcome.value: summary.counts.get(outcome, 0) for outcome in Outcome},
        "delivered": sum(each.inputs for each in summary.tallies if each.is_delivered),
        "bytes_stored": summary.bytes_stored,
        "attempts": summary.attempts,
        "seconds": round(seconds, 3),
        "objects_per_second": round(summary.stored / seconds, 3) if seconds else 0.0,
        "bytes_per_second": round(summary.bytes_stored / seconds) if seconds else 0,
        "runs": [_run_fields(run, summary.now) for run in summary.runs],
        "failures": [
            {
                "outcome": each.outcome.value,
                "status": each.status,
                "reason": each.reason,
                "count": each.inputs,
                "paths": each.names,
            }
            for each in summary.failures
        ],
        "rates": {
            "run": None if summary.rated_run is None else summary.rated_run.number,
            "columns": [
                {
                    "start": _utc(rate.start),
                    "seconds": round(rate.seconds, 3),
                    "objects": rate.objects,
                    "bytes": rate.bytes,
                }
                for rate in summary.rates
            ],
        },
    }


def _run_fields(run: Run, now: float) -> dict[str, Any]:
    return {
        "number": run.number,
        "peer": run.peer,
        "version": run.version,
        "started": _utc(run.started),
        "ended": _utc(run.ended),
        "is_running": run.is_running,
        "seconds": round(run.seconds(now), 3),
        "count": run.inputs,
        "stored": run.stored,
        "bytes_stored": run.bytes_stored,
    }


def _csv(entries: Iterable[Entry]) -> Iterator[str]:
    """A row for each input, below their names. On a terminal, names are escaped; elsewhere they are as they are."""
    is_seen = _is_terminal()
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(_fields(_NOTHING))
    for entry in entries:
        fields = _fields(entry) | {"was_in_doubt": int(entry.report.was_in_doubt)}
        if is_seen:
            fields |= {name: printable(str(fields[name]), 400) for name in ("path", "reason")}
        writer.writerow(fields.values())
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()  # the names, if there is nothing else


_NOTHING = Entry(Tally(Outcome.NOT_SENT, Retry.LATER, False, False, 0, 0, 0).as_report(), 0, None, None, None, None)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _write(pieces: Iterable[str]) -> None:
    """To standard output, past Python's buffers, where what cannot be written would be met once more at the exit."""
    if sys.stdout is None:  # it was closed before we began
        return
    fd = sys.stdout.fileno()
    pieces = iter(pieces)
    while some := list(itertools.islice(pieces, LINES_AT_ONCE)):
        left = memoryview("".join(some).encode("utf-8", "surrogateescape"))
        try:
            while left:
                left = left[os.write(fd, left) :]
        except BrokenPipeError:
            raise Unread(None) from None
        except OSError as error:
            raise Unread(error) from error
