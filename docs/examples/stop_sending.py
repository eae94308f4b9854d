import signal
import sys

import trio

from trio_dicom import open_sender


async def stop(sender, signals, seconds):
    with trio.move_on_after(seconds):
        async for _ in signals:
            break
    await sender.drain(timeout=30)


async def main(peer, folder, seconds):
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_sender(peer) as sender, trio.open_nursery() as nursery:
            nursery.start_soon(stop, sender, signals, float(seconds))
            async with sender.send_tree(folder) as reports:
                async for report in reports:
                    print(f"{report.outcome.value}: {report.path}")
            nursery.cancel_scope.cancel()
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 night/ 3600
