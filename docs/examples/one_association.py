import sys

import trio

from trio_dicom import CStoreOptions, CStoreSCU, contexts_for, open_association


async def main(peer, *paths):
    contexts = await contexts_for(paths)  # reads the heads of the files, in a thread
    async with open_association(peer, contexts) as association:
        scu = CStoreSCU(association, CStoreOptions(timeout=30, max_retries=3))
        responses = []
        for path in paths:
            response = await scu.send(path)
            if response.is_success:
                print(f"stored: {response.sop_instance_uid}")
            elif response.is_warning:
                print(f"stored, with a warning: {response.status.meaning}")
            else:
                print(f"refused: {response.status!r}")
            responses.append(response)
    return responses


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
