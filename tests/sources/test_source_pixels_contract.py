"""A pixel source that is none is told so."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from trio_dicom.sources.dataset import open_dataset
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN


class PlainGenerator:
    length = 4
    transfer_syntax_uid = None

    def chunks(self):  # type: ignore[no-untyped-def]
        yield b"1234"


async def test_chunks_must_be_asynchronous() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    dataset.BitsAllocated = 16
    async with await open_dataset(dataset, PlainGenerator()) as source:  # type: ignore[arg-type]
        await source.prepare(EXPLICIT_VR_LITTLE_ENDIAN)
        with pytest.raises(TypeError, match="async iterator, not generator"):
            await source.read_into(memoryview(bytearray(4096)))
