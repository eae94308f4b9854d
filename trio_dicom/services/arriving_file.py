"""ArrivingFile: a file that gets its name when it is whole and, if wanted, on the disk. Everything here blocks.

1. Until then it is `.arriving-<random>.part` in the root folder, and its writer holds a lock on it (flock). So `sweep`
   can tell the files that a dead writer left from those of a living one, in this process or another. Where there are no
   locks, nothing is swept; on Windows, where an open file cannot be removed, that serves as the lock.
2. A writer that has created its file and not yet locked it looks dead. Having locked it, it looks whether the name
   still leads to it; if not, a sweep was faster, and it begins anew. The names are never used twice, so a sweep cannot
   remove by such a name what has got its final one meanwhile.
3. fsync of the file, close, rename or link, fsync of the folder, in this order: whoever sees the final name sees the
   whole file, and `commit` returns when both have reached the disk. The lock, on a duplicate of the descriptor,
   outlives the close, which may report an error of its own.
4. If the last fsync fails, the file stays: what it replaced is gone already, and others may have been told that it is
   there. The caller gets the error, and does well to file it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import threading
from collections.abc import Sequence
from types import TracebackType

from .directory import Directory, Durable, close_all

if sys.platform != "win32":
    import fcntl

Buffer = bytes | bytearray | memoryview

_HAS_LOCKS = sys.platform != "win32"
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC | _BINARY
_EXAMINE = os.O_RDWR | _NOFOLLOW | _CLOEXEC | _BINARY | getattr(os, "O_NONBLOCK", 0)

_IOV_MAX = 1024
_ATTEMPTS = 16  # to be faster than a sweep
_NAME = re.compile(r"\.arriving-[0-9a-f]{32}\.part")
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_NO_LINKS_HERE = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Discarded(Exception):
    """The file was given up, by another thread or before the work on it began."""


class NoHardLinks(OSError):
    """The file system cannot give a file its name without a risk to another of that name."""


class ArrivingFile:
    """See above. Used as a context, by one thread at a time; what is raised in the context discards it.

    `sync` False leaves every fsync out. `min_free` bytes must be free before each write, else ENOSPC.
    """

    def __init__(self, root: str, durable: Durable, *, sync: bool = True, min_free: int = 0) -> None:
        self.size = 0  # bytes written
        self.is_in_use = False  # handed to a thread, and not yet closed
        self.is_unwanted = False  # set by any thread: nobody waits for it any more, so it shall not be filed
        self._root_path = root
        self._durable = durable
        self._sync = sync
        self._min_free = min_free
        self._is_closed = False
        self._thread = threading.RLock()
        self._root: Directory | None = None
        self._name = ""
        self._fd = self._lock_fd = -1

    def __enter__(self) -> ArrivingFile:
        self._thread.acquire()
        if self._is_closed:
            self._thread.release()
            raise Discarded
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None or self.is_unwanted:
                self.discard()
        finally:
            self._thread.release()

    def write(self, buffers: Sequence[Buffer], *, is_last: bool = False) -> None:
        """Append; the first call creates the file. What is not the last is on its way to the disk from now on."""
        if self._fd < 0:
            self._open()
        if self._min_free and self._opened_root().free() < self._min_free:
            raise OSError(errno.ENOSPC, f"less free space than is to be kept ({self._min_free} bytes)")
        count = write_all(self._fd, buffers)
        if self._sync and not is_last:
            _begin_writing_back(self._fd, self.size, count)
        self.size += count

    def read_at(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._fd, length, offset)
        os.lseek(self._fd, offset, os.SEEK_SET)
        try:
            return os.read(self._fd, length)
        finally:
            os.lseek(self._fd, 0, os.SEEK_END)

    def commit(self, names: Sequence[str], *, replace: bool) -> bool:
        """Give it its name, below the root. False if there is a file of that name that was not to be replaced."""
        root = self._opened_root()
        if self._sync:
            os.fsync(self._fd)
        folder = root
        try:
            for name in names[:-1]:
                inner = self._make_folder(folder, name)
                if folder is not root:
                    folder.close()
                folder = inner
            self._close_file()
            if self.is_unwanted:
                raise Discarded
            filed = self._place(folder, names[-1], replace)
            if self._sync:
                folder.sync()
        finally:
            if folder is not root:
                folder.close()
        self.discard()  # the descriptors, and the first name if there was a link made of it
        return filed

    def discard(self, *, wait: bool = True) -> None:
        """Remove and close it, if it was not filed. Never fails.

        A thread that is at work on it is waited for; without `wait`, it will do this itself.
        """
        self.is_unwanted = True
        if not self._thread.acquire(blocking=wait):
            return
        try:
            self._is_closed = True
            self.is_in_use = False
            root, self._root = self._root, None
            fds, self._fd, self._lock_fd = (self._fd, self._lock_fd), -1, -1
            if not _HAS_LOCKS:
                close_all(*fds)  # Windows removes no open file
            if root is not None and self._name:
                _remove(root, self._name)
            close_all(*fds)
            if root is not None:
                root.close()
        finally:
            self._thread.release()

    def _open(self) -> None:
        root = self._root = Directory.open(self._root_path)
        for _ in range(_ATTEMPTS):
            name = f".arriving-{os.urandom(16).hex()}.part"
            self._fd = os.open(root.at(name), _CREATE, 0o600, dir_fd=root.fd)
            self._name = name
            if self._is_ours():
                return
            _remove(root, name)
            fd, self._fd, self._name = self._fd, -1, ""
            close_all(fd)
        raise OSError(errno.EAGAIN, "temporary files are removed as soon as they are made")

    def _is_ours(self) -> bool:
        """Lock it, and see whether a sweep had been there before."""
        if not _HAS_LOCKS:
            return True
        root = self._opened_root()
        try:
            _lock(self._fd)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:  # where nobody can lock, nobody sweeps
                raise
        self._lock_fd = os.dup(self._fd)
        try:
            named = os.stat(root.at(self._name), dir_fd=root.fd, follow_symlinks=False)
            if os.path.samestat(named, os.fstat(self._fd)):
                return True
        except FileNotFoundError:
            pass
        fd, self._lock_fd = self._lock_fd, -1
        close_all(fd)
        return False

    def _opened_root(self) -> Directory:
        if self._root is None:
            raise Discarded
        return self._root

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _make_folder(self, parent: Directory, name: str) -> Directory:
        is_new = False
        try:
            folder = parent.open_folder(name)
        except FileNotFoundError:
            try:
                os.mkdir(parent.at(name), 0o700, dir_fd=parent.fd)
                is_new = True
            except FileExistsError:  # another was faster
                pass
            folder = parent.open_folder(name)
        # One that is there may have been made a moment ago, by a writer who has not come to its fsync.
        if self._sync and (is_new or folder.path not in self._durable):
            try:
                parent.sync()
            except BaseException:
                folder.close()
                raise
            self._durable.add(folder.path)
        return folder

    def _place(self, folder: Directory, name: str, replace: bool) -> bool:
        root = self._opened_root()
        source, target = root.at(self._name), folder.at(name)
        if replace:
            os.replace(source, target, src_dir_fd=root.fd, dst_dir_fd=folder.fd)
            self._name = ""
            return True
        try:
            os.link(source, target, src_dir_fd=root.fd, dst_dir_fd=folder.fd)
        except FileExistsError:
            # A link or a folder of that name is no instance that could stand for this one.
            if not stat.S_ISREG(os.stat(target, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                raise
            return False
        except OSError as error:
            if error.errno in _NO_LINKS_HERE:
                raise NoHardLinks(error.errno, error.strerror) from error
            raise
        return True


def write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Every byte of `buffers`, gathered where the platform can; how many they were."""
    if not hasattr(os, "writev"):
        return sum([_write_one(fd, buffer) for buffer in buffers])
    written = 0
    for first in range(0, len(buffers), _IOV_MAX):
        batch = list(buffers[first : first + _IOV_MAX])
        left = sum(map(len, batch))
        written += left
        while left:
            count = os.writev(fd, batch)
            if count <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            left -= count
            if left:
                batch = _without(batch, count)
    return written


def _begin_writing_back(fd: int, offset: int, length: int) -> None:
    """So that fsync has less to wait for. Python has no sync_file_range; on Linux this does the same, and no harm."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def _without(buffers: list[Buffer], count: int) -> list[Buffer]:
    """What is left of `buffers` after their first `count` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []


def _write_one(fd: int, buffer: Buffer) -> int:
    view = memoryview(buffer)
    while view:
        count = os.write(fd, view)
        if count <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[count:]
    return len(buffer)


def sweep(root: str) -> int:
    """Remove from the folder `root` what writers left that are dead; how many files. Raises `OSError`."""
    removed = 0
    with Directory.open(root) as folder, os.scandir(root if folder.fd is None else folder.fd) as entries:
        for name in [entry.name for entry in entries if _NAME.fullmatch(entry.name)]:
            try:
                removed += _sweep_one(folder, name)
            except OSError:  # it was filed or removed meanwhile; or it is another's, or there are no locks
                continue
    return removed


def _sweep_one(folder: Directory, name: str) -> bool:
    if not _HAS_LOCKS:
        os.unlink(folder.at(name), dir_fd=folder.fd)
        return True
    fd = os.open(folder.at(name), _EXAMINE, dir_fd=folder.fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        _lock(fd)
        os.unlink(folder.at(name), dir_fd=folder.fd)
        return True
    finally:
        close_all(fd)


def _lock(fd: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove(folder: Directory, name: str) -> None:
    try:
        os.unlink(folder.at(name), dir_fd=folder.fd)
    except OSError:  # gone, or left to the next sweep
        pass
