import sys

import trio

from trio_dicom import TransferReport, open_progress_channel, open_sender


async def show(receive_totals):
    async for total in receive_totals:
        rate = f"{total.bytes_per_second / 1e6:.1f} MB/s over {total.open_associations} associations"
        print(f"{total.delivered} delivered, {total.under_way} under way, {total.pending} pending, {rate}")


async def main(peer, folder):
    send_totals, receive_totals = open_progress_channel(TransferReport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show, receive_totals)
        with send_totals:  # closed at the end of the block, and so `show` comes to its end
            async with open_sender(peer, totals=send_totals) as sender, sender.send_tree(folder):
                pass  # the reports are not wanted: the block waits until all is sent
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 study/
