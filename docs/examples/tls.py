import sys

import trio

from trio_dicom import send_file, tls


async def main(peer, path, authorities, certificate):
    context = tls.client_context(
        ca=authorities,  # in place of the system's; the host name is checked, too
        certificate=certificate,  # our own, with its key, where the peer asks for one
    )
    return await send_file(peer, path, tls=context)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
