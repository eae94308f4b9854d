import sys

import trio

from trio_dicom import CStoreOptions, CStoreSCU, OperationTimeout, contexts_for, open_association


async def told(peer, path, max_duration=60):
    """A deadline that you want to be told about: the error says how far the object came."""
    async with open_association(peer, await contexts_for(path)) as association:
        scu = CStoreSCU(association, CStoreOptions(timeout=5, max_duration=max_duration))
        try:
            return await scu.send(path)
        except OperationTimeout as error:
            print(f"while {error.phase}, after {error.bytes_sent} bytes; in doubt: {error.in_doubt}")
            return error


async def cancelled(peer, path, seconds=60):
    """A deadline of your own, for whatever is in the block: what became of the object is asked of its delivery."""
    delivery = None
    with trio.move_on_after(seconds):
        async with open_association(peer, await contexts_for(path)) as association:
            delivery = CStoreSCU(association).delivery(path)
            return await delivery.run()
    if delivery is not None and delivery.in_doubt:
        print("out of time: the peer may have the object")
    else:
        print("out of time: the peer does not have the object")
    return None


if __name__ == "__main__":
    trio.run(told, *sys.argv[1:])
    trio.run(cancelled, *sys.argv[1:])
