"""FileSource: a DICOM file, sent as it lies on the disk.

The descriptor stays open from the first look at the file until the last byte has gone, so the path may be renamed
meanwhile. Reads go straight to the page cache where the kernel answers without waiting (RWF_NOWAIT, Linux), else to a
thread. A thread that was abandoned owns the descriptor until it returns: a descriptor is never closed under a reader.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import warnings
from collections.abc import Sequence

import trio

from ..errors import InternalError, InvalidObject, LocalProtocolError, ObjectChanged, ReadError, Retry, printable
from . import element_walk, part10, recode
from .at_once import learn_folder, open_at_once
from .part10 import Head
from .recode import Piece, Span
from .source import Source
from .threads import run_abandonable

Path = str | os.PathLike[str]

# Reading on the event loop what is in the page cache; False sends every read to a thread.
read_on_loop = hasattr(os, "RWF_NOWAIT")

_FIRST_CACHED = 16 << 10  # bytes of the first read of a large file, where the rest is at hand too
_SMALL = 64 << 10  # a file of no more bytes is read at once
_FIRST = part10.HEAD_LIMIT  # of the first read where each one is a journey
_OPEN_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _name, 0)

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)

# The file may well be there later: the machine or the file server is in trouble, not the file.
_PASSING_NAMES = (
    "EIO ESTALE EMFILE ENFILE ENOMEM EAGAIN EINTR EBUSY ETIMEDOUT ENOLCK EREMOTEIO "
    "ECONNRESET ECONNABORTED ENETDOWN ENETUNREACH EHOSTDOWN EHOSTUNREACH ENOTCONN"
)
_PASSING = {getattr(errno, name) for name in _PASSING_NAMES.split() if hasattr(errno, name)}


class Descriptor:
    """An open file that several threads may read, closed when the last has let go of it."""

    def __init__(self) -> None:
        self.fd = -1
        self._lock = threading.Lock()
        self._readers = 0
        self._closed = False

    def open(self, path: Path) -> None:
        with self:
            self.fd = os.open(path, _OPEN_FLAGS)

    def open_at_once(self, path: Path) -> bool:
        """Whether it is open now; if it is not, that may take time, or `open` tells why not. Never blocks."""
        self.fd = open_at_once(path if type(path) is str else os.fsdecode(path), _OPEN_FLAGS)
        return self.fd >= 0

    def __enter__(self) -> int:
        """The descriptor, which stays open inside the block."""
        with self._lock:
            if self._closed:
                raise trio.ClosedResourceError("the file was closed")
            self._readers += 1
        return self.fd

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._readers -= 1
            self._close_if_unused()

    def close(self) -> None:
        """Let go of it; also of one that is not open yet."""
        with self._lock:
            self._closed = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closed and not self._readers and self.fd >= 0:
            fd, self.fd = self.fd, -1
            try:
                os.close(fd)
            except OSError:  # it is closed all the same, and what was read from it was read
                pass

    def __del__(self) -> None:
        if self.fd >= 0:
            warnings.warn("a source was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()


async def open_file(path: Path) -> FileSource:
    """The DICOM file at `path`, ready to be sent in its own transfer syntax. One thread hop at most.

    Raises `InvalidObject` if it is no regular file or no DICOM object that can be sent, `ReadError` (an `OSError` is
    chained) if it cannot be opened or read.
    """
    (result,) = await open_files((path,))
    if isinstance(result, InvalidObject):
        raise result
    return result


async def open_files(paths: Sequence[Path]) -> list[FileSource | InvalidObject]:
    """As `open_file`, for several files in one thread hop: each's source, or what `open_file` would raise for it."""
    results: list[FileSource | InvalidObject | None] = [open_now(path) for path in paths]
    left = [number for number, result in enumerate(results) if result is None]
    if left:
        descriptors = [Descriptor() for _ in left]
        complete = False
        try:
            opened = await run_abandonable(_open_all, descriptors, [paths[number] for number in left])
            complete = True
        finally:
            if not complete:
                for descriptor in descriptors:
                    descriptor.close()
                for result in results:
                    if isinstance(result, FileSource):
                        result.discard()
        for number, source in zip(left, opened, strict=True):
            results[number] = source
    return results  # type: ignore[return-value]  # none is None any more


def open_now(path: Path) -> FileSource | None:
    """As `open_file`, where it takes no time, and there is nothing wrong with the file; else None. Never blocks."""
    descriptor = Descriptor()
    if not read_on_loop or not descriptor.open_at_once(path):
        return None
    source = None
    try:
        found = _examine(descriptor.fd, may_wait=False)
        source = None if found is None else FileSource(descriptor, path, *found)
    except (OSError, InvalidObject):
        pass  # those who have time will say what it is
    finally:
        if source is None:
            descriptor.close()
    return source


def _open_all(descriptors: Sequence[Descriptor], paths: Sequence[Path]) -> list[FileSource | InvalidObject]:
    return [_open(descriptor, path) for descriptor, path in zip(descriptors, paths, strict=True)]


def read_head(path: Path) -> Head:
    """The head of the DICOM file at `path`. Blocks; raises as `open_file`."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
        try:
            return _examined(fd)[0]
        finally:
            os.close(fd)
    except (OSError, InvalidObject, ValueError) as error:
        raise _failure(path, error) from error.__cause__


def _open(descriptor: Descriptor, path: Path) -> FileSource | InvalidObject:
    try:
        descriptor.open(path)
        learn_folder(os.fsdecode(path))
        with descriptor as fd:
            return FileSource(descriptor, path, *_examined(fd))
    except (OSError, InvalidObject, ValueError) as error:
        descriptor.close()
        return _failure(path, error)


def _failure(path: Path, error: OSError | InvalidObject | ValueError) -> InvalidObject:
    """What `open_file` raises for `error`."""
    where = _printable_path(path)
    if isinstance(error, InvalidObject):
        error.where = where
        return error
    if isinstance(error, OSError):
        return _named_kind(path, error, where) or read_error(error, where)
    failure = ReadError("not a path", where)  # a NUL inside
    failure.__cause__ = error
    return failure


def _printable_path(path: Path) -> str:
    return printable(os.fsdecode(path), 1024)


def open_regular(descriptor: Descriptor, path: Path) -> os.stat_result:
    """Open the file at `path`, which hangs on nothing: its state. Raises `InvalidObject` for what is no file."""
    descriptor.open(path)
    with descriptor as fd:
        status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidObject(_kind(status.st_mode))
    return status


_Examined = tuple[Head, memoryview, os.stat_result, bool]


def _examined(fd: int) -> _Examined:
    found = _examine(fd)
    if found is None:
        raise InternalError("the head of a file was not told from its first 64 KiB")
    return found


def _examine(fd: int, *, may_wait: bool = True) -> _Examined | None:
    """The head, the first bytes, the state of the file, and whether reads are answered at once, or not at all.

    None if that needs reading that may take time.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidObject(_kind(status.st_mode))
    first = bytearray(status.st_size if status.st_size <= _SMALL else _FIRST_CACHED)
    at_once = _read_at_once(fd, memoryview(first), 0) if read_on_loop else -1
    head = part10.parse_head(first, at_end=len(first) == status.st_size) if at_once == len(first) else None
    if head is None and not may_wait:
        return None
    if head is None:
        first = bytearray(min(status.st_size, _FIRST))
        if read_at(fd, memoryview(first), 0) < len(first):
            raise ObjectChanged("the file shrank while it was opened")
        head = part10.parse_head(first, at_end=len(first) == status.st_size)
    if head is None:
        return None
    if (status.st_size - head.data_set_offset) % 2:
        raise InvalidObject("the data set is of odd length")
    element_walk.check_file(head, first, status.st_size, lambda at, count: _piece(fd, at, count, may_wait=may_wait))
    return head, memoryview(first), status, at_once >= 0


def _piece(fd: int, offset: int, count: int, *, may_wait: bool) -> bytearray:
    piece = bytearray(count)
    if may_wait:
        read_at(fd, memoryview(piece), offset)
    elif _read_at_once(fd, memoryview(piece), offset) < count:
        raise BlockingIOError
    return piece


def _kind(mode: int) -> str:
    for is_kind, name in _KINDS:
        if is_kind(mode):
            return f"not a file but {name}"
    return "not a regular file"


def _named_kind(path: Path, error: OSError, where: str) -> InvalidObject | None:
    """Sockets cannot be opened, directories not everywhere: say what they are rather than what went wrong."""
    if error.errno in (errno.ENXIO, errno.EACCES, errno.EISDIR):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return None
        if not stat.S_ISREG(mode):
            return InvalidObject(_kind(mode), where)
    return None


def read_error(error: OSError, where: str) -> ReadError:
    """`error` as a `ReadError`, with what may be done about it."""
    result = ReadError(f"cannot be read: {error.strerror or type(error).__name__}", where)
    if error.errno in _PASSING:
        result.retry = Retry.LATER
    result.__cause__ = error
    return result


class FileSource(Source):
    """See `open_file`. `head` is what the file says of itself."""

    def __init__(
        self,
        descriptor: Descriptor,
        path: Path,
        head: Head,
        first: memoryview,
        status: os.stat_result,
        answers_at_once: bool,
    ) -> None:
        self.head = head
        self._path = path
        self.sop_class_uid = head.sop_class_uid
        self.sop_instance_uid = head.sop_instance_uid
        self.transfer_syntaxes = recode.native_alternatives(head.transfer_syntax_uid)
        self._descriptor = descriptor
        self._first = first  # read at opening; a small file is all here
        self._status = status
        # Where the kernel answers a read at once or not at all, it answers fstat from memory too.
        self._on_loop = answers_at_once
        self._arrange(head.transfer_syntax_uid, [Span(head.data_set_offset, status.st_size - head.data_set_offset)])

    @property
    def where(self) -> str:
        """The path, escaped for messages."""
        return _printable_path(self._path)

    @property
    def status(self) -> os.stat_result:
        """Of the file, as it was opened."""
        return self._status

    def __repr__(self) -> str:
        return f"<FileSource {self.where}>"

    def _arrange(self, transfer_syntax_uid: str, pieces: list[Piece]) -> None:
        self._prepared = transfer_syntax_uid
        self._pieces = pieces
        self.size: int = sum(map(recode.piece_length, pieces))
        self._start()

    def _start(self) -> None:
        self._index = 0  # of the piece in which the next byte is
        self._within = 0  # bytes of that piece that are read
        self._done = 0  # bytes of all that are read

    async def prepare(self, transfer_syntax_uid: str) -> None:
        self._check_offered(transfer_syntax_uid)
        if transfer_syntax_uid == self._prepared:
            self._start()
            return
        try:
            pieces = await run_abandonable(self._recode, transfer_syntax_uid)
        except OSError as error:
            raise read_error(error, self.where) from error
        except InvalidObject as error:
            error.where = self.where
            raise
        self._arrange(transfer_syntax_uid, pieces)
        if not self.size:
            raise InvalidObject("the data set has no elements", self.where)
        if self.size % 2:
            raise InvalidObject("the data set is of odd length", self.where)

    def is_prepared_for(self, transfer_syntax_uid: str) -> bool:
        return not self._done and self._prepared == transfer_syntax_uid

    def _recode(self, target: str) -> list[Piece]:
        with self._descriptor as fd, os.fdopen(os.dup(fd), "rb") as stream:
            own, start = self.head.transfer_syntax_uid, self.head.data_set_offset
            return recode.recode(stream, start, self._status.st_size, own, target)

    async def read_into(self, buffer: memoryview) -> tuple[int, bool]:
        if self._descriptor.fd < 0:
            raise trio.ClosedResourceError("this source was closed")
        wanted = min(len(buffer), self.size - self._done)
        if not wanted:
            raise LocalProtocolError("read_into after the last byte, or into no room")
        finishes = self._done + wanted == self.size
        index, within, filled = self._index, self._within, 0
        verified = False
        while filled < wanted:
            piece = self._pieces[index]
            count = min(recode.piece_length(piece) - within, wanted - filled)
            target = buffer[filled : filled + count]
            if isinstance(piece, Span):
                verified = await self._read_span(target, piece.offset + within, finishes and filled + count == wanted)
            else:
                target[:] = piece[within : within + count]
            filled += count
            within += count
            if within == recode.piece_length(piece):
                index, within = index + 1, 0
        if finishes and not verified:
            if self._on_loop and read_on_loop:
                self._verify(self._descriptor.fd)
            else:
                await self._in_thread(memoryview(b""), 0, verify=True)
        self._index, self._within = index, within
        self._done += wanted
        return wanted, finishes

    def read_at_once(self, buffer: memoryview) -> tuple[int, bool] | None:
        piece, wanted = self._pieces[0] if len(self._pieces) == 1 else None, min(len(buffer), self.size - self._done)
        if not isinstance(piece, Span) or not wanted or not (self._on_loop and read_on_loop):
            return None
        offset = piece.offset + self._done
        kept = self._first[offset : offset + wanted]
        filled = len(kept)
        buffer[:filled] = kept
        if filled < wanted and not self._fill_at_once(buffer[filled:wanted], offset + filled):
            return None
        self._done += wanted
        self._within = self._done
        if finishes := self._done == self.size:
            self._verify(self._descriptor.fd)
        return wanted, finishes

    def _fill_at_once(self, target: memoryview, offset: int) -> bool:
        """Fill `target` from `offset` on, if it is all in the page cache."""
        try:
            count = _read_at_once(self._descriptor.fd, target, offset)
        except OSError as error:
            raise read_error(error, self.where) from error
        self._on_loop = count >= 0
        return count == len(target)

    def whole(self) -> memoryview | None:
        is_here = len(self._first) == self._status.st_size and len(self._pieces) == 1
        if self._done or not is_here or not isinstance(self._pieces[0], Span) or not (self._on_loop and read_on_loop):
            return None
        self._verify(self._descriptor.fd)
        self._done = self.size
        return self._first[self.head.data_set_offset :]

    async def _read_span(self, target: memoryview, offset: int, verify: bool) -> bool:
        """Fill `target` from `offset` on; True if the file was verified thereafter."""
        filled = 0
        if offset < len(self._first):
            kept = self._first[offset : offset + len(target)]
            filled = len(kept)
            target[:filled] = kept
        if filled < len(target) and self._on_loop and read_on_loop:
            try:
                count = _read_at_once(self._descriptor.fd, target[filled:], offset + filled)
            except OSError as error:
                raise read_error(error, self.where) from error
            self._on_loop = count >= 0
            filled += max(count, 0)
        if filled == len(target):
            return False
        await self._in_thread(target[filled:], offset + filled, verify)
        return verify

    async def _in_thread(self, target: memoryview, offset: int, verify: bool) -> None:
        self.buffer_in_use = True
        try:
            await run_abandonable(self._read_and_verify, target, offset, verify)
        except OSError as error:
            self.buffer_in_use = False
            raise read_error(error, self.where) from error
        except InvalidObject:
            self.buffer_in_use = False
            raise
        self.buffer_in_use = False

    def _read_and_verify(self, target: memoryview, offset: int, verify: bool) -> None:
        with self._descriptor as fd:
            if read_at(fd, target, offset) < len(target):
                raise ObjectChanged("the file shrank while it was sent", self.where)
            if verify:
                self._verify(fd)

    def _verify(self, fd: int) -> None:
        """That the open file is what it was when it was opened, and still has as many names."""
        try:
            now = os.fstat(fd)
        except OSError as error:
            raise read_error(error, self.where) from error
        then = self._status
        if now.st_size != then.st_size:
            what = "grew" if now.st_size > then.st_size else "shrank"
        elif now.st_mtime_ns != then.st_mtime_ns:
            what = "was rewritten"
        elif (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_nlink < then.st_nlink:
            what = "was replaced or removed"
        else:
            return
        raise ObjectChanged(f"the file {what} while it was sent", self.where)

    async def rewind(self) -> bool:
        if self._descriptor.fd < 0:
            return False
        self._start()
        return True

    async def aclose(self) -> None:
        self.discard()

    def discard(self) -> None:
        self._descriptor.close()
        self._first = memoryview(b"")
        self._pieces = []


if hasattr(os, "preadv"):

    def read_at(fd: int, target: memoryview, offset: int) -> int:
        """Fill `target` from `offset` on; fewer bytes only at the end of the file."""
        filled = 0
        while filled < len(target):
            count = os.preadv(fd, [target[filled:]], offset + filled)
            if not count:
                break
            filled += count
        return filled

else:  # pragma: no cover - Windows

    def read_at(fd: int, target: memoryview, offset: int) -> int:
        """Fill `target` from `offset` on; fewer bytes only at the end of the file."""
        os.lseek(fd, offset, os.SEEK_SET)
        filled = 0
        while filled < len(target):
            part = os.read(fd, len(target) - filled)
            if not part:
                break
            target[filled : filled + len(part)] = part
            filled += len(part)
        return filled


def _read_at_once(fd: int, target: memoryview, offset: int) -> int:
    """As much as is in the page cache, perhaps nothing; -1 where the file system cannot tell."""
    filled = 0
    while filled < len(target):
        try:
            count = os.preadv(fd, [target[filled:] if filled else target], offset + filled, os.RWF_NOWAIT)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                return -1
            raise
        if not count:
            break
        filled += count
    return filled
