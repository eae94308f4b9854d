"""Scan: how many files are to be sent, and of how many bytes, counted while the first of them are on their way."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence

import trio

from ..inputs.expansion import Skip, expansion_of
from ..inputs.item import FileItem, Item, MemberItem
from ..sources.threads import run_abandonable

A_HOP = 0.005  # s that a thread counts before it comes back, or as long as it takes to find one more
LEAST_PAUSE = 0.01  # s after that
REST = 3  # times as long as it counted, so that the sending, which has the same interpreter, has the most of it
FOUND_AT_ONCE = 100  # files of an archive


class Scan:
    """Counts what `paths` name as a sender takes it, with `skip` as there; `objects` and `size` grow until
    `is_complete`.

    A file that cannot be looked at counts, too, with no bytes. Folders are read in no order, and not kept.
    """

    def __init__(self, paths: Sequence[str], skip: Skip | None = None) -> None:
        self.objects = 0
        self.size = 0
        self.is_complete = False
        self._skip = skip
        self._sizes = self._find(paths)
        self._is_closed = False
        self._lock = threading.Lock()  # a thread that was abandoned may still be counting

    async def run(self) -> None:
        """Count all."""
        try:
            while not self.is_complete:
                start = trio.current_time()
                await run_abandonable(self._count)
                await trio.sleep(max(LEAST_PAUSE, REST * (trio.current_time() - start)))
        finally:
            self._close()

    def _count(self) -> None:
        deadline = time.monotonic() + A_HOP
        with self._lock:
            while not self._is_closed and time.monotonic() < deadline:
                size = next(self._sizes, None)
                if size is None:
                    self.is_complete = True
                    break
                self.objects += 1
                self.size += size
        if self._is_closed:
            self._close()

    def _close(self) -> None:
        """Let go of the folders that are open, or have the thread do so that is counting."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._sizes.close()  # type: ignore[attr-defined]
            finally:
                self._lock.release()

    def _find(self, paths: Sequence[str]) -> Iterator[int]:
        for path in paths:
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                yield 0
                continue
            if stat.S_ISDIR(status.st_mode):
                yield from self._find_in(path)
            elif (expansion := expansion_of(path)) is None:
                yield status.st_size
            else:
                try:
                    while not expansion.is_exhausted:
                        expansion.find(FOUND_AT_ONCE)
                        while expansion.found:
                            yield _size(expansion.found.popleft())
                finally:
                    expansion.close()

    def _find_in(self, root: str) -> Iterator[int]:
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if _is_folder(entry):
                            folders.append(entry.path)
                        elif self._skip is None or not self._skip(entry.path):
                            yield _size_of_entry(entry)
            except OSError:
                yield 0


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _size_of_entry(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _size(item: Item) -> int:
    if isinstance(item, MemberItem):
        return item.member.size
    if not isinstance(item, FileItem):
        return 0
    try:
        return os.stat(item.path).st_size
    except OSError:
        return 0
