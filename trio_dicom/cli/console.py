"""The console of rich, which takes its time to be imported."""

from __future__ import annotations

import os
import sys

from rich.console import Console

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
