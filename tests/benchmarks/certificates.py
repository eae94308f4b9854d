"""Certificates for the runs over TLS: `certificates.py FOLDER` writes authority.pem, and server.pem with its key."""

from __future__ import annotations

import sys
from pathlib import Path

from trio_dicom.testing import tls_contexts

if __name__ == "__main__":
    folder, made = Path(sys.argv[1]), tls_contexts()
    (folder / "authority.pem").write_bytes(made.authority_pem)
    (folder / "server.pem").write_bytes(made.server_key_pem + made.server_certificate_pem)
