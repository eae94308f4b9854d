"""Source: one object to be sent, whatever it is made of.

A source is opened, prepared for the transfer syntax that the peer accepted, and read to its end:

    async with await open_file("ct.dcm") as source:
        await source.prepare(transfer_syntax_uid)
        finished = False
        while not finished:
            count, finished = await source.read_into(buffer)

Two rules keep the peer from ever storing half an object: `finished` comes together with the last bytes, so that nobody
has to guess which fragment is the last; and it comes only when the input is found to be still what was opened.
"""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self


class Source(abc.ABC):
    """One object to be sent; for one task at a time.

    `transfer_syntaxes` are those in which the object can be sent unharmed: its own first, then the native ones into
    which it can be encoded anew (PS3.5 annex A). Nothing is ever compressed, decompressed or sent as Big Endian that
    was not so before.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntaxes: tuple[str, ...]

    size: int | None = None
    """Bytes of the data set on the wire in the prepared transfer syntax, or None where it shows only at the end."""

    memory: int = 0
    """Bytes of the data set that are held in memory from the opening on."""

    buffer_in_use: bool = False
    """True after a cancelled `read_into` whose thread may still write to the buffer: it must never be used again."""

    @abc.abstractmethod
    async def prepare(self, transfer_syntax_uid: str) -> None:
        """Choose one of `transfer_syntaxes`, and begin at the first byte.

        Raises `ValueError` for any other, `InvalidObject` if the object cannot be encoded in it after all.
        """

    def is_prepared_for(self, transfer_syntax_uid: str) -> bool:
        """Whether it is at its first byte in this transfer syntax, as a new one is in its own: nothing to prepare."""
        return False

    @abc.abstractmethod
    async def read_into(self, buffer: memoryview) -> tuple[int, bool]:
        """Fill `buffer` with the next bytes of the data set: `(bytes filled, finished)`.

        The buffer is filled wholly unless the data set ends in it, or the input is slow: then an even number of bytes
        goes out early. `finished` comes with the last bytes, after the input was verified. A checkpoint only where
        bytes have to be waited for. After an exception only `rewind`, `prepare` and `aclose` make sense.

        Raises `ObjectChanged`, `ReadError` (the cause is chained) or `InvalidObject` (a data set of odd length).
        """

    def read_at_once(self, buffer: memoryview) -> tuple[int, bool] | None:
        """`read_into`, where nothing has to be waited for; None, and nothing was read, where something has.

        Raises as `read_into`; then nobody writes to the buffer any more.
        """
        return None

    def whole(self) -> memoryview | None:
        """All of the data set, where it is in memory already and nothing of it was read; None where it is not.

        The input was verified, and the bytes stay as they are even after `aclose`. Raises as `read_into`.
        """
        return None

    @abc.abstractmethod
    async def rewind(self) -> bool:
        """Go back to the first byte, to send the object once more. False if that cannot be."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release what the library opened, never what the caller did. Idempotent; done even if cancelled."""

    def discard(self) -> None:  # noqa: B027  # most have opened nothing before they are read
        """`aclose`, for a source of which nothing was read, and without waiting for anything."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check_offered(self, transfer_syntax_uid: str) -> None:
        if transfer_syntax_uid not in self.transfer_syntaxes:
            raise ValueError(f"the object cannot be sent in {transfer_syntax_uid}, only in {self.transfer_syntaxes}")
