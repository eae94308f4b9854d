import sys

import trio

from trio_dicom import CStoreSCU, contexts_for, open_association, open_progress_channel


async def show(receive_progress):
    seen = []
    async for progress in receive_progress:
        percent = "?" if progress.percent is None else f"{progress.percent:.0f}"
        print(f"{progress.bytes_sent} bytes, {percent} %, {progress.bytes_per_second / 1e6:.1f} MB/s")
        seen.append(progress)
    return seen[-1]


async def main(peer, path):
    send_progress, receive_progress = open_progress_channel()
    async with open_association(peer, await contexts_for(path)) as association, trio.open_nursery() as nursery:
        nursery.start_soon(show, receive_progress)
        with send_progress:  # closed at the end of the block, and so `show` comes to its end
            return await CStoreSCU(association).send(path, progress=send_progress)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
