import sys

import trio

from trio_dicom import AssociationSettings, CStoreSCU, contexts_for, open_association


async def main(peer, *paths):
    settings = AssociationSettings(calling_ae_title="MODALITY1", operations_window=8)
    responses = {}

    async def send(path):
        responses[path] = await scu.send(path)

    async with open_association(peer, await contexts_for(paths), settings=settings) as association:
        print(f"up to {association.negotiated.operations_window} requests may wait for their responses together")
        scu = CStoreSCU(association)
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(send, path)
    return responses


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
