"""Directory: an open folder.

Names below it are looked up from its descriptor, never through a symbolic link. Where the platform has no such calls,
paths are used, and links are looked for first. Everything here blocks.
"""

from __future__ import annotations

import errno
import os
import shutil

_HAS_DIR_FD = hasattr(os, "O_DIRECTORY") and {os.open, os.mkdir, os.rename, os.link, os.unlink, os.stat} <= (
    os.supports_dir_fd
)
_NOT_IN_NAMES = "/\0" + os.sep + (os.altsep or "")
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_SYNC_HERE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # there is nothing to ask for


class Directory:
    """An open folder: `os.open(folder.at(name), ..., dir_fd=folder.fd)`."""

    def __init__(self, path: str, fd: int | None) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def open(cls, path: str) -> Directory:
        """The root: here links are followed."""
        if _HAS_DIR_FD:
            return cls(path, os.open(path, _FLAGS))
        return cls(os.path.realpath(path, strict=True), None)

    def at(self, name: str) -> str:
        if not name or name in (os.curdir, os.pardir) or any(map(name.__contains__, _NOT_IN_NAMES)):
            raise OSError(errno.EINVAL, "not the name of a file")
        return name if self.fd is not None else os.path.join(self.path, name)

    def open_folder(self, name: str) -> Directory:
        where = self.at(name)
        if self.fd is not None:
            return Directory(os.path.join(self.path, name), os.open(where, _FLAGS | _NOFOLLOW, dir_fd=self.fd))
        if os.path.normcase(os.path.realpath(where, strict=True)) != os.path.normcase(where):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return Directory(where, None)

    def sync(self) -> None:
        if self.fd is None:
            return
        try:
            os.fsync(self.fd)
        except OSError as error:
            if error.errno not in _NO_SYNC_HERE:
                raise

    def free(self) -> int:
        """Bytes that are free on its file system."""
        if self.fd is None:
            return shutil.disk_usage(self.path).free
        state = os.fstatvfs(self.fd)
        return state.f_bavail * state.f_frsize

    def close(self) -> None:
        """Never fails: nothing is written through it."""
        if self.fd is not None:
            fd, self.fd = self.fd, -1
            close_all(fd)

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def make_root(path: str, *, sync: bool) -> None:
    """The folder `path` and what is missing above it, for its owner only. Raises `OSError`."""
    parent = os.path.dirname(path)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        if parent == path:
            raise
        make_root(parent, sync=sync)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:  # another receiver was faster
            return
    if sync and _HAS_DIR_FD:
        with Directory.open(parent) as above:
            above.sync()


class Durable:
    """Folders whose own names are known to be on the disk, by their paths; to forget them costs an fsync."""

    _MOST = 4096

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def __contains__(self, path: str) -> bool:
        return path in self._paths

    def add(self, path: str) -> None:
        if len(self._paths) >= self._MOST:
            self._paths.clear()
        self._paths.add(path)


def close_all(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:  # it is closed nevertheless, and nothing relied on it
                pass
