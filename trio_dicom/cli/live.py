"""The live line of a transfer on a terminal: objects, bytes, rate and time left."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self

import trio
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from ..sender.outcome import InstanceReport
from ..services.progress import TransferProgress
from .display import Display

WIDTH = 160  # columns, where nobody reads them on a screen


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads on (`| head`), which is no reason to end, nor for Python to complain when it flushes at exit."""
        self.quiet = True
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


def console() -> Console:
    """For standard output, without colours and cursor control unless it is a terminal, whatever FORCE_COLOR says."""
    is_terminal = sys.stdout.isatty()
    return _Console(force_terminal=is_terminal, width=None if is_terminal else WIDTH, highlight=False, soft_wrap=True)


class LiveDisplay(Display):
    """Lines for what was not stored, above one that moves."""

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console(),
        )
        self._task = self._progress.add_task(self._description(), total=None)
        self.channel = _DisplayChannel(self)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, total_objects: int, total_bytes: int) -> None:
        super().expect(total_objects, total_bytes)
        self._progress.update(self._task, total=total_bytes, description=self._description())

    def moved(self, bytes_of_current: int) -> None:
        """So many bytes of the object that is on its way have gone out."""
        self._progress.update(self._task, completed=self._settled_bytes + bytes_of_current)

    def settled(self, report: InstanceReport, size: int, *, is_news: bool = True) -> None:
        super().settled(report, size, is_news=is_news)
        self._progress.update(self._task, completed=self._settled_bytes, description=self._description())

    def say(self, text: str) -> None:
        if sys.stderr.isatty():
            self._progress.console.print(Text(text))  # above the line
        else:
            super().say(text)

    def _description(self) -> str:
        return f"{sum(self._counts.values())}/{self._total_objects} objects"


class _DisplayChannel(trio.abc.SendChannel[TransferProgress]):
    """The progress of objects, straight onto the screen."""

    def __init__(self, display: LiveDisplay) -> None:
        self._display = display

    def send_nowait(self, value: TransferProgress) -> None:
        self._display.moved(value.bytes_sent)

    async def send(self, value: TransferProgress) -> None:
        self.send_nowait(value)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
