"""The two ways that bytes go on a stream."""

from __future__ import annotations

import enum


class Direction(enum.Enum):
    """A way on a stream, as the one who holds the stream sees it."""

    SENDING = "sending"  #: to the other side
    RECEIVING = "receiving"  #: from the other side
