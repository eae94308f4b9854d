"""The arguments of `trio-dicom send`: paths, and - for standard input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from .connection import usage_error

STANDARD_INPUT = "-"
STREAM = "stream"  # what a sender calls one


def inputs_of(paths: Sequence[str]) -> list[str | BinaryIO]:
    """What a sender takes for the arguments; exits with 2 if they make no sense."""
    if paths.count(STANDARD_INPUT) > 1:
        raise usage_error("- (standard input) can be given once")
    if STANDARD_INPUT not in paths:
        return [*paths]
    try:
        # Unbuffered: a thread that is left behind in a read must hold no lock that Python's shutdown wants.
        stream: BinaryIO = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    except OSError as error:
        raise usage_error(f"standard input cannot be read: {error.strerror}") from None
    # A file that is called as streams are is to be told from them in a report.
    files = [os.path.join(os.curdir, path) if path == STREAM else path for path in paths]
    return [stream if path == STANDARD_INPUT else path for path in files]
