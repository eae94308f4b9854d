import sys

import trio

from trio_dicom import CStoreOptions, CStoreSCU, TrioDicomError, contexts_for, open_association


async def send(scu, path, results):
    try:
        response = await scu.send(path)
    except TrioDicomError as error:
        # In doubt: the peer had all of it, and gave no valid answer.
        results[path] = f"{'in doubt' if error.in_doubt else 'not stored'}: {error}"
    else:
        results[path] = repr(response.status)


async def main(peer, *paths):
    results = {}
    contexts = await contexts_for(paths, skip_invalid=True)  # what is wrong with a file, its send will say
    with trio.move_on_after(60) as deadline:
        async with open_association(peer, contexts) as association:
            scu = CStoreSCU(association, CStoreOptions(timeout=10, max_retries=3))
            async with trio.open_nursery() as nursery:
                for path in paths:
                    nursery.start_soon(send, scu, path, results)
    if deadline.cancelled_caught:
        print("out of time")
    for path in paths:
        print(path, results.get(path, "no answer: send it again"))
    return results


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 ct1.dcm ct2.dcm ...
