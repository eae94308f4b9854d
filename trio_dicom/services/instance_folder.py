"""InstanceFolder: SOP instances that come in, filed in a folder.

What is answered with 0000 is on the disk under its final name; of anything else nothing is left, with one exception
(`arriving_file`, 4). The work is done in threads, one hop for an object of less than 1 MiB and one for each further
MiB, and these hold no more of an object than that.

A thread may hang with the disk. So the event loop never waits for one when it is cancelled, or not long; an
`ArrivingFile` that was left to its thread is removed by it.
"""

from __future__ import annotations

import enum
import errno
import functools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import attrs
import trio

from ..errors import InvalidObject
from ..protocol.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH,
    DUPLICATE_SOP_INSTANCE,
    OUT_OF_RESOURCES,
    SUCCESS,
    Status,
)
from ..sources.part10 import first_uids
from ..sources.threads import run_errand
from ..uids import is_valid_uid
from .arriving_file import ArrivingFile, Buffer, NoHardLinks, sweep
from .directory import Directory, Durable, make_root
from .file_layout import FileLayout
from .identification import find_values
from .instance import Instance, StoreReply

log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes of a data set that are gathered for one hop to a thread
_FIRST = 8 << 10  # bytes of a data set in which its SOP UIDs are looked for; 4 KiB once inflated
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x0008_0016, 0x0008_0018
_GRACE = 1.0  # s that a cancelled task waits for its thread
_THREADS = 40
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


class Duplicates(enum.Enum):
    """What is done with an instance that is there already, under the same name."""

    REPLACE = "replace"  #: the last one stays; who reads meanwhile sees the old one or the new one
    KEEP = "keep"  #: the first one stays, and the answer is 0000
    REFUSE = "refuse"  #: the first one stays, and the answer is 0111, Duplicate SOP Instance


@attrs.frozen
class StoredInstance:
    """What became of an instance.

    `path` is None if nothing was filed: the instance was refused, or it was there before and stays as it was. `status`
    and `error_comment` are for the answer. The data set is the last `size` bytes of the file, from `data_set_offset`
    on; for an instance that was not filed, `size` is what had come of it.
    """

    path: Path | None
    status: Status = attrs.field(converter=Status)
    error_comment: str | None
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    data_set_offset: int
    size: int


class _Refusal(Exception):
    def __init__(self, status: int, comment: str) -> None:
        self.status = status
        self.comment = comment


class InstanceFolder:
    """Files the instances that come in as DICOM files in `folder`; a handler for `StorageSCP`.

    - `folder` is made if it is missing, with what is missing above it, for its owner only. Files are for their owner
      only, too.
    - `layout`: their names within the folder, with fields in braces: sop_instance_uid, sop_class_uid,
      transfer_syntax_uid, calling_ae_title, called_ae_title, and, from the data set, study_instance_uid,
      series_instance_uid, patient_id, modality, study_date and accession_number. Values other than UIDs are
      percent-encoded, absent ones are "unknown".
    - `duplicates`: see `Duplicates`. `KEEP` and `REFUSE` need a file system with hard links.
    - `sync`: False leaves the disk its time. Faster, and what was acknowledged may be lost in a power cut.
    - `max_object_size`: bytes of a data set; larger ones are answered C000.
    - `min_free`: bytes; with less free space objects are answered A700.

    Raises `ValueError` for a layout that cannot be used, `OSError` (its subclasses; the message says which folder) if
    the folder cannot be made or written to.

    Answers: A700 out of space or other trouble with the disk, which a warning in the log explains; A900 if the data set
    has another SOP Class UID or SOP Instance UID than the request (if it has none, it is filed); C000 if it is empty,
    too large, or damaged before its UIDs or what the layout needs of it; 0111 see `Duplicates`.

    Any number of instances may be stored at once, and any number of processes may use the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        layout: str = "{sop_instance_uid}.dcm",
        duplicates: Duplicates = Duplicates.REPLACE,
        sync: bool = True,
        max_object_size: int = 16 << 30,
        min_free: int = 64 << 20,
    ) -> None:
        if max_object_size < 1 or min_free < 0:
            raise ValueError("max_object_size must be above 0, and min_free not below it")
        self.folder = Path(os.path.abspath(folder))
        self.duplicates = Duplicates(duplicates)
        self._layout = FileLayout(layout)
        self._sync = sync
        self._max_object_size = max_object_size
        self._min_free = min_free
        self._root = str(self.folder)
        self._durable = Durable()
        self._is_swept = False
        self._first = threading.Lock()
        self._threads = trio.CapacityLimiter(_THREADS)
        try:
            make_root(self._root, sync=sync)
            Directory.open(self._root).close()
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it cannot be written to")
        except OSError as error:
            what = f"the folder for instances cannot be used: {error.strerror}"
            raise OSError(error.errno, what, self._root) from error

    def sweep(self) -> int:
        """Remove what receivors left in the folder that were killed in the middle of an object; how many files.

        What a living one is writing stays. Blocks. The first `store` does this unless it was done before.
        """
        with self._first:
            self._is_swept = True
        return sweep(self._root)

    async def __call__(self, instance: Instance) -> StoreReply:
        """Store `instance`; what to answer."""
        stored = await self.store(instance)
        return StoreReply(stored.status, stored.error_comment)

    async def store(self, instance: Instance) -> StoredInstance:
        """Store `instance`, and tell what became of it; refusals do not raise.

        If it is refused before its end, the rest is left unread. Cancelled, it files nothing, unless the renaming had
        begun; what it had written is removed. It waits up to a second for a thread at work.

        Raises `ValueError` for an instance of which something was read before: what is left is not the whole of it.
        """
        if instance.is_begun:
            raise ValueError("something of the instance was read before: a file of the rest would not be whole")
        file = ArrivingFile(self._root, self._durable, sync=self._sync, min_free=self._min_free)
        head = instance.file_head()
        result = functools.partial(
            StoredInstance,
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            calling_ae_title=instance.calling_ae_title,
            data_set_offset=len(head),
        )
        size = 0
        try:
            buffers: list[Buffer] = [head]
            while True:
                pieces, count = await _gather(instance)
                if not size:
                    is_identified = _check_uids(instance, pieces)
                size += count
                if size > self._max_object_size:
                    raise _Refusal(CANNOT_UNDERSTAND, "the object is larger than this receiver takes")
                buffers += pieces
                if count < _CHUNK:  # the end
                    break
                await self._in_thread(self._write, file, buffers)
                buffers = []
            names = await self._in_thread(self._finish, file, buffers, instance, len(head), is_identified)
        except _Refusal as refusal:
            return result(None, refusal.status, refusal.comment, size=size)
        finally:
            if file.is_in_use:
                await _discard(file)
        return result(self.folder.joinpath(*names) if names else None, SUCCESS, None, size=size)

    async def _in_thread(
        self, function: Callable[[ArrivingFile, *Args], Result], file: ArrivingFile, *args: *Args
    ) -> Result:
        file.is_in_use = True
        return await run_errand(function, file, *args, limiter=self._threads)

    def _write(self, file: ArrivingFile, buffers: Sequence[Buffer]) -> None:
        try:
            with file:
                self._sweep_once()
                file.write(buffers)
        except OSError as error:
            raise _out_of_resources(error) from error

    def _finish(
        self, file: ArrivingFile, buffers: Sequence[Buffer], instance: Instance, offset: int, is_identified: bool
    ) -> tuple[str, ...] | None:
        """The names under which the instance was filed; None if it was there before."""
        try:
            with file:
                self._sweep_once()
                file.write(buffers, is_last=True)
                if not is_identified:
                    found = _find(file, instance, offset, frozenset((_SOP_CLASS_UID, _SOP_INSTANCE_UID)))
                    _compare(instance, found.get(_SOP_CLASS_UID, b""), found.get(_SOP_INSTANCE_UID, b""))
                names = self._layout.names(self._values(file, instance, offset))
                if file.commit(names, replace=self.duplicates is Duplicates.REPLACE):
                    return names
        except OSError as error:
            raise _out_of_resources(error) from error
        if self.duplicates is Duplicates.REFUSE:
            raise _Refusal(DUPLICATE_SOP_INSTANCE, "the SOP instance is already stored")
        return None

    def _values(self, file: ArrivingFile, instance: Instance, offset: int) -> dict[str, bytes]:
        values = {
            "sop_instance_uid": instance.sop_instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "transfer_syntax_uid": instance.transfer_syntax_uid,
            "calling_ae_title": instance.calling_ae_title,
            "called_ae_title": instance.called_ae_title,
        }
        encoded = {field: value.encode("utf-8", "backslashreplace") for field, value in values.items()}
        if tags := self._layout.tags:
            found = _find(file, instance, offset, frozenset(tags.values()))
            encoded.update({field: found.get(tag, b"") for field, tag in tags.items()})
        return encoded

    def _sweep_once(self) -> None:
        with self._first:
            if self._is_swept:
                return
            self._is_swept = True
        try:
            sweep(self._root)
        except OSError as error:
            log.warning("what dead receivers left could not be looked for: %s", error.strerror)


async def _discard(file: ArrivingFile) -> None:
    """Remove `file`; if a thread is still at work on it, and goes on for longer than this waits, that thread will."""
    file.is_unwanted = True  # so a thread that has not come to the renaming will not do it
    with trio.move_on_after(_GRACE, shield=True):
        try:
            # A limiter of its own: nobody is to wait for other threads here.
            await run_errand(file.discard, limiter=trio.CapacityLimiter(1), needs_thread=True)
        except RuntimeError:  # the system has no more threads; one that is still at work on this file will remove it
            file.discard(wait=False)


async def _gather(instance: Instance) -> tuple[list[Buffer], int]:
    """The next 1 MiB of the data set, and how much it is: less at the end only."""
    gathered: list[Buffer] = []
    size = 0
    while size < _CHUNK and (pieces := await instance.receive_pieces(_CHUNK - size)):
        gathered += pieces
        size += sum(map(len, pieces))
    return gathered, size


def _check_uids(instance: Instance, pieces: Sequence[Buffer]) -> bool:
    """That the data set which begins with `pieces` is that of the request. False if its UIDs come later."""
    if not pieces:
        raise _Refusal(CANNOT_UNDERSTAND, "the data set is empty")
    if not is_valid_uid(instance.sop_instance_uid):
        raise _Refusal(CANNOT_UNDERSTAND, "the SOP Instance UID is not a UID")
    first = bytearray()
    for piece in pieces:
        first += piece[: _FIRST - len(first)]
        if len(first) == _FIRST:
            break
    try:
        found = first_uids(first, 0, instance.transfer_syntax_uid)
    except InvalidObject as error:
        raise _Refusal(CANNOT_UNDERSTAND, error.reason) from error
    if found is None:
        return False
    _compare(instance, *found)
    return True


def _compare(instance: Instance, sop_class: bytes, sop_instance: bytes) -> None:
    """That the UIDs of the data set, where it has them, are those of the request."""
    for value, uid, name in (
        (sop_class, instance.sop_class_uid, "SOP Class UID"),
        (sop_instance, instance.sop_instance_uid, "SOP Instance UID"),
    ):
        if value and value not in (uid.encode(), uid.encode() + b"\0", uid.encode() + b" "):
            raise _Refusal(DATA_SET_DOES_NOT_MATCH, f"the data set has another {name} than the request")


def _find(file: ArrivingFile, instance: Instance, offset: int, tags: frozenset[int]) -> dict[int, bytes]:
    try:
        return find_values(file.read_at, offset, file.size, instance.transfer_syntax_uid, tags)
    except InvalidObject as error:
        raise _Refusal(CANNOT_UNDERSTAND, "cannot read the data set's identification") from error


def _out_of_resources(error: OSError) -> _Refusal:
    reason = error.strerror or type(error).__name__
    if isinstance(error, NoHardLinks):
        reason += "; the file system has no hard links: file with Duplicates.REPLACE, or to another file system"
    log.warning("an instance could not be filed: %s", reason)
    if error.errno in _FULL:
        return _Refusal(OUT_OF_RESOURCES, "the storage is full")
    return _Refusal(OUT_OF_RESOURCES, f"the storage failed ({errno.errorcode.get(error.errno or 0, 'unknown error')})")
