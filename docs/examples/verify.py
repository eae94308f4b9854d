import sys

import trio

from trio_dicom import echo


async def main(peer):
    seconds = await echo(peer)
    print(f"{peer} answered in {1000 * seconds:.1f} ms")
    return seconds


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
