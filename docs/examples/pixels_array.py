import sys

import numpy
import trio
from pixels_made import COLUMNS, FRAMES, ROWS, description

from trio_dicom import ArrayPixelSource, CStoreSCU, open_association


async def main(peer):
    shape = FRAMES, ROWS, COLUMNS
    volume = numpy.arange(FRAMES * ROWS * COLUMNS, dtype=numpy.uint16).reshape(shape)  # or a numpy.memmap
    dataset = description()
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    async with open_association(peer, [dataset.SOPClassUID]) as association:
        return await CStoreSCU(association).send(dataset, ArrayPixelSource(volume))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
