"""The unique identifiers that this library itself speaks of, and what makes a UID legal (PS3.5 section 9.1)."""

from __future__ import annotations

import re

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# An object in one of these can be encoded anew in another of them without touching a pixel.
NATIVE_LITTLE_ENDIAN = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)

IMPLEMENTATION_CLASS_UID = "2.25.229421058523316897898691478090105517828"

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def is_valid_uid(text: str) -> bool:
    """True for up to 64 ASCII characters of digits in components; leading zeros, which peers do send, are let pass."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None
