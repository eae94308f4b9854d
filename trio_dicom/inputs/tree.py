"""The files of a folder and of the folders in it, found as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..errors import InvalidObject
from ..sources.file import read_error
from .item import FileItem, InvalidItem, Item

# Names are sorted, so those of a folder are in memory together; where there are more, so many at a time are sorted.
SORTED_AT_ONCE = 1 << 16


def walk(root: str) -> Iterator[Item]:
    """First the files of a folder, then what is in its folders, each by name. Blocks.

    A link to a file is a file. A link to a folder is not followed, which its item says; so does that of a folder which
    cannot be listed.
    """
    levels = [_Level(root)]
    try:
        while levels:
            level = levels[-1]
            if level.folders:
                levels.append(_Level(level.folders.pop()))
            elif level.is_listed:
                levels.pop()
            else:
                yield from level.next_items()
    finally:
        for level in levels:
            level.close()


class _Level:
    """A folder that is being looked through. `folders` are those found in it, the next one last."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folders: list[str] = []
        self.is_listed = False
        self._entries: os._ScandirIterator[str] | None = None

    def next_items(self) -> Iterator[Item]:
        """The next files, while the folders beside them are added to `folders`."""
        folders: list[str] = []
        files: list[str] = []
        links: set[str] = set()
        failure: OSError | None = None
        try:
            if self._entries is None:
                self._entries = os.scandir(self.path)
            for entry in self._entries:
                kind = folders if _is_folder(entry) else files
                kind.append(entry.name)
                if kind is files and _is_link_to_folder(entry):
                    links.add(entry.name)
                if len(files) + len(folders) == SORTED_AT_ONCE:
                    break
            else:
                self.close()
        except OSError as error:
            failure = error
            self.close()
        for name in sorted(files):
            path = os.path.join(self.path, name)
            if name in links:
                reason = "a symbolic link to a folder: name it to send what is in it"
                yield InvalidItem(path, InvalidObject(reason))
            else:
                yield FileItem(path)
        if failure is not None:
            yield InvalidItem(self.path, read_error(failure, ""))
        self.folders = [os.path.join(self.path, name) for name in sorted(folders, reverse=True)]

    def close(self) -> None:
        self.is_listed = True
        if self._entries is not None:
            self._entries.close()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # what it is shows when it is opened
        return False


def _is_link_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a loop, say
        return False
