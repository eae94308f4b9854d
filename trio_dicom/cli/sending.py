"""Sending: what the options of `trio-dicom send` ask for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import attrs

from ..sender.options import SameInstance, SenderOptions
from ..sender.retry import RetryPolicy
from ..services.storage_scu import CStoreOptions
from .connection import usage_error
from .quantities import bytes_per_second

RETRIES = 4


@attrs.frozen(kw_only=True)
class Sending:
    """How a sender is opened, when it is stopped, and what is said of it."""

    options: SenderOptions
    associations: int
    window: int
    transcode: str
    ledger: Path | None
    deadline: float  # s for all of it
    drain: float  # s for what is being sent, after a first signal
    accepts_present: bool
    report: Path | None
    as_json: bool
    quiet: bool

    @classmethod
    def of(
        cls,
        *,
        timeout: float,
        retries: int | None,
        retry_delay: float,
        max_rate: str | None,
        same_instance: str,
        transcode: str,
        deadline: float | None,
        **others: object,
    ) -> Self:
        """From the options as they were given; exits with 2 where they make no sense."""
        retry = RetryPolicy(
            max_attempts=1 + (RETRIES if retries is None else retries),
            base_delay=retry_delay,
            max_delay=max(RetryPolicy().max_delay, retry_delay),
            first_contact=1 + (retries or 0),  # without being asked to, a mistyped host is not tried again
        )
        options = SenderOptions(
            store=CStoreOptions(timeout=timeout),
            retry=retry,
            max_rate=math.inf if max_rate is None else bytes_per_second(max_rate),
            same_instance=SameInstance(same_instance),
        )
        _check_transcode(transcode)
        deadline = math.inf if deadline is None else deadline
        return cls(options=options, transcode=transcode, deadline=deadline, **others)  # type: ignore[arg-type]


def _check_transcode(transcode: str) -> None:
    if transcode == "never":
        return
    from ..conversion.transcoding import Transcoding

    try:
        Transcoding.parse(transcode)
    except ValueError as error:
        raise usage_error(f"--transcode {transcode}: {error}") from None
