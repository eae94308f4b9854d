"""ImagePixels: what must be known of pixels to decode or encode them (PS3.3 C.7.6.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ..errors import InvalidObject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PIXEL_DATA = 0x7FE00010
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)  # of encapsulated frames that are no more
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_PLANAR_CONFIGURATION = 0x00280006

_NUMBERS = {
    "samples_per_pixel": (0x00280002, "Samples per Pixel (0028,0002)"),
    "rows": (0x00280010, "Rows (0028,0010)"),
    "columns": (0x00280011, "Columns (0028,0011)"),
    "bits_allocated": (0x00280100, "Bits Allocated (0028,0100)"),
    "bits_stored": (0x00280101, "Bits Stored (0028,0101)"),
    "pixel_representation": (0x00280103, "Pixel Representation (0028,0103)"),
}


@attrs.frozen(kw_only=True)
class ImagePixels:
    """The attributes of that module, under the names that pydicom's codecs have for them."""

    samples_per_pixel: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int = 0
    number_of_frames: int = 1

    @classmethod
    def of(cls, dataset: Dataset) -> ImagePixels:
        """Those of `dataset`. Raises `InvalidObject` if one is missing or makes no sense."""
        found: dict[str, Any] = {name: _number(dataset, *where) for name, where in _NUMBERS.items()}
        interpretation = _value(dataset, _PHOTOMETRIC_INTERPRETATION)
        if not interpretation or not isinstance(interpretation, str):
            raise InvalidObject("Photometric Interpretation (0028,0004) is missing")
        found["photometric_interpretation"] = interpretation
        if found["samples_per_pixel"] > 1:
            found["planar_configuration"] = _number(dataset, _PLANAR_CONFIGURATION, "Planar Configuration (0028,0006)")
        if _value(dataset, 0x00280008):
            found["number_of_frames"] = _number(dataset, 0x00280008, "Number of Frames (0028,0008)")
        return cls(**found)

    def put_into(self, dataset: Dataset, pixel_data: bytes, *, is_encapsulated: bool) -> None:
        """Make `pixel_data`, and what the codecs have changed of the attributes, those of `dataset`."""
        dataset.add_new(_PHOTOMETRIC_INTERPRETATION, "CS", self.photometric_interpretation)
        if self.samples_per_pixel > 1:
            dataset.add_new(_PLANAR_CONFIGURATION, "US", self.planar_configuration)
        for tag in _OFFSET_TABLES:
            if tag in dataset:
                del dataset[tag]
        dataset.add_new(PIXEL_DATA, "OB" if is_encapsulated or self.bits_allocated <= 8 else "OW", pixel_data)
        dataset[PIXEL_DATA].is_undefined_length = is_encapsulated


def _value(dataset: Dataset, tag: int) -> Any:
    try:
        return dataset[tag].value if tag in dataset else None
    except Exception as error:  # whatever a damaged value makes of pydicom
        raise InvalidObject(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) cannot be read: {type(error).__name__}") from error


def _number(dataset: Dataset, tag: int, name: str) -> int:
    value = _value(dataset, tag)
    if not isinstance(value, int) or value < 0:
        raise InvalidObject(f"{name} is missing, or no number")
    return int(value)
