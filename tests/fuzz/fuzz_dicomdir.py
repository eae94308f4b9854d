"""Bytes for a DICOMDIR that is an input. Beside it lie a file, a folder with one, and links out of the folder."""

from __future__ import annotations

import os

from trio_dicom.inputs.item import FileItem, Item
from trio_dicom.testing import make_instance_file

from .finding import file_of, require, run
from .fuzz_archive import items_of

OBJECT = make_instance_file(16)


def check(data: bytes) -> None:
    with file_of(b"", "outside") as outside:
        folder = outside.parent / "set"
        (folder / "D").mkdir(parents=True)
        for name in ("A", "D/B"):
            (folder / name).write_bytes(OBJECT)
        (folder / "L").symlink_to(outside)
        (folder / "U").symlink_to(outside.parent)
        path = folder / "DICOMDIR"
        path.write_bytes(data)
        found: list[Item] = []

        async def take() -> None:
            found.extend(await items_of(path))

        run(take)
        inside = os.path.join(os.path.realpath(folder), "")
        for item in found:
            if isinstance(item, FileItem):
                require(os.path.realpath(item.path).startswith(inside), f"it leads out of the folder: {item.path}")
