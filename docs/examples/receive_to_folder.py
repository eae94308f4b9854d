import sys

import trio

from trio_dicom import Admission, InstanceFolder, StorageSCP, serve_associations


async def main(folder, port, *, task_status=trio.TASK_STATUS_IGNORED):
    service = StorageSCP(InstanceFolder(folder, layout="{study_instance_uid}/{sop_instance_uid}.dcm"))
    await serve_associations(
        service,
        int(port),
        host="127.0.0.1",  # None: all addresses of this machine
        admission=Admission(ae_title="ARCHIVE"),
        task_status=task_status,
    )


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # incoming 11112
