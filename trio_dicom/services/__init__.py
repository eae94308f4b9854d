# One DIMSE service a file.
