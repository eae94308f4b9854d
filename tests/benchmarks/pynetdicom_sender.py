"""pynetdicom as fast as it can be made to go: `pynetdicom_sender.py PORT FOLDER`.

One association, the data sets as they lie in the files and in pieces, no limit on PDUs of ours, no log, no Nagle.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt


def without_nagle(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main(port: int, folder: Path) -> None:
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    paths = sorted(folder.iterdir())
    heads = [read_file_meta_info(path) for path in paths]
    ae = AE("PYNETDICOM")
    ae.dimse_timeout = 5  # now and then it waits in vain for an answer that has come: such a run is made again
    for sop_class, transfer_syntax in sorted({(h.MediaStorageSOPClassUID, h.TransferSyntaxUID) for h in heads}):
        ae.add_requested_context(sop_class, transfer_syntax)
    association = ae.associate("127.0.0.1", port, max_pdu=0, evt_handlers=[(evt.EVT_CONN_OPEN, without_nagle)])
    if not association.is_established:
        raise SystemExit("no association")
    for path in paths:
        if association.send_c_store(path).get("Status") != 0:
            raise SystemExit(f"{path.name} was not stored")
    association.release()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
