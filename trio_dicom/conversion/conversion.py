"""Conversion: what happens to an object before it is sent, where `transform=` or `transcode=` ask for it.

Reading, a plain transform and encoding have threads, in which they run for milliseconds at a time; pixels are converted
in processes (codec_process.py). So the event loop, and the associations that run on it, wait for none of them.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from ..errors import InvalidObject, ReadError, TrioDicomError, printable
from ..sources.dataset import open_dataset
from ..sources.source import Source
from ..sources.threads import Args, Result, run_abandonable
from ..uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_LITTLE_ENDIAN,
    is_valid_uid,
)
from .big_endian import turn_round
from .codec_process import CodecProcesses
from .image_pixels import PIXEL_DATA, ImagePixels
from .transcoding import NATIVE, Transcoding

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

log = logging.getLogger(__name__)

Transform: TypeAlias = "Callable[[Dataset], Dataset | Awaitable[Dataset | None] | None]"

_ITEM = b"\xfe\xff\x00\xe0"  # encapsulated Pixel Data begin with one
_CHUNK = 4 << 20  # bytes copied on the event loop at once


class Conversion(trio.abc.AsyncResource):
    """Converts objects one by one, `at_once` of them at a time; the others wait, with nothing read.

    Memory, for each of those: the parsed data set, and its encoding, which is what remains; while pixels are converted,
    Pixel Data as they were and as they become, here and in the process that converts them. `aclose` ends the processes.

    `transform` and `transcode` are as for `open_sender`. Raises `ValueError` and `TypeError` if they make no sense, or
    if nothing is installed that could compress so.
    """

    def __init__(self, transform: Transform | None = None, transcode: str = "never", at_once: int = 2) -> None:
        if transform is not None and not callable(transform):
            raise TypeError(f"transform is a function, not {type(transform).__name__}")
        if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
            raise ValueError(f"at_once must be a whole number, 1 or more, not {at_once!r}")
        self._transform = transform
        self._transcoding = Transcoding.parse(transcode)
        self._turns = trio.Semaphore(at_once)
        self._limiter = trio.CapacityLimiter(at_once)  # threads: an abandoned one still counts
        self._processes = CodecProcesses(self._limiter)

    def leaves(self, own_transfer_syntax: str) -> bool:
        """Whether there is nothing to do for an object in this transfer syntax."""
        return self._transform is None and self._transcoding.target_for(own_transfer_syntax) == own_transfer_syntax

    async def convert(self, read_dataset: Callable[[], Dataset], own_transfer_syntax: str | None) -> Source | None:
        """The converted object, to be sent in the first of its `transfer_syntaxes`; None if it goes as it is.

        `read_dataset` blocks, and returns a data set that is nobody else's; it is not called if `own_transfer_syntax`
        says that there is nothing to do. None for that means that it is not known.

        Raises `InvalidObject` if the object cannot be read, converted or sent, `ReadError` if it cannot be opened.
        """
        if own_transfer_syntax is not None and self.leaves(own_transfer_syntax):
            return None
        async with self._turns:
            dataset = await self._in_thread(_read, read_dataset)
            if self._transform is not None:
                dataset = await self._transformed(dataset, self._transform)
            return await self._transcoded(dataset)

    async def aclose(self) -> None:
        await self._processes.aclose()

    async def _in_thread(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        return await run_abandonable(_guarded, function, *args, limiter=self._limiter)

    async def _transformed(self, dataset: Dataset, transform: Transform) -> Dataset:
        own = _said_transfer_syntax(dataset)
        try:
            if _is_async(transform):
                result: Any = transform(dataset)
            else:
                (result,) = await run_abandonable(_called, transform, dataset, limiter=self._limiter)
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            log.debug("transform failed with %s: %s", type(error).__name__, _where(error))
            raise InvalidObject(f"transform failed with {printable(type(error).__name__)}") from error
        return await self._in_thread(_settled, dataset, result, own)

    async def _transcoded(self, dataset: Dataset) -> Source | None:
        own = _said_transfer_syntax(dataset)
        if not own:
            source = await open_dataset(dataset)
            own = source.transfer_syntaxes[0]
        target = self._transcoding.target_for(own)
        if target not in NATIVE and not await self._in_thread(_has_pixels, dataset):
            # There is nothing to compress, and objects without pixels have no business in such a transfer syntax.
            target = own if own in NATIVE_LITTLE_ENDIAN else EXPLICIT_VR_LITTLE_ENDIAN
        if target == own and self._transform is None:
            return None
        is_only_headers = own in NATIVE_LITTLE_ENDIAN and target in NATIVE_LITTLE_ENDIAN
        if target != own and not is_only_headers:
            if own in NATIVE and own != EXPLICIT_VR_LITTLE_ENDIAN:
                dataset, own = await self._explicit(dataset), EXPLICIT_VR_LITTLE_ENDIAN
            await self._convert_pixels(dataset, own, EXPLICIT_VR_LITTLE_ENDIAN if target in NATIVE else target)
        source = await open_dataset(dataset)
        if target in source.transfer_syntaxes:
            others = (uid for uid in source.transfer_syntaxes if uid != target)
            source.transfer_syntaxes = (target, *others)
        return source

    async def _explicit(self, dataset: Dataset) -> Dataset:
        """A native data set as Explicit VR Little Endian, every value byte for byte, parsed anew."""
        async with await open_dataset(dataset) as source:
            is_big_endian = source.transfer_syntaxes[0] == EXPLICIT_VR_BIG_ENDIAN
            await source.prepare(EXPLICIT_VR_BIG_ENDIAN if is_big_endian else EXPLICIT_VR_LITTLE_ENDIAN)
            encoded = bytearray(source.size or 0)
            for at in range(0, len(encoded), _CHUNK):
                await source.read_into(memoryview(encoded)[at : at + _CHUNK])
                await trio.lowlevel.checkpoint()
        if is_big_endian:
            await self._in_thread(turn_round, encoded)
        return await self._in_thread(_parsed, encoded)

    async def _convert_pixels(self, dataset: Dataset, own: str, target: str) -> None:
        if target != own and await self._in_thread(_has_pixels, dataset):
            await self._convert_image(dataset, own, target)
        if own not in NATIVE:  # icon images may be compressed as the image is; they become native
            for item in await self._in_thread(_compressed_items, dataset):
                await self._convert_image(item, own, EXPLICIT_VR_LITTLE_ENDIAN)
        _set_transfer_syntax(dataset, target)

    async def _convert_image(self, dataset: Dataset, own: str, target: str) -> None:
        image, data = await self._in_thread(_pixels_of, dataset)
        image, converted = await self._processes.convert(image, own, target, data)
        await self._in_thread(_put, image, dataset, converted, target)


# --- what runs in threads ---------------------------------------------------------------------------------------------


def _guarded(function: Callable[[*Args], Result], *args: *Args) -> Result:
    """`function(*args)`, where whatever a strange data set makes of pydicom is the fault of the object."""
    try:
        return function(*args)
    except TrioDicomError:
        raise
    except OSError as error:
        raise ReadError(error.strerror or type(error).__name__) from error
    except Exception as error:
        raise InvalidObject(f"the data set cannot be read or converted: {type(error).__name__}") from error


def _read(read_dataset: Callable[[], Dataset]) -> Dataset:
    return read_dataset()


def _called(transform: Transform, dataset: Dataset) -> tuple[Any]:
    """In a tuple, since trio takes no coroutines from threads, and a plain function may return one."""
    return (transform(dataset),)


def _is_async(transform: Transform) -> bool:
    return inspect.iscoroutinefunction(transform) or inspect.iscoroutinefunction(type(transform).__call__)


def _where(error: BaseException) -> str:
    """Where it was raised, innermost last: not its text, which may name a patient."""
    frames = traceback.extract_tb(error.__traceback__)
    return ", ".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-4:])


def _settled(given: Dataset, result: Any, own: str) -> Dataset:
    """What a transform made of `given`, with File Meta Information that agrees with it."""
    from pydicom.dataset import Dataset, FileMetaDataset

    if result is None or result is given:
        dataset = given
    elif isinstance(result, Dataset):
        dataset = copy.deepcopy(result)  # it may be anybody's; the values, which are large, are not copied
    else:
        raise InvalidObject(f"transform returned {printable(type(result).__name__)}, neither a Dataset nor None")
    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    pairs = ((0x00080016, "MediaStorageSOPClassUID"), (0x00080018, "MediaStorageSOPInstanceUID"))
    for tag, keyword in pairs:
        value = dataset[tag].value if tag in dataset else None
        if isinstance(value, str) and is_valid_uid(value):
            setattr(dataset.file_meta, keyword, value)
    pixels = dataset.get(PIXEL_DATA)
    said = _said_transfer_syntax(dataset)
    if not said and own and pixels is not None and pixels.is_undefined_length:
        _set_transfer_syntax(dataset, own)
        said = own
    if said and said not in NATIVE and pixels is not None and not bytes(pixels.value[:4]) == _ITEM:
        raise InvalidObject("transform left native Pixel Data, but a compressed Transfer Syntax UID (0002,0010)")
    return dataset


def _said_transfer_syntax(dataset: Dataset) -> str:
    """The Transfer Syntax UID of File Meta Information, or nothing."""
    meta = getattr(dataset, "file_meta", None)
    return str((meta.get("TransferSyntaxUID") if meta is not None else None) or "")


def _set_transfer_syntax(dataset: Dataset, uid: str) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(uid)


def _parsed(encoded: bytearray) -> Dataset:
    from pydicom.filereader import read_dataset

    dataset = read_dataset(io.BytesIO(encoded), is_implicit_VR=False, is_little_endian=True)
    _set_transfer_syntax(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    return dataset


def _has_pixels(dataset: Dataset) -> bool:
    return PIXEL_DATA in dataset and bool(dataset[PIXEL_DATA].value)


def _compressed_items(dataset: Dataset) -> list[Dataset]:
    """The items of sequences, at any depth, whose Pixel Data are encapsulated."""
    found = []
    for tag in dataset.keys():  # noqa: SIM118
        if dataset.get_item(tag).VR == "SQ":
            for item in dataset[tag].value or ():
                if PIXEL_DATA in item and item[PIXEL_DATA].is_undefined_length:
                    found.append(item)
                found += _compressed_items(item)
    return found


def _pixels_of(dataset: Dataset) -> tuple[ImagePixels, bytes]:
    value = dataset[PIXEL_DATA].value
    if not isinstance(value, bytes | bytearray):
        raise InvalidObject("Pixel Data (7FE0,0010) are no bytes")
    return ImagePixels.of(dataset), bytes(value)


def _put(image: ImagePixels, dataset: Dataset, data: bytes | bytearray, target: str) -> None:
    image.put_into(dataset, bytes(data), is_encapsulated=target not in NATIVE)
