"""Budget: the memory in which whole data sets are held, such as those that were converted, until they are settled."""

from __future__ import annotations

import trio


class Budget:
    """`total` bytes. What is being made while the last of them are booked goes over it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.booked = 0
        self._room = trio.lowlevel.ParkingLot()

    async def wait_room(self) -> None:
        """Wait until not all of it is booked."""
        while self.booked >= self.total:
            await self._room.park()

    def book(self, size: int) -> None:
        """So many bytes are in use from now on."""
        self.booked += size

    def free(self, size: int) -> None:
        """They are not any more."""
        self.booked -= size
        if size and self.booked < self.total:
            self._room.unpark_all()
