"""Item: one input of a sender, not opened yet. There may be very many of them, so they hold next to nothing."""

from __future__ import annotations

import abc
import copy
import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from ..errors import InvalidObject, ReadError, printable
from ..sources.container import FIRST_BYTES, Container, container_of
from ..sources.dataset import DatasetSource, open_dataset
from ..sources.file import Descriptor, FileSource, open_file, open_files, open_regular, read_at, read_error
from ..sources.parsed import check_size, parse_dataset, parse_whole, read_whole
from ..sources.pixels import PixelSource
from ..sources.source import Source
from ..sources.stream import StreamSource, open_stream
from ..sources.threads import run_abandonable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ..sources.part10 import Head
    from ..sources.zip_archive import Member


class Identity(NamedTuple):
    """What tells an input from others, and from itself in another state, in the next run too."""

    name: bytes
    size: int | None = None  # bytes
    mtime_ns: int | None = None


class Item(abc.ABC):
    """One input. `name` is what the caller called it, not escaped."""

    __slots__ = ()

    is_data_set = False
    """Whether it is a `Dataset` of the caller's: then it is in memory already."""

    can_reopen: bool = True
    """Whether `open` gives the same object once more. A stream that cannot be rewound is sent once only."""

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @abc.abstractmethod
    async def open(self) -> Source:
        """The object, ready to be sent. Raises `InvalidObject`, `ReadError` among them."""

    @abc.abstractmethod
    def identity(self, source: Source | None) -> Identity:
        """`source` is the one that `open` gave: the state is that of what was opened. Without it less is known."""

    def discard(self) -> None:  # noqa: B027  # most have opened nothing
        """Let go of what was opened when the item was looked at."""

    async def fetch(self, source: Source) -> None:  # noqa: B027  # a stream has something to do
        """To be called before `read_dataset`, where `source` is the one that `open` gave. `source` is used up."""

    @abc.abstractmethod
    def read_dataset(self) -> Dataset:
        """A data set of its own, with `file_meta`, whole in memory. Blocks: for a thread. Raises `InvalidObject`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {printable(self.name, 1024)}>"


class FileItem(Item):
    """A path. That it leads to a file shows when it is opened; it may be open already."""

    __slots__ = ("_opened", "path")

    def __init__(self, path: str, opened: FileSource | None = None) -> None:
        self.path = path
        self._opened = opened

    @property
    def name(self) -> str:
        return self.path

    def take_opened(self) -> FileSource | None:
        """What was opened before, if it was."""
        opened, self._opened = self._opened, None
        return opened

    def discard(self) -> None:
        opened = self.take_opened()
        if opened is not None:
            opened.discard()

    async def open(self) -> Source:
        try:
            return self.take_opened() or await open_file(self.path)
        except InvalidObject as error:
            if type(error) is InvalidObject:
                await run_abandonable(_explain, [(self.path, error)])
            raise

    def identity(self, source: Source | None) -> Identity:
        name = os.fsencode(os.path.abspath(self.path))
        if not isinstance(source, FileSource):
            return Identity(name)
        return Identity(name, source.status.st_size, source.status.st_mtime_ns)

    def read_dataset(self) -> Dataset:
        descriptor = Descriptor()
        try:
            size = open_regular(descriptor, self.path).st_size
            with descriptor as fd, os.fdopen(os.dup(fd), "rb") as stream:
                return parse_dataset(stream, size)
        except (OSError, InvalidObject) as error:
            raise _located(error, self.name) from error.__cause__
        finally:
            descriptor.close()


class MemberItem(Item):
    """A file in a ZIP archive."""

    __slots__ = ("member",)

    def __init__(self, member: Member) -> None:
        self.member = member

    @property
    def name(self) -> str:
        return self.member.path

    async def open(self) -> Source:
        from ..sources.zip_member import open_members  # most inputs are files: how to unzip is imported for others only

        (result,) = await open_members((self.member,))
        if isinstance(result, InvalidObject):
            raise result
        return result

    def identity(self, source: Source | None) -> Identity:
        archive = self.member.archive
        name = os.fsencode(os.path.abspath(archive.path)) + b"!" + self.member.raw_name
        return Identity(name, self.member.size, archive.status.st_mtime_ns if archive.status is not None else None)

    def read_dataset(self) -> Dataset:
        from ..sources.zip_member import open_member

        descriptor = Descriptor()
        try:
            check_size(self.member.size)
            with open_member(descriptor, self.member) as stream:
                # pydicom goes back and forth, and here to go back is to begin anew.
                return parse_dataset(io.BytesIO(stream.read()), self.member.size)
        except (OSError, InvalidObject) as error:
            raise _located(error, self.name) from error.__cause__
        finally:
            descriptor.close()


class DatasetItem(Item):
    """A pydicom `Dataset` of the caller's, which must not change before it was sent; perhaps with pixels."""

    __slots__ = ("dataset", "pixels")

    is_data_set = True

    def __init__(self, dataset: Dataset, pixels: PixelSource | None = None) -> None:
        self.dataset = dataset
        self.pixels = pixels

    @property
    def name(self) -> str:
        return f"data set {_sop_instance_uid(self.dataset)}".rstrip()

    async def open(self) -> Source:
        try:
            return await open_dataset(self.dataset, self.pixels)
        except (TypeError, ValueError) as error:  # a PixelSource that is none
            raise InvalidObject(str(error), self.name) from error

    def identity(self, source: Source | None) -> Identity:
        if not isinstance(source, DatasetSource):
            return Identity(os.fsencode(self.name))
        return Identity(b"data set " + source.sop_instance_uid.encode("ascii"), source.encoded_size)

    def read_dataset(self) -> Dataset:
        if self.pixels is not None:  # they would be lost
            raise InvalidObject("pixels that come while they are sent cannot be converted", self.name)
        try:
            return copy.deepcopy(self.dataset)
        except Exception as error:
            raise InvalidObject(f"the data set cannot be copied: {type(error).__name__}", self.name) from error


class StreamItem(Item):
    """A binary file object or a trio `ReceiveStream`, which remains the caller's to close."""

    __slots__ = ("_data", "_head", "_is_begun", "_source", "stream")

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._is_begun = False
        self._source: StreamSource | None = None
        self._head: Head | None = None
        self._data: bytearray | None = None

    @property
    def name(self) -> str:
        return "stream"

    @property
    def can_reopen(self) -> bool:  # type: ignore[override]
        if self._is_begun and self._source is None:  # it failed, or was cancelled, somewhere in the stream
            return False
        seekable = getattr(self.stream, "seekable", None)
        return not isinstance(self.stream, trio.abc.ReceiveStream) and seekable is not None and bool(seekable())

    async def open(self) -> Source:
        if self._source is not None:
            self._source = await self._source.reopened()
            return self._source
        if self._is_begun:
            raise ReadError("the stream cannot be read a second time", self.name)
        self._is_begun = True
        try:
            self._source = await open_stream(self.stream)
        except TypeError as error:  # its read() does not give bytes
            raise InvalidObject(str(error), self.name) from error
        return self._source

    def identity(self, source: Source | None) -> Identity:
        if not isinstance(source, StreamSource):
            return Identity(b"stream")
        return Identity(b"stream " + source.sop_instance_uid.encode("ascii"), source.size)

    def discard(self) -> None:  # most have opened nothing
        """Let go of what was opened when the item was looked at."""

    async def fetch(self, source: Source) -> None:
        if isinstance(source, StreamSource):
            self._data = await read_whole(source)
            self._head = source.head

    def read_dataset(self) -> Dataset:
        data, self._data = self._data, None
        if data is None or self._head is None:
            raise ReadError("the stream was not fetched, or its data set was taken already", self.name)
        try:
            return parse_whole(self._head, data)
        except InvalidObject as error:
            raise _located(error, self.name) from error.__cause__


class InvalidItem(Item):
    """What is known to be nothing that can be sent, for the reason in `error`."""

    __slots__ = ("_name", "error")

    def __init__(self, name: str, error: InvalidObject) -> None:
        self._name = name
        self.error = error
        error.where = error.where or printable(name, 1024)

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> Source:
        await trio.lowlevel.checkpoint()
        raise self.error

    def identity(self, source: Source | None) -> Identity:
        return Identity(os.fsencode(os.path.abspath(self._name)))

    def read_dataset(self) -> Dataset:
        raise self.error


async def open_items(items: Sequence[Item]) -> list[Source | InvalidObject]:
    """The source of each, or what its `open` would raise: files in one thread hop, members of archives in another."""
    results: list[Source | InvalidObject | None] = [
        item.take_opened() if type(item) is FileItem else None for item in items
    ]
    files = [number for number, item in enumerate(items) if type(item) is FileItem and results[number] is None]
    members = [number for number, item in enumerate(items) if type(item) is MemberItem]
    complete = False
    try:
        if files:
            paths = [items[number].path for number in files]  # type: ignore[attr-defined]
            opened = await open_files(paths)
            for number, result in zip(files, opened, strict=True):
                results[number] = result
            unclear = [(path, error) for path, error in zip(paths, opened, strict=True) if type(error) is InvalidObject]
            if unclear:
                await run_abandonable(_explain, unclear)
        if members:
            from ..sources.zip_member import open_members

            unpacked = await open_members([items[number].member for number in members])  # type: ignore[attr-defined]
            for number, member in zip(members, unpacked, strict=True):
                results[number] = member
        for number, item in enumerate(items):
            if results[number] is None:
                results[number] = await _open_one(item)
        complete = True
    finally:
        if not complete:
            for source in results:
                if isinstance(source, Source):
                    source.discard()
    return results  # type: ignore[return-value]


async def _open_one(item: Item) -> Source | InvalidObject:
    try:
        return await item.open()
    except InvalidObject as error:
        return error


def container_at(path: str) -> Container | None:
    """What is at `path` that is no object itself, but names or holds some. Blocks; raises as `open_regular`."""
    descriptor = Descriptor()
    try:
        size = open_regular(descriptor, path).st_size
        first = memoryview(bytearray(min(size, FIRST_BYTES)))
        with descriptor as fd:
            read_at(fd, first, 0)
    finally:
        descriptor.close()
    return container_of(first, path)


def _explain(unclear: Sequence[tuple[str, InvalidObject]]) -> None:
    """Say of what is no object that there are some in it."""
    for path, error in unclear:
        try:
            container = container_at(path)
        except (OSError, InvalidObject):
            continue
        if container is not None:
            error.reason = container.in_a_folder


def _located(error: OSError | InvalidObject, name: str) -> InvalidObject:
    where = printable(name, 1024)
    if isinstance(error, OSError):
        return read_error(error, where)
    error.where = where
    return error


def _sop_instance_uid(dataset: Dataset) -> str:
    """Of the data set as the caller has it, which is not touched; empty if there is no valid one."""
    from ..uids import is_valid_uid

    value = dataset.get_item(0x00080018).value if 0x00080018 in dataset else None
    text = value.decode("latin-1").rstrip("\0 ") if isinstance(value, bytes) else str(value or "")
    return text if is_valid_uid(text) else ""
