import io
import math
import sys

import trio

from trio_dicom import RetryPolicy, SenderOptions, Status, StorageSCP, StoreReply, open_sender, serve_associations

PATIENT = SenderOptions(retry=RetryPolicy(first_contact=1_000_000, patience=math.inf))


async def main(peer, port, *, task_status=trio.TASK_STATUS_IGNORED):
    async with open_sender(peer, options=PATIENT) as sender:

        async def forward(instance):
            data_set = await instance.read(limit=1 << 30)  # bytes
            report = await sender.send(io.BytesIO(instance.file_head() + data_set))
            if report.status is None:  # no answer: whoever sent it to us keeps it, and tries again
                return StoreReply(Status(0xA700), f"not forwarded: {report.outcome.value}")
            return report.status

        await serve_associations(StorageSCP(forward), int(port), host="127.0.0.1", task_status=task_status)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # PACS@10.0.0.5:104 11112
