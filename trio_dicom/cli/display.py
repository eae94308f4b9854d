"""What a person sees of a transfer: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import os
import sys
import time
from types import TracebackType
from typing import Self

import trio
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from ..errors import printable
from ..sender.outcome import InstanceReport, Outcome
from ..services.progress import TransferProgress

WIDTH = 160  # columns, where nobody reads them on a screen


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads on (`| head`), which is no reason to end, nor for Python to complain when it flushes at exit."""
        self.quiet = True
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """For a stream that gets no colours and no cursor control unless it is a terminal, whatever FORCE_COLOR says."""
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream.isatty()
    return _Console(
        stderr=stderr,
        quiet=quiet,
        force_terminal=is_terminal,
        width=None if is_terminal else WIDTH,
        highlight=False,
        soft_wrap=True,
    )


class Display:
    """Shows how a transfer goes on; a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = console(quiet=quiet)
        self._errors = console(stderr=True)
        self._total_objects = 0
        self._counts: collections.Counter[Outcome] = collections.Counter()
        self._settled_bytes = 0
        self._stored_bytes = 0
        self._start = time.monotonic()
        is_live = self._console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not is_live,
        )
        self._task = self._progress.add_task(self._description(), total=None)
        self.channel = _DisplayChannel(self) if is_live else None

    def expect(self, total_objects: int, total_bytes: int) -> None:
        """There are so many inputs, of so many bytes together."""
        self._total_objects = total_objects
        self._progress.update(self._task, total=total_bytes, description=self._description())

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def moved(self, bytes_of_current: int) -> None:
        """So many bytes of the object that is on its way have gone out."""
        self._progress.update(self._task, completed=self._settled_bytes + bytes_of_current)

    def settled(self, report: InstanceReport, size: int, *, is_news: bool = True) -> None:
        """An input of `size` bytes has come to its end. If that is news, one that was not stored gets a line."""
        self._counts[report.outcome] += 1
        self._settled_bytes += size
        if report.outcome.is_stored:
            self._stored_bytes += report.bytes_sent
        if self.channel is not None:
            self._progress.update(self._task, completed=self._settled_bytes, description=self._description())
        if is_news and report.outcome is not Outcome.STORED:
            name = printable(report.path or "-", 400)
            self.say(f"{report.outcome.value.replace('_', ' ')}: {name}: {report.reason}")

    def say(self, text: str) -> None:
        """A line of its own, on standard error."""
        self._errors.print(Text(text))

    def summarise(self, total_objects: int) -> None:
        """One line: how many of how many, and how fast."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        parts = [f"{count} {outcome.value.replace('_', ' ')}" for outcome, count in self._counts.items()]
        rate = self._stored_bytes / seconds / 1e6
        amount = f"{self._stored_bytes / 1e6:.1f} MB in {seconds:.1f} s, {rate:.1f} MB/s"
        self._console.print(Text(f"{total_objects} input{'s' * (total_objects != 1)}: {', '.join(parts)}; {amount}"))

    def _description(self) -> str:
        return f"{sum(self._counts.values())}/{self._total_objects} objects"


class _DisplayChannel(trio.abc.SendChannel[TransferProgress]):
    """The progress of objects, straight onto the screen."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def send_nowait(self, value: TransferProgress) -> None:
        self._display.moved(value.bytes_sent)

    async def send(self, value: TransferProgress) -> None:
        self.send_nowait(value)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
