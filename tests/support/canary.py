"""The canary: the patient of the test objects, who must not be where the library says anything.

Their name and number are looked for in log records at INFO and above, in what exceptions of the library are made of,
and in the names of files. tests/conftest.py does it for every test.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trio_dicom import TrioDicomError

PATIENT = re.compile(r"CANARY\W{0,3}(5E)?PHI", re.IGNORECASE)  # as it is, or with the character between them encoded
_watches: list[list[str]] = []  # where it was seen, by the watches that go on, of which the innermost counts


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said = f"{record.getMessage()} {vars(record)}"  # with the fields of its own, and the exception
        if PATIENT.search(said):
            _watches[-1].append(f"a record of {record.name} at {record.levelname}: {record.getMessage()}")


def _made(cls: type[TrioDicomError], *args: object, **kwargs: object) -> TrioDicomError:
    """The words of an exception are in what it is made of; to keep it itself would keep its frames."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, str) and _watches and PATIENT.search(value):
            _watches[-1].append(f"{cls.__name__}: {value}")
    return Exception.__new__(cls, *args)  # type: ignore[return-value]


TrioDicomError.__new__ = _made  # type: ignore[method-assign, assignment]


@contextmanager
def watched(folder: Path | None = None, *, names: bool = True) -> Iterator[None]:
    """A block in which the patient must not be seen, nor afterwards in the names of files in `folder`."""
    seen: list[str] = []
    with _listening(seen):
        yield
    if folder is not None and names:
        seen.extend(
            f"the name of a file: {path}" for path in _below(str(folder)) if PATIENT.search(os.path.basename(path))
        )
    assert not seen, f"the patient was seen in {'; '.join(seen)}"


def _below(folder: str) -> Iterator[str]:
    """Not by `os.scandir`, with which a test may have tampered."""
    left = [folder]
    while left:
        here = left.pop()
        with suppress(OSError):
            for name in os.listdir(here):
                path = f"{here}/{name}"
                yield path
                if os.path.isdir(path) and not os.path.islink(path):
                    left.append(path)


@contextmanager
def _listening(seen: list[str]) -> Iterator[None]:
    listener, logger = _Listener(logging.INFO), logging.getLogger("trio_dicom")
    level, is_outermost = logger.level, not _watches
    _watches.append(seen)
    if is_outermost:
        logger.addHandler(listener)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        _watches.pop()
        if is_outermost:
            logger.removeHandler(listener)
            logger.setLevel(level)
