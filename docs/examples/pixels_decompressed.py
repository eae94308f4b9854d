import sys

import pydicom
import trio
from pydicom.pixels import iter_pixels

from trio_dicom import CStoreSCU, open_association

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


class DecompressedFrames:
    """The frames of a compressed file, decompressed one by one while they are sent."""

    transfer_syntax_uid = None  # they go out native

    def __init__(self, path, dataset):
        self.path = path
        frame_size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        self.length = frame_size * int(dataset.get("NumberOfFrames", 1))

    async def chunks(self):
        frames = iter_pixels(self.path, raw=True)
        while (frame := await trio.to_thread.run_sync(next, frames, None)) is not None:
            yield frame


async def main(peer, path):
    # The metadata, which is small, comes from pydicom; the pixels are not read here.
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    if dataset.SamplesPerPixel != 1:
        raise ValueError("the colour space may change with decompression: the data set must say so")
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN  # what the object is from now on
    async with open_association(peer, [dataset.SOPClassUID]) as association:
        return await CStoreSCU(association).send(dataset, DecompressedFrames(path, dataset))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
