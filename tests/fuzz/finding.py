"""What a target may come upon, and what it may not."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
import trio.testing

from trio_dicom.errors import InternalError, TrioDicomError
from trio_dicom.sources.threads import stand_still

LONGEST = 3600.0  # s of virtual time, in which whatever a peer does has come to its end


class Finding(Exception):
    """The library did what it must not."""


def require(condition: object, what: object) -> None:
    """An `assert` that `python -O` leaves in place."""
    if not condition:
        raise Finding(str(what))


@contextmanager
def documented(*allowed: type[TrioDicomError]) -> Iterator[None]:
    """Lets errors of these kinds pass, and `InternalError` never. Any other exception goes on, and is a finding."""
    try:
        yield
    except InternalError as error:
        raise Finding(f"it calls itself a bug: {error}") from error
    except allowed:
        pass


@contextmanager
def no_error_logged() -> Iterator[None]:
    """What is logged as an error is a bug that was caught."""
    logger, records = logging.getLogger("trio_dicom"), list[logging.LogRecord]()
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    was_propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_propagated
    require(not records, [record.getMessage() for record in records])


def run(main: Callable[[], Awaitable[None]]) -> None:
    """On a virtual clock, and without threads; a hang is a finding."""

    async def within_time() -> None:
        stand_still.set(True)
        with trio.move_on_after(LONGEST) as scope:
            await main()
        require(not scope.cancelled_caught, "it hangs")

    with no_error_logged():
        trio.run(within_time, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    """A file in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path
