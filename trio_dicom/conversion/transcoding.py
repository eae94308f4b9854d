"""Transcoding: what `transcode=` asks for, and which transfer syntaxes can be made."""

from __future__ import annotations

import importlib.util

import attrs

from ..errors import printable
from ..uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, NATIVE_LITTLE_ENDIAN, is_valid_uid

NATIVE = (*NATIVE_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)

INSTALL = "pip install 'trio-dicom[transcode]'"

RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

# Compressed transfer syntaxes that keep every sample, and for which pydicom has encoders.
CAN_BE_MADE = (RLE_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS)

# Lossless too, but pydicom has no encoder: JPEG Lossless, HTJ2K.
CAN_BE_READ_ONLY = (
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
)

# Every other encoding of images and video is lossy, or may be.
_ENCODINGS = "1.2.840.10008.1.2.4."


def is_lossless(transfer_syntax_uid: str) -> bool:
    """Whether the pixels of a compressed object are surely those that were compressed."""
    return transfer_syntax_uid in CAN_BE_MADE or transfer_syntax_uid in CAN_BE_READ_ONLY


@attrs.frozen
class Transcoding:
    """Into which transfer syntax an object goes that has another one. Both None: none is changed."""

    target: str | None = None  # for all objects
    target_of_compressed: str | None = None  # for those only

    @classmethod
    def parse(cls, transcode: str) -> Transcoding:
        """From "never", "native" or a transfer syntax UID.

        Raises `ValueError` if it is none of these, or cannot be made; it says why.
        """
        if not isinstance(transcode, str):
            raise TypeError(f"transcode is a string, not {type(transcode).__name__}")
        if transcode == "never":
            return cls()
        if transcode == "native":
            return cls(target_of_compressed=EXPLICIT_VR_LITTLE_ENDIAN)
        uid = str(transcode)
        if not is_valid_uid(uid):
            raise ValueError(f'transcode is "never", "native" or a transfer syntax UID, not {printable(uid)!r}')
        _check_target(uid)
        return cls(target=uid)

    def target_for(self, transfer_syntax_uid: str) -> str:
        """Where an object of this transfer syntax goes: the same if it stays as it is."""
        if self.target is not None:
            return self.target
        if self.target_of_compressed is None or transfer_syntax_uid in NATIVE:
            return transfer_syntax_uid
        return self.target_of_compressed


def _check_target(uid: str) -> None:
    if uid in NATIVE_LITTLE_ENDIAN:
        return
    if uid == EXPLICIT_VR_BIG_ENDIAN:
        raise ValueError("nothing is converted to Big Endian: it is retired")
    if uid in CAN_BE_READ_ONLY:
        raise ValueError(f"pydicom has no encoder for transfer syntax {uid}; {_offer()}")
    if uid not in CAN_BE_MADE:
        if uid.startswith(_ENCODINGS):
            raise ValueError(
                f"transfer syntax {uid} is lossy, or may be: whether pixels may change, and what Lossy Image "
                f"Compression (0028,2110) and a new SOP Instance UID then say, is decided by who compresses, in a "
                f"transform of his own; {_offer()}"
            )
        raise ValueError(f"transfer syntax {uid} cannot be made; {_offer()}")
    if importlib.util.find_spec("numpy") is None:
        raise ValueError(f"numpy, without which nothing is compressed, is not installed: {INSTALL}")
    from pydicom.pixels.encoders.base import get_encoder

    encoder = get_encoder(uid)
    if not encoder.is_available:
        raise ValueError(f"no encoder for {encoder.UID.name} ({uid}) is installed: {INSTALL}")


def _offer() -> str:
    return f"losslessly there are {', '.join(CAN_BE_MADE)}"
