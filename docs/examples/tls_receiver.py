import sys

import trio

from trio_dicom import Admission, StorageSCP, serve_associations, tls


async def main(folder, port, authorities, certificate, *, task_status=trio.TASK_STATUS_IGNORED):
    await serve_associations(
        StorageSCP(folder),
        int(port),
        tls=tls.server_context(certificate, ca=authorities),  # who connects needs a certificate of these
        admission=Admission(ae_title="ARCHIVE", certificate_titles={"ct1.hospital.example": "CT1"}),
        task_status=task_status,
    )


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
