import sys

import trio

from trio_dicom import open_sender


async def watch(folder, send_paths, seconds):
    seen = set()
    with send_paths, trio.move_on_after(seconds):  # closed at the end, and so `send_many` comes to its end
        while True:
            for path in sorted(await trio.Path(folder).glob("*.dcm")):
                if path not in seen:
                    seen.add(path)
                    await send_paths.send(path)
            await trio.sleep(1)


async def main(peer, folder, seconds):
    send_paths, receive_paths = trio.open_memory_channel(0)
    async with open_sender(peer) as sender, trio.open_nursery() as nursery:
        nursery.start_soon(watch, folder, send_paths, float(seconds))
        async with sender.send_many(receive_paths) as reports:
            async for report in reports:
                print(f"{report.outcome.value}: {report.path}")
                if report.is_delivered:
                    await trio.Path(report.path).unlink()
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 outgoing/ 86400
