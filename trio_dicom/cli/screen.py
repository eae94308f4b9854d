"""Screen: some lines at the bottom of a terminal that are kept up to date. Only this, and `console`, import rich."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..errors import printable
from ..sender.reports import TransferReport
from ..services.progress import TransferProgress
from .estimate import Estimate
from .failures import Failures
from .line_queue import LineQueue
from .transfer_display import heading
from .wording import plural, size_of

MOST_BACKLOG = 4  # pieces of output that the terminal has not taken yet, before it is left as it is
FAILURES_SHOWN = 3
OBJECTS_SHOWN = 4
BAR = 40  # columns


class _Terminal(io.TextIOBase):
    """Standard error, for rich, through a queue: a terminal that was stopped keeps nothing from its work."""

    def __init__(self, lines: LineQueue) -> None:
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.put(text, to_errors=True, end="")
        return len(text)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return sys.stderr.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return sys.stderr.encoding


class Screen:
    """See above; a context manager, after which nothing of it is left."""

    def __init__(self, lines: LineQueue) -> None:
        self._lines = lines
        self._console = Console(file=_Terminal(lines), force_terminal=True, highlight=False)  # type: ignore[arg-type]
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """A line above."""
        self._console.print(Text(text))

    def show(
        self,
        estimate: Estimate,
        totals: TransferReport,
        failures: Sequence[Failures],
        under_way: Sequence[TransferProgress],
    ) -> None:
        """How it stands."""
        if self._lines.backlog <= MOST_BACKLOG:
            self._live.update(Group(*_lines(estimate, totals, failures, under_way)), refresh=True)


def _lines(
    estimate: Estimate,
    totals: TransferReport,
    failures: Sequence[Failures],
    under_way: Sequence[TransferProgress],
) -> list[RenderableType]:
    bar = Table.grid(padding=(0, 1))
    fraction = estimate.fraction
    if fraction is not None:
        bar.add_row(ProgressBar(total=1.0, completed=fraction, width=BAR), f"{100 * fraction:.0f} %")
    else:
        bar.add_row(ProgressBar(pulse=True, width=BAR), "")
    parts = [plural(totals.open_associations, "association")]
    if totals.retries:
        parts.append("1 retry" if totals.retries == 1 else f"{totals.retries:,} retries")
    if totals.failed_associations:
        parts.append(f"{plural(totals.failed_associations, 'association')} failed")
    if totals.earlier:
        parts.append(f"{totals.earlier:,} settled in an earlier run")
    lines: list[RenderableType] = [bar, _line(str(estimate)), _line(", ".join(parts))]
    lines += [
        _line(f"{heading(each.outcome, each.status, each.reason)}: {each.inputs:,}", "red")
        for each in failures[:FAILURES_SHOWN]
    ]
    lines += [_line(_progress(each), "dim") for each in under_way[:OBJECTS_SHOWN]]
    if len(under_way) > OBJECTS_SHOWN:
        lines.append(_line(f"and {len(under_way) - OBJECTS_SHOWN} more on their way", "dim"))
    return lines


def _progress(each: TransferProgress) -> str:
    uid = printable(each.sop_instance_uid)
    if each.percent is None or each.bytes_total is None:
        return f"{uid}: {size_of(each.bytes_sent)}"
    return f"{uid}: {each.percent:.0f} % of {size_of(each.bytes_total)}"


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
