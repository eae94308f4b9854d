import sys
from io import BytesIO

import trio
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from trio_dicom import Service, serve_associations
from trio_dicom.protocol.other_services import CFindRQ

WORKLIST = "1.2.840.10008.5.1.4.31"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"


class Worklist(Service):
    requests = (CFindRQ,)

    def __init__(self, items):
        self.items = items

    def transfer_syntaxes(self, abstract_syntax):
        return {IMPLICIT_VR_LITTLE_ENDIAN} if abstract_syntax == WORKLIST else None

    async def perform(self, request):
        query = b"".join([bytes(piece) for piece in await request.receive_pieces(1 << 20)])
        wanted = read_dataset(BytesIO(query), is_implicit_VR=True, is_little_endian=True).get("PatientID")
        for item in self.items:
            if request.cancelled.is_set():
                return request.response(0xFE00)
            if wanted in (None, "", item.PatientID):
                await request.respond(request.response(0xFF00), encoded(item))
        return request.response(0x0000)


def encoded(dataset):
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = True, True
    write_dataset(file, dataset)
    return file.getvalue()


async def main(port, *, task_status=trio.TASK_STATUS_IGNORED):
    item = Dataset()
    item.PatientID, item.AccessionNumber = "TEST-1", "A1"
    await serve_associations(Worklist([item]), int(port), task_status=task_status)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # 11112
