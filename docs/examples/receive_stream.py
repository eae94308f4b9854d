import hashlib
import sys

import trio

from trio_dicom import Status, StorageSCP, serve_associations


async def take(instance):
    digest = hashlib.sha256()
    async for data in instance:  # the data set, in instance.transfer_syntax_uid, as it comes
        digest.update(data)
    print(instance.sop_instance_uid, digest.hexdigest())
    return Status(0x0000)


async def main(port, seconds=60):
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_associations, StorageSCP(take), int(port))
        print(f"listening on {server.port}")
        await trio.sleep(float(seconds))
        await server.drain(timeout=10)  # those that are here may finish


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # 11112
