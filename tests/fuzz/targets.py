"""The fuzz targets: what is fed with bytes, and what it is fed with first."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"

TARGETS = ("pdu", "command_set", "file_head", "requestor", "acceptor", "archive", "dicomdir")

Check = Callable[[bytes], None]


def check_of(target: str) -> Check:
    """The function that lets documented errors pass, and raises whatever else it meets."""
    check: Check = importlib.import_module(f".fuzz_{target}", __package__).check
    return check


def seeds_of(target: str) -> dict[str, bytes]:
    """By name. `found-...` were findings once; `learnt-...` are those of long runs that come where no other does."""
    return {path.name: path.read_bytes() for path in sorted((SEEDS / target).iterdir())}
