"""SenderOptions: how a sender goes about it."""

from __future__ import annotations

import enum
import math
from random import Random

import attrs

from ..services.storage_scu import CStoreOptions
from .retry import RetryPolicy


class SameInstance(enum.Enum):
    """What is done with a further input that has the SOP Instance UID of one before it."""

    SEND = "send"  #: it is sent, too
    SKIP = "skip"  #: it is not sent, and ends as the first one ends; their bytes are not compared


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    least, most = attribute.metadata["bounds"]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{attribute.name} must be a whole number, {least} to {most}, not {value!r}")


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class SenderOptions:
    """How a sender goes about it; see `open_sender`.

    - `store`: how one object is sent. Its `max_retries` and `retry_delay` do not count: `retry` does.
    - `retry`: when an object is tried again, and a destination given up.
    - `max_rate`: bytes of data sets a second, all associations together.
    - `linger`: seconds for which an association without work is kept.
    - `memory`: bytes of data sets that are held whole at a time: those converted, those given as `Dataset`, and small
      ones in archives. What is being made when the last of it is taken goes over it.
    - `same_instance`: see `SameInstance`.
    - `random`: where the jitter of the delays comes from.
    """

    store: CStoreOptions = attrs.field(factory=lambda: CStoreOptions(timeout=300.0))
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    max_rate: float = attrs.field(default=math.inf, validator=_positive)
    linger: float = attrs.field(default=5.0, validator=_positive)
    memory: int = attrs.field(default=256 << 20, validator=_count, metadata={"bounds": (1, 1 << 50)})
    same_instance: SameInstance = attrs.field(default=SameInstance.SEND, converter=SameInstance)
    random: Random = attrs.field(factory=Random, repr=False)
