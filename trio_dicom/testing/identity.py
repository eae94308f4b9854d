"""What the instances made for tests are called: their SOP classes and UIDs."""

from __future__ import annotations

import enum

# Deterministic, and in arcs that no product uses.
_INSTANCES, _STUDIES, _SERIES, _FRAMES_OF_REFERENCE = ("2.25.1000", "2.25.2000", "2.25.3000", "2.25.4000")


class SOPClass(enum.StrEnum):
    """The storage SOP classes that `make_instance` makes instances of (PS3.4 B.5), by the code of their modality."""

    CT = "1.2.840.10008.5.1.4.1.1.2"  #: CT Image
    MR = "1.2.840.10008.5.1.4.1.1.4"  #: MR Image
    US = "1.2.840.10008.5.1.4.1.1.6.1"  #: Ultrasound Image
    SC = "1.2.840.10008.5.1.4.1.1.7"  #: Secondary Capture Image
    SR = "1.2.840.10008.5.1.4.1.1.88.11"  #: Basic Text SR
    KO = "1.2.840.10008.5.1.4.1.1.88.59"  #: Key Object Selection Document
    PR = "1.2.840.10008.5.1.4.1.1.11.1"  #: Grayscale Softcopy Presentation State
    PDF = "1.2.840.10008.5.1.4.1.1.104.1"  #: Encapsulated PDF


def instance_uid(number: int) -> str:
    """The SOP Instance UID of the instance that is made with this number."""
    return f"{_INSTANCES}.{number}"


def study_uid(study: int) -> str:
    """The Study Instance UID of the instances that are made in this study."""
    return f"{_STUDIES}.{study}"


def series_uid(study: int, series: int) -> str:
    """The Series Instance UID of the instances that are made in this series of this study."""
    return f"{_SERIES}.{study}.{series}"


def frame_of_reference_uid(study: int) -> str:
    """The Frame of Reference UID of the instances that are made in this study."""
    return f"{_FRAMES_OF_REFERENCE}.{study}"
