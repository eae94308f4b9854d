import sys

import pydicom
import trio

from trio_dicom import CStoreSCU, contexts_for, open_association


async def main(peer, path):
    contexts = await contexts_for(path)
    async with open_association(peer, contexts) as association:
        scu = CStoreSCU(association)

        # 1. A path: never parsed, byte for byte.
        responses = [await scu.send(path)]

        # 2. A binary file object or a trio ReceiveStream with a DICOM file in it, of a length that need not be known.
        async with await trio.open_file(path, "rb") as file:
            responses.append(await scu.send(file))

        # 3. A pydicom data set, encoded in the transfer syntax that was accepted.
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "ANONYMOUS"
        responses.append(await scu.send(dataset))
    return responses


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
