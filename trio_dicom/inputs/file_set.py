"""The file set of a DICOMDIR (PS3.10 section 8): the files that it names, none outside of its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..errors import InvalidObject
from ..sources.directory_records import referenced_file_ids
from ..sources.file import read_error
from .item import FileItem, InvalidItem, Item


def file_set(path: str) -> Iterator[Item]:
    """The files named by the DICOMDIR at `path`, in its order. Blocks.

    What it names and is not there, or would lead out of its folder, and what is damaged, are items that say so.
    """
    folder = os.path.dirname(path)
    try:
        root = os.path.realpath(folder or os.curdir)
        for file_id in referenced_file_ids(path):
            yield _referenced(path, folder, root, file_id)
    except OSError as error:
        yield InvalidItem(path, read_error(error, ""))
    except InvalidObject as error:
        yield InvalidItem(path, error)


def _referenced(directory: str, folder: str, root: str, file_id: Sequence[bytes]) -> Item:
    parts = [os.fsdecode(part) for component in file_id for part in component.split(b"/")]
    name = f"{directory}!{os.sep.join(parts)}"
    if any(part in ("", os.curdir, os.pardir) or "\0" in part for part in parts):
        return InvalidItem(name, InvalidObject("the DICOMDIR names a file that is not in its folder"))
    # A CD may be mounted with its names in small letters.
    for path in (os.path.join(*parts), os.path.join(*parts).lower()):
        if os.path.lexists(os.path.join(folder, path)):
            resolved = os.path.realpath(os.path.join(folder, path))
            if not resolved.startswith(os.path.join(root, "")):
                return InvalidItem(name, InvalidObject("the DICOMDIR names a link that leads out of its folder"))
            return FileItem(os.path.join(folder, path))
    return InvalidItem(name, InvalidObject("the DICOMDIR names this file, and it is not there"))
