"""Filing: where, and how, a receiver files what it is sent."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from ..services.file_layout import FileLayout
from ..services.instance_folder import Duplicates, InstanceFolder
from .connection import usage_error


@attrs.frozen
class Filing:
    """Options of an `InstanceFolder`, which is made, if it is missing, when there is something to listen on."""

    folder: Path
    layout: str
    duplicates: Duplicates
    sync: bool
    max_object_size: int

    @classmethod
    def of(cls, folder: str, layout: str, duplicates: str, *, sync: bool, max_object_size: int) -> Filing:
        """From the options as they were given; exits with 2 if the layout cannot be used."""
        try:
            FileLayout(layout)
        except ValueError as error:
            raise usage_error(str(error)) from None
        return cls(Path(os.path.abspath(folder)), layout, Duplicates(duplicates), sync, max_object_size)

    def open(self) -> InstanceFolder:
        """The folder. Blocks; raises `OSError` if it cannot be used."""
        return InstanceFolder(
            self.folder,
            layout=self.layout,
            duplicates=self.duplicates,
            sync=self.sync,
            max_object_size=self.max_object_size,
        )
