import ssl
import sys

import trio

from trio_dicom import send_file


async def main(peer, path, authorities, certificate):
    context = ssl.create_default_context(cafile=authorities)  # checks the peer's certificate and its host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate)  # our own, with its key, where the peer asks for one
    return await send_file(peer, path, tls=context)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
