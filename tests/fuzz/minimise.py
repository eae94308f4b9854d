"""A finding, made smaller: as long as the same is raised, in the same place, pieces are left out and bytes zeroed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from .targets import Check


def outcome_of(check: Check, data: bytes) -> str | None:
    """What `check` raises, and where; None if nothing."""
    try:
        check(data)
    except Exception as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        last = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != "require"][-1]
        return f"{type(error).__name__} in {last.name} ({last.filename}:{last.lineno})"
    return None


def minimised(check: Check, data: bytes) -> bytes:
    """`data`, with as little in it as still gives the same outcome."""
    outcome = outcome_of(check, data)
    if outcome is None:
        raise ValueError("it is no finding")
    size = len(data) // 2
    while size:
        for smaller in _without(data, size):
            if outcome_of(check, smaller) == outcome:
                data = smaller
                break
        else:
            size //= 2
    for at in range(len(data)):
        zeroed = data[:at] + b"\0" + data[at + 1 :]
        if outcome_of(check, zeroed) == outcome:
            data = zeroed
    return data


def _without(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[:at] + data[at + size :]
