"""Quantities as they are given on the command line."""

from __future__ import annotations

import math

MULTIPLES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def bytes_per_second(text: str) -> float:
    """`500k`, `10M`, `1.5G`, or a plain number. Raises `ValueError`."""
    number, multiple = (text[:-1], text[-1]) if text[-1:] in {*MULTIPLES} - {""} else (text, "")
    try:
        rate = float(number) * MULTIPLES[multiple]
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ValueError("It must be a number above 0, of bytes a second; k, M or G after it are 10^3, 10^6 and 10^9.")
    return rate
