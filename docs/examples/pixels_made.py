import sys

import trio
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from trio_dicom import CStoreSCU, open_association

ROWS, COLUMNS, FRAMES = 256, 256, 20


class Camera:
    """Pixels that do not exist before they are sent: a PixelSource is any object with these three names."""

    length = ROWS * COLUMNS * FRAMES  # bytes
    transfer_syntax_uid = None  # native pixels, little endian

    async def chunks(self):
        frame = bytearray(ROWS * COLUMNS)
        for number in range(FRAMES):
            await trio.sleep(0.001)  # the exposure
            frame[:] = bytes([number]) * len(frame)
            yield frame  # read wholly before the next one is asked for: the memory can be used again


def description():
    """All of the object but its pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.PatientName = "TEST"
    dataset.PatientID = "1"
    dataset.Modality = "OT"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = ROWS, COLUMNS, FRAMES
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    return dataset


async def main(peer):
    async with open_association(peer, [SecondaryCaptureImageStorage]) as association:
        return await CStoreSCU(association).send(description(), Camera())


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
