import sys

import pydicom
import trio
from pydicom.pixels import iter_pixels
from pydicom.pixels.encoders import RLELosslessEncoder

from trio_dicom import CStoreSCU, PresentationContext, open_association

RLE_LOSSLESS = "1.2.840.10008.1.2.5"


class RLEFrames:
    """The frames of a native file, compressed one by one while they are sent."""

    length = None  # nobody knows yet
    transfer_syntax_uid = RLE_LOSSLESS

    def __init__(self, path, dataset):
        self.path = path
        self.dataset = dataset

    async def chunks(self):
        frames = iter_pixels(self.path, raw=True)
        while (frame := await trio.to_thread.run_sync(next, frames, None)) is not None:
            yield await trio.to_thread.run_sync(self.compressed, frame)  # each chunk is one whole frame

    def compressed(self, frame):
        return RLELosslessEncoder.encode(
            frame,
            rows=self.dataset.Rows,
            columns=self.dataset.Columns,
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=self.dataset.BitsAllocated,
            bits_stored=self.dataset.BitsStored,
            pixel_representation=self.dataset.PixelRepresentation,
            photometric_interpretation=self.dataset.PhotometricInterpretation,
        )


async def main(peer, path):
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    if dataset.SamplesPerPixel != 1:
        raise ValueError("this example is about grey-scale images")
    contexts = [PresentationContext(dataset.SOPClassUID, [RLE_LOSSLESS])]
    async with open_association(peer, contexts) as association:
        return await CStoreSCU(association).send(dataset, RLEFrames(path, dataset))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
