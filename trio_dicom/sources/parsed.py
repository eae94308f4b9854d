"""Data sets parsed by pydicom, whole in memory: for who wants to change one before it is sent."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from ..errors import InvalidObject
from ..uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from . import recode
from .part10 import HEAD_LIMIT, Head, parse_head
from .source import Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_IN_MEMORY = 2 << 30  # bytes of a file that is parsed
_CHUNK = 1 << 20


def parse_dataset(stream: BinaryIO, size: int) -> Dataset:
    """The data set, with its `file_meta`, of the DICOM file in the first `size` bytes of a seekable `stream`.

    Blocks. Raises `InvalidObject` if it is damaged or too large, and what reading raises.
    """
    import pydicom

    check_size(size)
    first = stream.read(min(size, HEAD_LIMIT))
    head = parse_head(first, at_end=len(first) == size)
    if head is None:
        raise InvalidObject("the file is cut short")
    if head.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:  # pydicom inflates without a limit
        return _from_bytes(head, recode.inflate(stream, head.data_set_offset, size))
    stream.seek(0)
    return _parsed(pydicom.dcmread, stream)


async def read_whole(source: Source) -> bytearray:
    """The bytes of the data set of `source` in its own transfer syntax. Raises what the source raises."""
    await source.prepare(source.transfer_syntaxes[0])
    data = bytearray()
    room = memoryview(bytearray(_CHUNK))
    finished = False
    while not finished:
        count, finished = await source.read_into(room)
        check_size(len(data) + count)
        data += room[:count]
    return data


def parse_whole(head: Head, data: bytearray) -> Dataset:
    """The data set in `data`, as `read_whole` gave it, of the file that began with `head`. See `parse_dataset`."""
    if head.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return _from_bytes(head, recode.inflate(io.BytesIO(data), 0, len(data)))
    return _from_bytes(head, data)


def check_size(size: int) -> None:
    """Raises `InvalidObject` for more bytes than are held in memory."""
    if size > MOST_IN_MEMORY:
        raise InvalidObject("too large to be held in memory and changed: more than 2 GiB")


def _from_bytes(head: Head, data: bytes | bytearray) -> Dataset:
    """`data` are not deflated any more."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    syntax = head.transfer_syntax_uid
    implicit, little = syntax == IMPLICIT_VR_LITTLE_ENDIAN, syntax != EXPLICIT_VR_BIG_ENDIAN
    dataset = _parsed(read_dataset, io.BytesIO(data), implicit, little)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(head.sop_class_uid)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(head.sop_instance_uid)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _parsed(function: Callable[..., Dataset], stream: BinaryIO, *args: object) -> Dataset:
    try:
        return function(stream, *args)
    except InvalidObject:
        raise
    except Exception as error:  # whatever a damaged file makes of pydicom: an OSError without a number, too
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidObject(f"the data set cannot be parsed: {type(error).__name__}") from error
