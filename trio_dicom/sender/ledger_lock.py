"""LedgerLock: of all runs, one writes a ledger at a time.

It is a lock on a file beside the ledger. Not on the ledger itself, where SQLite has locks of its own, which a process
loses when it closes any descriptor of the file. The lock goes with the process that holds it, however that ends; the
file may stay then, and is taken over by the next run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SUFFIX = "-lock"
TRIES, PAUSE = 5, 0.02  # who asks whether a run is under way holds the lock for an instant


class LedgerLock:
    """See above. `path` is the ledger's."""

    def __init__(self, path: str) -> None:
        self._path = path + SUFFIX
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Whether it could be had. Blocks for a moment: for a thread. Raises `OSError`."""
        for _ in range(TRIES):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            is_locked = False
            try:
                is_locked = _try_lock(fd)
                if is_locked and self._is_of_the_file(fd):
                    self._fd = fd
                    return True
            finally:
                if self._fd is None:
                    os.close(fd)
            if not is_locked:  # else its holder has just removed it
                time.sleep(PAUSE)
        return False

    def release(self) -> None:
        """The file is removed first, while nobody else can have the lock."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # Windows does not remove what is open
                os.unlink(self._path)
            with contextlib.suppress(OSError):  # it is closed, and the lock gone, all the same
                os.close(fd)

    def is_held(self) -> bool | None:
        """Whether a run has it now; None if that cannot be told."""
        try:
            fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return False
        except OSError:
            return None
        try:
            return not _try_lock(fd, is_shared=True)
        except OSError:
            return None
        finally:
            os.close(fd)

    def _is_of_the_file(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(fd))
        except FileNotFoundError:
            return False


def _try_lock(fd: int, *, is_shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter is Windows' word for it
        return False
    return True
