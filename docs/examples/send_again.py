import sys

import trio

from trio_dicom import CStoreSCU, Retry, TrioDicomError, contexts_for, open_association

DUPLICATE_SOP_INSTANCE = 0x0111


async def main(peer, path):
    """Send one file, over a new association after each failure that may pass."""
    contexts = await contexts_for(path)
    was_in_doubt = False
    delay = 1
    while True:
        try:
            async with open_association(peer, contexts) as association:
                response = await CStoreSCU(association).send(path)
                break
        except TrioDicomError as error:
            if error.retry not in (Retry.LATER, Retry.NEW_ASSOCIATION) or delay > 60:
                raise
            was_in_doubt |= error.in_doubt
            print(f"{error}; again in {delay} s")
        await trio.sleep(delay)
        delay *= 2
    if was_in_doubt and response.status == DUPLICATE_SOP_INSTANCE:
        print("the peer has had it since the attempt whose answer was lost")
        return response
    return response.raise_for_status()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
