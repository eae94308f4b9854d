"""How counts, sizes, rates and times are written."""

from __future__ import annotations

from ..sender.outcome import Outcome


def spelled(outcome: Outcome) -> str:
    """`in doubt`."""
    return outcome.value.replace("_", " ")


def plural(count: int, noun: str) -> str:
    """`1 object`, `12,345 objects`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def size_of(count: int) -> str:
    """Of so many bytes: `12.3 MB`."""
    if 0 < count < 1e6:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def duration(seconds: float) -> str:
    """`12.3 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
