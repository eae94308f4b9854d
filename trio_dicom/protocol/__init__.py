# The DICOM upper layer and message exchange without any I/O: bytes in, events out, and back. Nothing here imports trio,
# a socket, or a floor above; so a test, a fuzzer or another event loop drives it as well as the association does.
