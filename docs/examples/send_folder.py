import sys

import trio

from trio_dicom import open_sender


async def main(peer, folder):
    async with open_sender(peer) as sender, sender.send_tree(folder) as reports:
        async for report in reports:
            if not report.is_delivered:
                print(f"{report.outcome.value}: {report.path}: {report.reason}")
    total = sender.report
    print(f"{total.delivered} of {total.inputs} delivered, {total.bytes_per_second / 1e6:.1f} MB/s")
    if sender.failure is not None:
        print(f"given up: {sender.failure}")
    return total


if __name__ == "__main__":
    sys.exit(not trio.run(main, *sys.argv[1:]).is_all_delivered)  # PACS@10.0.0.5:104 study/
