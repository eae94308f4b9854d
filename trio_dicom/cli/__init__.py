# The command line. This module and `app` are all that `--help` needs: a command imports what it works with as it runs.

import gc
import sys


def main() -> None:
    """`trio-dicom`, and `python -m trio_dicom`."""
    gc.disable()  # until all is imported: looking for garbage among new modules takes a tenth of the start
    try:
        from .app import run

        sys.exit(run())
    except KeyboardInterrupt:  # so early that there is nothing to leave in order
        sys.exit(130)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        sys.exit(f"trio-dicom: the command line needs the package {error.name}: pip install 'trio-dicom[cli]'")
