"""Opening files on the event loop, where that cannot make it wait (Linux).

A hop to a thread and back costs more than sending a small object, and a thread that opens files while the loop sends
takes the interpreter's lock from it again and again. But a path may lead to a file server that does not answer. So a
file is opened on the loop only if all of this holds; else, and for saying what is wrong, there are threads:

1. Its folder was found, by a thread, to be on a file system that keeps its files on this machine.
2. The kernel has every part of the path in its cache (RESOLVE_CACHED of openat2).
3. No part of it is a symbolic link, which might lead elsewhere.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

_MOST_FOLDERS = 4096  # that are remembered

_LOCAL: Mapping[int, str] = {
    0xEF53: "ext2, ext3, ext4",
    0x58465342: "XFS",
    0x9123683E: "Btrfs",
    0xF2F52010: "F2FS",
    0x2FC12FC1: "ZFS",
    0xCA451A4E: "bcachefs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
}  # by the number that statfs gives

_OPENAT2 = 437  # the number of the system call on every processor that Python runs on under Linux
_RESOLVE_NO_SYMLINKS, _RESOLVE_CACHED = 0x04, 0x20
_AT_FDCWD = -100
_HOW = struct.Struct("=QQQ")  # flags, mode, resolve
_SIZE_OF_STATFS = 256  # more than it has anywhere

_folders: dict[str, bool] = {}  # whether their files are on this machine


@functools.cache
def _calls() -> tuple[Callable[[bytes, bytes], int], Callable[[bytes, Any], int], Any] | None:
    """openat2, statfs and a buffer for the latter, where there are such."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    import ctypes  # only programs that open files need it

    # Of the two, only statfs may take long and lets other threads run meanwhile.
    syscall = ctypes.PyDLL(None).syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    statfs = ctypes.CDLL(None).statfs
    statfs.argtypes = (ctypes.c_char_p, ctypes.c_char_p)

    def openat2(path: bytes, how: bytes) -> int:
        return int(syscall(_OPENAT2, _AT_FDCWD, path, how, len(how)))

    return openat2, statfs, ctypes.create_string_buffer


def open_at_once(path: str, flags: int) -> int:
    """A descriptor, or -1 where opening the file might take time, or fails. Never blocks."""
    if not _folders.get(_folder(path)):
        return -1
    calls = _calls()
    if calls is None:
        return -1
    return calls[0](os.fsencode(path), _HOW.pack(flags, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_CACHED))


def learn_folder(path: str) -> None:
    """Find out whether the folder of `path` is on this machine. Blocks: for a thread."""
    folder = _folder(path)
    if folder in _folders:
        return
    if len(_folders) >= _MOST_FOLDERS:
        _folders.clear()
    _folders[folder] = _is_local(folder)


def _folder(path: str) -> str:
    folder = path.rpartition("/")[0]
    return folder if path.startswith("/") else f"{os.getcwd()}/{folder}"


def _is_local(folder: str) -> bool:
    calls = _calls()
    if calls is None:
        return False
    _, statfs, make_buffer = calls
    state = make_buffer(_SIZE_OF_STATFS)
    if statfs(os.fsencode(folder), state):
        return False
    return int.from_bytes(state.raw[:8], sys.byteorder) & 0xFFFFFFFF in _LOCAL
