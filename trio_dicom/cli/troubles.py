"""Troubles: what a sender logs, for who watches it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..sender import dispatcher

MOST_KEPT = 20


class Troubles(logging.Handler):
    """Keeps how associations ended, until it is known that the sending goes on; says what else is a warning."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.kept: list[str] = []
        self._say = say
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name != dispatcher.__name__:
            if record.levelno >= logging.WARNING:
                self._say(f"trio-dicom: {text}")
        elif record.levelno < logging.WARNING and text != self._last and len(self.kept) < MOST_KEPT:
            self._last = text
            self.kept.append(text)

    def take(self) -> list[str]:
        """Those that were kept."""
        kept, self.kept = self.kept, []
        return kept


@contextmanager
def heard(say: Callable[[str], None]) -> Iterator[Troubles]:
    """A block in which what the library logs goes there, and nowhere else."""
    logger = logging.getLogger("trio_dicom")
    level_before, passes_on = logger.level, logger.propagate
    troubles = Troubles(say)
    logger.addHandler(troubles)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield troubles
    finally:
        logger.propagate = passes_on
        logger.setLevel(level_before)
        logger.removeHandler(troubles)
