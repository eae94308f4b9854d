"""All rows, by what they are about."""

from __future__ import annotations

from .fault_row import FaultRow
from .rows_acceptor import ACCEPTOR
from .rows_files import FILES
from .rows_requestor import REQUESTOR
from .rows_runtime import RUNTIME, TLS

SECTIONS = {"requestor": REQUESTOR, "acceptor": ACCEPTOR, "files": FILES, "runtime": RUNTIME, "tls": TLS}
ROWS: dict[int, FaultRow] = {row.number: row for rows in SECTIONS.values() for row in rows}
