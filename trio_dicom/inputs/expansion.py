"""Expansion: what a folder, a ZIP archive or a DICOMDIR stands for, found some items at a time, in threads."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..errors import InvalidObject
from ..sources.container import Container
from ..sources.file import read_error
from .item import FileItem, InvalidItem, Item, MemberItem, container_at
from .tree import walk

Skip: TypeAlias = Callable[[str], bool]

_PATIENCE = 0.05  # seconds after which a thread comes back with what it has found, if that is anything


def expansion_of(path: str, skip: Skip | None = None) -> Expansion | None:
    """That of what is at `path`; None for a file, and for what cannot be looked at, whose opening says why. Blocks.

    Files of folders for whose path `skip` returns True are left out.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return Expansion(path, walk(path) if skip is None else _without(walk(path), skip))
        if not stat.S_ISREG(mode):
            return None
        container = container_at(path)
    except (OSError, ValueError, InvalidObject):
        return None
    if container is Container.DICOMDIR:
        from .file_set import file_set  # which most inputs do not need, nor what is in ZIP archives

        return Expansion(path, file_set(path))
    if container is Container.ZIP:
        return Expansion(path, _members(path))
    return None


def _without(items: Iterator[Item], skip: Skip) -> Iterator[Item]:
    yield from (item for item in items if not (isinstance(item, FileItem) and skip(item.path)))


def _members(path: str) -> Iterator[Item]:
    from ..sources.zip_archive import ZipArchive

    try:
        for member in ZipArchive(path).members():
            yield MemberItem(member)
    except OSError as error:
        yield InvalidItem(path, read_error(error, ""))
    except InvalidObject as error:
        yield InvalidItem(path, error)


class Expansion:
    """The items at `path`. `found` are those that were found and not taken yet.

    A thread that was abandoned may still be looking: the next one waits for it, and nothing that it finds is lost.
    """

    def __init__(self, path: str, items: Iterator[Item]) -> None:
        self.path = path
        self.found: deque[Item] = deque()
        self._items = items
        self._is_complete = False
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def is_exhausted(self) -> bool:
        """Nothing more will be found, and all was taken."""
        return self._is_complete and not self.found

    def find(self, most: int) -> None:
        """Look for up to `most` further items. Blocks: for a thread."""
        deadline = time.monotonic() + _PATIENCE
        with self._lock:
            while len(self.found) < most and not self._is_complete and not self._is_closed:
                item = next(self._items, None)
                if item is None:
                    self._is_complete = True
                else:
                    self.found.append(item)
                    if time.monotonic() > deadline:
                        break
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Let go of what is open, or have the thread do so that is still looking."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._items.close()  # type: ignore[attr-defined]
            finally:
                self._lock.release()

    def rest(self) -> list[Item]:
        """What was found, and one item for what was not looked at."""
        items = []
        while self.found:  # a thread may be adding to it
            items.append(self.found.popleft())
        if not self._is_complete:
            items.append(FileItem(self.path))
        return items
