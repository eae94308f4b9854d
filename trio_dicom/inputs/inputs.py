"""Inputs: what a sender was given to send, taken as items, a few at a time.

It may be endless, or come slowly, or name more files than memory has room for their names: no more is looked at than
is asked for. What is wrong with one input is for its item to say; only what is no input at all is an error here.
"""

from __future__ import annotations

import io
import itertools
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

import trio

from ..errors import InvalidObject
from ..sources.file import open_now
from ..sources.open import is_data_set
from ..sources.pixels import PixelSource
from ..sources.threads import run_abandonable
from .expansion import Expansion, Skip, expansion_of
from .item import DatasetItem, FileItem, InvalidItem, Item, StreamItem

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    InputArgument: TypeAlias = (
        str | os.PathLike[str] | Dataset | tuple[Dataset, PixelSource | None] | BinaryIO | trio.abc.ReceiveStream
    )
    InputsArgument: TypeAlias = InputArgument | Iterable[InputArgument] | AsyncIterable[InputArgument]

_CLOSING = 1.0  # seconds for the clean-up of a generator of the caller's


class Inputs:
    """The items of `items`: an iterable or async iterable of inputs, or one input.

    An input is a path; a pydicom `Dataset`, or a pair of one and a `PixelSource`; a binary file object or a trio
    `ReceiveStream`. A path to a folder stands for the files in it and in its folders, one to a ZIP archive for its
    files, one to a DICOMDIR for the files that it names. An async generator is closed when the inputs are.

    `skip` is called, in threads, with the path of each file that is found in a folder; if it returns True, the file is
    no input.
    """

    def __init__(self, items: InputsArgument, skip: Skip | None = None) -> None:
        self._skip = skip
        self._iterator: Iterator[object] | None = None
        self._async_iterator: AsyncIterator[object] | None = None
        if _is_one(items):
            self._iterator = iter((items,))
        elif isinstance(items, AsyncIterable):
            self._async_iterator = aiter(items)
        elif isinstance(items, Iterable) and not isinstance(items, bytes | bytearray | memoryview):
            self._iterator = iter(items)
        else:
            self._iterator = iter((items,))
        self._is_known = self._async_iterator is None and (_is_one(items) or isinstance(items, list | tuple))
        self._is_ended = False  # the iterator
        self._failure: Exception | None = None  # raised when what came before it was taken
        self._pulled: deque[object] = deque()  # out of the iterator
        self._seen: deque[Item | Expansion] = deque()  # what became of those, when they were looked at
        self._ready: deque[Item] = deque()
        self._is_busy = False

    @property
    def is_exhausted(self) -> bool:
        """All that was given has been taken."""
        is_left = self._ready or self._seen or self._pulled
        return self._is_ended and not is_left and self._failure is None

    async def take(self, most: int) -> list[Item]:
        """Up to `most` further items; none at the end. Cancelled, it has taken nothing.

        Of an async iterable one input at a time is awaited. Raises `TypeError` for what is no input, and what the
        iterable raises, when the items before it were taken.
        """
        if most < 1:
            raise ValueError("at least one item is taken")
        if self._is_busy:
            raise trio.BusyResourceError("another task is taking items")
        self._is_busy = True
        try:
            while len(self._ready) < most and await self._advance(most - len(self._ready)):
                pass
            await trio.lowlevel.checkpoint()
        finally:
            self._is_busy = False
        if not self._ready and self._failure is not None:
            raise self._failure
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    async def _advance(self, wanted: int) -> bool:
        """One step towards `wanted` more ready items; False if there are no more for now."""
        if self._seen:
            first = self._seen[0]
            if isinstance(first, Item):
                self._ready.append(first)
                self._seen.popleft()
                return True
            if not first.found:
                await run_abandonable(first.find, wanted)
            while first.found and wanted:
                self._ready.append(first.found.popleft())
                wanted -= 1
            if first.is_exhausted:
                self._seen.popleft()
            return True
        if self._failure is not None:
            return False
        if self._pulled:
            await self._look(wanted)
            return True
        if self._is_ended:
            return False
        if self._iterator is not None:
            self._pull(self._iterator, wanted)
            return True
        if self._ready:
            return False
        await self._await_one()
        return True

    def _pull(self, iterator: Iterator[object], wanted: int) -> None:
        try:
            for _ in range(wanted):
                self._pulled.append(next(iterator))
        except StopIteration:
            self._is_ended = True
        except Exception as error:  # the caller's: it passes, when its turn comes
            self._is_ended = True
            self._failure = error

    async def _await_one(self) -> None:
        if self._async_iterator is None:
            return
        try:
            self._pulled.append(await anext(self._async_iterator))
        except StopAsyncIteration:
            self._is_ended = True
        except Exception as error:
            self._is_ended = True
            self._failure = error

    async def _look(self, wanted: int) -> None:
        """See what the next inputs are, paths in one thread hop."""
        given = list(itertools.islice(self._pulled, wanted))
        paths = {number: path for number, each in enumerate(given) if (path := _path(each)) is not None}
        looked_at = await self._look_at(paths)
        for number, each in enumerate(given):
            if number in looked_at:
                item: Item | Expansion = looked_at[number]
            else:
                try:
                    item = _item(each)
                except TypeError as error:
                    self._failure = error
                    for other in range(number, len(given)):  # looked at once more, when their turn comes
                        if isinstance(looked := looked_at.get(other), Item):
                            looked.discard()
                    return
            self._seen.append(item)
            self._pulled.popleft()

    async def _look_at(self, paths: dict[int, str]) -> dict[int, Item | Expansion]:
        """What there is at each of `paths`. A file that opens at once is a DICOM object, and stays open."""
        opened = {number: source for number, path in paths.items() if (source := open_now(path)) is not None}
        others = [number for number in paths if number not in opened]
        found: list[Expansion | None] = []
        complete = False
        try:
            if others:
                skip = self._skip
                found = await run_abandonable(lambda: [expansion_of(paths[number], skip) for number in others])
            complete = True
        finally:
            if not complete:
                for source in opened.values():
                    source.discard()
        items: dict[int, Item | Expansion] = {
            number: FileItem(paths[number], source) for number, source in opened.items()
        }
        items.update((number, each or FileItem(paths[number])) for number, each in zip(others, found, strict=True))
        return items

    def rest(self) -> list[Item]:
        """All items that are left, as far as they are known without looking or waiting; they are taken thereby.

        Those of a list, and of what was begun. A folder that was not walked to its end is one item which names it.
        """
        items = list(self._ready)
        for seen in self._seen:
            items += [seen] if isinstance(seen, Item) else seen.rest()
        left = [*self._pulled]
        if self._is_known and self._iterator is not None:
            left += self._iterator
            self._is_ended = True
        for each in left:
            path = _path(each)
            try:
                items.append(FileItem(path) if path is not None else _item(each))
            except TypeError as error:
                items.append(InvalidItem(f"<{type(each).__name__}>", InvalidObject(str(error))))
        for container in self._seen:
            if isinstance(container, Expansion):
                container.close()
        self._ready.clear()
        self._seen.clear()
        self._pulled.clear()
        if self._is_known:
            self._failure = None
        return items

    async def aclose(self) -> None:
        """Let go of what was opened to be looked through; close the async generator that was given, if it was one."""
        for seen in (*self._seen, *self._ready):
            if isinstance(seen, Expansion):
                seen.close()
            else:
                seen.discard()
        if isinstance(self._async_iterator, AsyncGenerator):
            with trio.move_on_after(_CLOSING, shield=True):
                await self._async_iterator.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_one(thing: object) -> bool:
    """Whether `thing` is one input. Data sets, streams and pairs can be iterated, too."""
    return _path(thing) is not None or is_data_set(thing) or _is_stream(thing) or _is_pair(thing)


def _path(thing: object) -> str | None:
    if isinstance(thing, str):
        return thing
    return os.fsdecode(thing) if isinstance(thing, os.PathLike) else None


def _is_pair(thing: object) -> bool:
    is_pair = isinstance(thing, tuple) and len(thing) == 2 and is_data_set(thing[0])
    return is_pair and (thing[1] is None or isinstance(thing[1], PixelSource))  # type: ignore[index]


def _is_stream(thing: object) -> bool:
    if isinstance(thing, trio.abc.ReceiveStream):
        return True
    file = getattr(thing, "wrapped", thing) if isinstance(thing, trio.abc.AsyncResource) else thing
    return callable(getattr(file, "read", None))


def _item(thing: Any) -> Item:
    """That of an input which is no path."""
    if is_data_set(thing):
        return DatasetItem(thing)
    if _is_pair(thing):
        return DatasetItem(*thing)
    if _is_stream(thing) and not isinstance(getattr(thing, "wrapped", thing), io.TextIOBase):
        return StreamItem(thing)
    raise TypeError(
        "an input is a path, a pydicom Dataset, a pair of one and a PixelSource, a binary file object or a "
        f"trio.abc.ReceiveStream, not {type(thing).__name__}"
    )
