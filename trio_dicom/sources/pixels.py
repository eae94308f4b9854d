"""PixelSource: pixels that are made, or fetched, while they are sent."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

from .part10 import Buffer
from .threads import run_abandonable

_CHUNK = 1 << 20


@runtime_checkable
class PixelSource(Protocol):
    """What fills Pixel Data (7FE0,0010) of a data set that has none: native pixels, or encapsulated frames.

    Native pixels have a `length` and no transfer syntax; frames have a transfer syntax and no length. For example::

        class Camera:
            length = 512 * 512 * 2 * 100  # bytes
            transfer_syntax_uid = None

            async def chunks(self):
                for number in range(100):
                    yield await self.frame(number)  # 512 x 512 of 16 bits, little endian

        await scu.send(dataset, Camera())

    A chunk may be any object with the buffer interface; it is read wholly before the next one is asked for, so that
    its memory can be used again. An exception that `chunks` raises becomes the cause of a `ReadError`.
    """

    @property
    def length(self) -> int | None:
        """Bytes of native pixels, without padding; None for encapsulated frames."""

    @property
    def transfer_syntax_uid(self) -> str | None:
        """The transfer syntax of encapsulated frames; None for native pixels, which are little endian."""

    def chunks(self) -> AsyncIterator[Buffer]:
        """Native pixels cut anywhere; or one whole encoded frame each. Called anew for every attempt.

        An encapsulated source that knows the lengths of its frames ahead may have them as `frame_lengths`, a sequence
        of bytes each: then the Basic Offset Table is filled (PS3.5 A.4), and the size of the data set is known.
        """


class ArrayPixelSource:
    """Native pixels from an array of integers: a numpy array, a `numpy.memmap`, anything with the buffer interface.

    Sent in C order and Little Endian, a piece at a time; no second copy of the array is ever made, and a `memmap` is
    read in threads. Signedness and geometry are the data set's to say.

    Raises `TypeError` for what has no buffer interface or no integers, `ValueError` for an empty array.
    """

    transfer_syntax_uid: str | None = None

    def __init__(self, array: Any) -> None:
        view = memoryview(array)
        order, code = (view.format[:1], view.format[1:]) if view.format[:1] in "@=<>!" else ("@", view.format)
        if code not in tuple("bBhHiIlLqQ?"):
            raise TypeError(f"pixels are integers, not items of format {view.format!r}")
        if not view.nbytes or not view.ndim:
            raise ValueError("there are no pixels in the array")
        self.length: int | None = view.nbytes
        self._array = array
        self._item = view.itemsize
        self._swapped = self._item > 1 and (order in ">!" or (order in "@=" and sys.byteorder == "big"))
        self._rows = view.shape[0] if view.shape else 0
        self._on_disk = hasattr(array, "filename")  # a memmap

    async def chunks(self) -> AsyncIterator[Buffer]:
        step = max(1, _CHUNK * self._rows // (self.length or 1))  # along the first axis
        for row in range(0, self._rows, step):
            if self._on_disk:
                yield await run_abandonable(self._piece, row, row + step)
            else:
                yield self._piece(row, row + step)

    def _piece(self, start: int, stop: int) -> Buffer:
        view = memoryview(self._array[start:stop])
        if not self._swapped and not self._on_disk and view.c_contiguous and view.format in "bBhHiIlLqQ?":
            return view.cast("B")
        data = view.tobytes()
        if not self._swapped:
            return data
        swapped = bytearray(len(data))
        for byte in range(self._item):
            swapped[byte :: self._item] = data[self._item - 1 - byte :: self._item]
        return swapped
