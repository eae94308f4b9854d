import sys

import trio

from trio_dicom import open_sender


async def main(peer, folder, ledger="run.db"):
    async with open_sender(peer, ledger=ledger) as sender, sender.send_tree(folder) as reports:
        async for report in reports:
            when = "earlier" if report.is_earlier else "now"
            print(f"{report.outcome.value}, {when}: {report.path}")
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 night/
