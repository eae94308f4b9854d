"""One door to all sources: what kind of thing is to be sent, and how it is opened."""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from .dataset import open_dataset
from .file import open_file, open_now
from .pixels import PixelSource
from .source import Source
from .stream import open_stream


async def open_source(item: Any, pixels: PixelSource | None = None) -> Source:
    """The source for a path, a stream or a data set, opened.

    Raises `TypeError` for anything else, and what the sources raise for input that cannot be sent.
    """
    if is_data_set(item):
        return await open_dataset(item, pixels)
    if pixels is not None:
        raise TypeError(f"pixels go with a pydicom Dataset, not with {type(item).__name__}")
    if isinstance(item, str | os.PathLike):
        return await open_file(item)
    if isinstance(item, trio.abc.ReceiveStream) or hasattr(item, "read"):
        return await open_stream(item)
    raise TypeError(f"neither a path, a binary stream nor a pydicom Dataset: {type(item).__name__}")


def open_source_now(item: Any) -> Source | None:
    """The same, where it takes no time; None where it does, and where `open_source` would raise. Never blocks."""
    return open_now(item) if isinstance(item, str | os.PathLike) and not is_data_set(item) else None


def is_data_set(item: object) -> bool:
    """True for a pydicom `Dataset`; pydicom is not imported to tell."""
    pydicom = sys.modules.get("pydicom.dataset")  # without it, there is no data set
    return pydicom is not None and isinstance(item, pydicom.Dataset)
