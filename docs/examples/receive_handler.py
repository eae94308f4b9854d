import sys

import trio

from trio_dicom import Status, StorageSCP, StoreReply, serve_associations

doses = []


async def take(instance):
    if instance.called_ae_title != "DOSE":
        return StoreReply(Status(0x0124), "call DOSE for dose reports")
    dataset = await instance.dataset(limit=16 << 20)  # bytes
    doses.append((dataset.SOPInstanceUID, dataset.get("Modality")))
    return Status(0x0000)


async def main(port, *, task_status=trio.TASK_STATUS_IGNORED):
    await serve_associations(StorageSCP(take), int(port), task_status=task_status)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # 11112
