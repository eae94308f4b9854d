# The command line. This module and `app` are all that `--help` needs: a command imports what it works with when it runs.

import sys


def main() -> None:
    """`trio-dicom`, and `python -m trio_dicom`."""
    try:
        from .app import app
    except ImportError as error:
        if error.name not in ("cyclopts", "rich"):
            raise
        sys.exit(f"The command line needs the package {error.name}: pip install 'trio-dicom[cli]'")
    app()
