import sys

import trio

from trio_dicom import open_sender


async def main(peer, folder):
    """For a peer that takes no compressed images."""
    async with open_sender(peer, transcode="native") as sender, sender.send_tree(folder) as reports:
        async for report in reports:
            print(f"{report.path}: {report.outcome.value} {report.reason}")
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
