import signal
import sys

import trio

from trio_dicom import open_sender


async def stop(nursery, sender, signals, seconds):
    with trio.move_on_after(seconds):
        await anext(signals)
    nursery.start_soon(sender.drain, 30)
    await anext(signals)  # somebody is in a hurry
    nursery.cancel_scope.cancel()


async def main(peer, folder, seconds):
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            async with open_sender(peer) as sender:
                nursery.start_soon(stop, nursery, sender, signals, float(seconds))
                async with sender.send_tree(folder) as reports:
                    async for report in reports:
                        print(f"{report.outcome.value}: {report.path}")
            nursery.cancel_scope.cancel()
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 night/ 3600
