"""The codecs: pixels out of one transfer syntax into another, by pydicom and the plugins that it finds.

They hold the interpreter's lock all the while (a 3000 x 3000 frame of JPEG 2000: 1.7 s), and what they are given comes
from outside: hence they run in a process of their own, codec_worker.py.

- Which plugin decodes is settled here, in an order of trust, and there is no second try with another: a frame that one
  calls damaged must not come out of the next as half an image. pylibjpeg-libjpeg is the last, and trusted only with
  frames that are not cut off, since it fills up what is missing in silence.
- Each frame that was compressed is decompressed again and compared: what is sent is what was there.
- Lossless codecs give back the samples that went in, so YBR_FULL stays that; from lossy ones colours come as RGB, which
  every receiver can show.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import printable
from ..uids import EXPLICIT_VR_LITTLE_ENDIAN
from .image_pixels import ImagePixels
from .transcoding import INSTALL, JPEG_LS_LOSSLESS, RLE_LOSSLESS, is_lossless

if TYPE_CHECKING:
    import numpy

_MOST_NATIVE = 0xFFFFFFFE  # bytes of a value that is not encapsulated
_MOST_OFFSET = 0xFFFFFFFF

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_BY_LIBJPEG = (
    "1.2.840.10008.1.2.4.50",
    _JPEG_EXTENDED,
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    JPEG_LS_LOSSLESS,
    "1.2.840.10008.1.2.4.81",
)
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # of JPEG and JPEG-LS, and of JPEG 2000
_END_OF_IMAGE = b"\xff\xd9"
_ITEM = 0xE000FFFE

# In order of trust. Of those that pydicom calls pylibjpeg, openjpeg and rle are good, and libjpeg is not.
_DECODERS = ("pyjpegls", "pylibjpeg", "gdcm", "pydicom", "pillow")
_DECODERS_OF_JPEG = ("pyjpegls", "gdcm", "pillow", "pylibjpeg")
_ENCODERS = ("pyjpegls", "pylibjpeg", "pydicom")


class CodecError(Exception):
    """Why pixels cannot be converted. `detail` is what a codec said of it, for who looks closely."""

    def __init__(self, reason: str, detail: str = "", *, is_missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = printable(detail, 400)
        self.is_missing = is_missing  # something that can be installed


def convert(
    image: ImagePixels, own: str, target: str, data: bytes, frame_done: Callable[[], object]
) -> tuple[ImagePixels, bytes]:
    """The value of Pixel Data, `data`, from transfer syntax `own` in `target`, with what it is then.

    Each of the two is Explicit VR Little Endian or a compressed one. `frame_done` is called after each frame. Memory is
    that of both values and a few frames. Raises `CodecError`.
    """
    try:
        import numpy  # noqa: F401  # pydicom's codecs are nothing without it
    except ImportError as error:
        raise CodecError(f"numpy is not installed: {INSTALL}", is_missing=True) from error
    if image.bits_allocated not in (8, 16, 32, 64):
        raise CodecError(f"Bits Allocated (0028,0100) of {image.bits_allocated} cannot be converted")
    frames: list[bytes] = []
    to_native = target == EXPLICIT_VR_LITTLE_ENDIAN
    result = image
    for result, array in _decoded(image, own, data):
        frames.append(array.tobytes() if to_native else _encoded(result, target, array, len(frames)))
        frame_done()
    if to_native:
        return result, b"".join(frames)
    from pydicom.encaps import encapsulate

    has_table = sum(len(frame) + 9 for frame in frames) <= _MOST_OFFSET
    return result, encapsulate(frames, has_bot=has_table)


def _decoded(image: ImagePixels, own: str, data: bytes) -> Iterator[tuple[ImagePixels, numpy.ndarray[Any, Any]]]:
    """Each frame, in the samples that Bits Allocated says, color by pixel; and what it is."""
    import numpy
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    size = image.rows * image.columns * image.samples_per_pixel * image.bits_allocated // 8
    if not 0 < size * image.number_of_frames <= _MOST_NATIVE:
        raise CodecError(f"{image.number_of_frames} frames of {size} bytes cannot be converted")
    options: dict[str, Any] = {}
    if own == EXPLICIT_VR_LITTLE_ENDIAN:
        _check_length(image, size, data)
        options["allow_excess_frames"] = False
    else:
        options["decoding_plugin"] = _decoding_plugin(image, own)
        _check_frames(image, own, data, options["decoding_plugin"])
    samples = numpy.dtype(f"<{'ui'[image.pixel_representation & 1]}{image.bits_allocated // 8}")
    name = UID(own).name
    done = 0
    try:
        arrays = get_decoder(UID(own)).iter_array(
            data,
            raw=own == EXPLICIT_VR_LITTLE_ENDIAN or is_lossless(own),
            correct_unused_bits=False,
            pixel_keyword="PixelData",
            **attrs.asdict(image),
            **options,
        )
        for array, properties in arrays:
            interpretation = str(properties["photometric_interpretation"])
            if interpretation == "YBR_FULL_422":
                interpretation = "YBR_FULL"  # the decoders leave no sample out
            result = attrs.evolve(image, photometric_interpretation=interpretation, planar_configuration=0)
            if array.size * samples.itemsize != size:
                raise ValueError("a frame of another size")
            done += 1
            if done <= image.number_of_frames:
                yield result, array.astype(samples, copy=False)
    except CodecError:
        raise
    except Exception as error:
        reason = f"frame {done + 1} of {image.number_of_frames} is damaged, or not what the attributes say"
        raise CodecError(f"{reason}: it cannot be decompressed from {name}", str(error)) from error
    if done != image.number_of_frames:
        raise _other_number(image, done)


def _check_length(image: ImagePixels, size: int, data: bytes) -> None:
    """Native pixels that are all there, and no frame more."""
    if image.photometric_interpretation == "YBR_FULL_422":
        size = size // 3 * 2
    surplus = len(data) - size * image.number_of_frames
    if surplus < 0 or surplus >= max(size, 2):
        raise CodecError(
            f"Pixel Data are {len(data)} bytes, and {image.number_of_frames} frames of {size} are expected"
        )


def _decoding_plugin(image: ImagePixels, own: str) -> str:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    try:
        decoder = get_decoder(UID(own))
    except NotImplementedError as error:
        raise CodecError(f"pydicom has no decoder for transfer syntax {own}") from error
    is_12_bit = own == _JPEG_EXTENDED and image.bits_stored > 8
    for plugin in _DECODERS_OF_JPEG if own in _BY_LIBJPEG else _DECODERS:
        if plugin in decoder.available_plugins and (not is_12_bit or plugin == "pylibjpeg"):
            return plugin
    if is_12_bit:
        raise CodecError(
            "no decoder for JPEG of 12 bits is installed: pip install pylibjpeg pylibjpeg-libjpeg", is_missing=True
        )
    raise CodecError(f"no decoder for {decoder.UID.name} ({own}) is installed: {INSTALL}", is_missing=True)


def _check_frames(image: ImagePixels, own: str, data: bytes, plugin: str) -> None:
    """As many frames as there should be: decoders take what comes after the last one for a part of it."""
    is_doubtful = plugin == "pylibjpeg" and own in _BY_LIBJPEG
    begun, end = 0, b""
    for fragment in _fragments(data):
        if own == RLE_LOSSLESS or bytes(fragment[:4]).startswith(_BEGINNINGS):
            if begun and is_doubtful and not end.endswith(_END_OF_IMAGE):
                break
            begun += 1
        end = bytes(fragment[-8:]).rstrip(b"\0")
    if begun > image.number_of_frames:
        raise _other_number(image, begun)
    if is_doubtful and not end.endswith(_END_OF_IMAGE):
        raise CodecError(f"frame {begun} of {image.number_of_frames} is cut off")


def _fragments(data: bytes) -> Iterator[memoryview]:
    """The items of encapsulated Pixel Data after the Basic Offset Table (PS3.5 A.4)."""
    view, at, count = memoryview(data), 0, 0
    while at + 8 <= len(data):
        tag, length = struct.unpack_from("<LL", data, at)
        if tag != _ITEM:
            return
        if count:
            yield view[at + 8 : at + 8 + length]
        at, count = at + 8 + length, count + 1


def _other_number(image: ImagePixels, count: int) -> CodecError:
    return CodecError(f"there are {count} frames, and Number of Frames (0028,0008) says {image.number_of_frames}")


def _encoded(image: ImagePixels, target: str, array: numpy.ndarray[Any, Any], number: int) -> bytes:
    """One frame, compressed, and found to be the same when it is decompressed again."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.encoders.base import get_encoder
    from pydicom.uid import UID

    encoder = get_encoder(UID(target))
    plugin = next((name for name in _ENCODERS if name in encoder.available_plugins), "")
    one = attrs.evolve(image, number_of_frames=1)
    if target == RLE_LOSSLESS:  # it keeps all bits, but pydicom would leave out those that are not stored
        one = attrs.evolve(one, bits_stored=image.bits_allocated)
    options: dict[str, Any] = attrs.asdict(one)
    try:
        frame = bytes(encoder.encode(array.tobytes(), encoding_plugin=plugin, **options))
    except Exception as error:
        reason = f"{encoder.UID.name} does not take these pixels: {_described(image)}"
        raise CodecError(reason, str(error)) from error
    try:
        options |= {"correct_unused_bits": False, "pixel_keyword": "PixelData"}
        plugin = _decoding_plugin(one, target)
        back, _ = get_decoder(UID(target)).as_array(encapsulate([frame]), raw=True, decoding_plugin=plugin, **options)
        is_same = bool((back.astype(array.dtype, copy=False) == array).all())
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"frame {number + 1} cannot be read back from {encoder.UID.name}", str(error)) from error
    if not is_same:
        raise CodecError(
            f"frame {number + 1} does not come back from {encoder.UID.name} as it was: {_described(image)}"
        )
    return frame


def _described(image: ImagePixels) -> str:
    interpretation = printable(image.photometric_interpretation, 16)
    signed = "signed" if image.pixel_representation else "unsigned"
    return (
        f"{image.columns} x {image.rows} of {interpretation}, {image.samples_per_pixel} x {image.bits_allocated} bits, "
        f"{signed}, of which {image.bits_stored} are said to be in use"
    )
