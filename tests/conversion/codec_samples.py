"""pydicom's own files for tests of conversion, and what of its codecs must be there for them."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable

import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, get_encoder, pixel_array
from pydicom.uid import UID

from sources.source_helpers import SHIPPED, drain, meta
from trio_dicom.sources.source import Source

RLE = "1.2.840.10008.1.2.5"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


def sample(name: str) -> Dataset:
    return pydicom.dcmread(SHIPPED / name)


def reader(name: str) -> Callable[[], Dataset]:
    return lambda: sample(name)


def own_syntax(name: str) -> str:
    return str(pydicom.dcmread(SHIPPED / name, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def require(*uids: str, to_encode: bool = False) -> None:
    """Codecs of these transfer syntaxes.

    Where one is missing the test is skipped, or fails if TRIO_DICOM_REQUIRE_PEERS=1.
    """
    missing = [] if importlib.util.find_spec("numpy") else ["numpy"]
    for uid in uids:
        if UID(uid).is_encapsulated and not (get_encoder if to_encode else get_decoder)(uid).is_available:
            missing.append(f"a codec for {uid}")
    if missing:
        verdict = pytest.fail if os.environ.get("TRIO_DICOM_REQUIRE_PEERS") == "1" else pytest.skip
        verdict(f"not installed: {', '.join(missing)}")


async def received(source: Source) -> Dataset:
    """What a peer gets of `source` in the first of its transfer syntaxes."""

    syntax = source.transfer_syntaxes[0]
    await source.prepare(syntax)
    data = await drain(source, 1 << 20)
    dataset = pydicom.dcmread(io.BytesIO(meta(syntax, source.sop_class_uid, source.sop_instance_uid) + data))
    assert dataset.SOPInstanceUID == source.sop_instance_uid
    return dataset


def samples(dataset: Dataset, *, raw: bool = True) -> numpy.ndarray:
    """The decoded pixels; not `raw`, colours as RGB."""
    return pixel_array(dataset, raw=raw)


def all_but_pixels(dataset: Dataset) -> dict[int, object]:
    """The elements that a conversion of pixels has no business with.

    Not the private ones, of which nobody knows in Implicit VR what they are, nor group lengths, which mean nothing.
    """
    changing = {0x00280004, 0x00280006, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010}
    kept = [tag for tag in dataset.keys() if tag not in changing and tag.element and not tag.is_private]  # noqa: SIM118
    return {int(tag): dataset[tag].value or None for tag in kept}
