import sys

import trio

from trio_dicom import send_file


async def main(peer, path):
    response = await send_file(peer, path)
    print(f"{response.status!r}, {response.bytes_sent} bytes in {response.elapsed:.2f} s")
    response.raise_for_status()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 ct.dcm
