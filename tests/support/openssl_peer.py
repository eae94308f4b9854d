"""OpenSSL itself as a peer, by its C interface: what Python's `ssl` has no words for. Blocking; for threads."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
from functools import cache
from types import TracebackType

import pytest

TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = 0x0301, 0x0302, 0x0303, 0x0304
KEY_UPDATE_REQUESTED = 1
_CTRL_SET_MIN, _CTRL_SET_MAX = 123, 124


@cache
def library() -> ctypes.CDLL:
    name = ctypes.util.find_library("ssl")
    if name is None:
        pytest.skip("OpenSSL's library is not found")
    found = ctypes.CDLL(name)
    pointers = ("TLS_client_method", "SSL_CTX_new", "SSL_new")
    for function in pointers:
        getattr(found, function).restype = ctypes.c_void_p
    return found


class OpenSSLClient:
    """A connection of a client to 127.0.0.1:`port`; `connect` does the handshake. Whatever fails gives 0 or less."""

    def __init__(self, port: int, *, version: int, ciphers: bytes | None = None) -> None:
        self.ssl = library()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._context = ctypes.c_void_p(self.ssl.SSL_CTX_new(ctypes.c_void_p(self.ssl.TLS_client_method())))
        for control in (_CTRL_SET_MIN, _CTRL_SET_MAX):
            self.ssl.SSL_CTX_ctrl(self._context, control, ctypes.c_long(version), None)
        if ciphers is not None:
            assert self.ssl.SSL_CTX_set_cipher_list(self._context, ciphers)
        self._connection = ctypes.c_void_p(self.ssl.SSL_new(self._context))
        self.ssl.SSL_set_fd(self._connection, self.socket.fileno())

    def __enter__(self) -> OpenSSLClient:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ssl.SSL_free(self._connection)
        self.ssl.SSL_CTX_free(self._context)
        self.socket.close()

    def connect(self) -> int:
        return self.ssl.SSL_connect(self._connection)

    def write(self, data: bytes) -> int:
        return self.ssl.SSL_write(self._connection, data, len(data))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the end."""
        buffer = ctypes.create_string_buffer(size)
        count = self.ssl.SSL_read(self._connection, buffer, size)
        return buffer.raw[: max(0, count)]

    def update_keys(self) -> int:
        """Send a KeyUpdate that asks for one in return."""
        self.ssl.SSL_key_update(self._connection, KEY_UPDATE_REQUESTED)
        return self.ssl.SSL_do_handshake(self._connection)

    def renegotiate(self) -> int:
        self.ssl.SSL_renegotiate(self._connection)
        return self.ssl.SSL_do_handshake(self._connection)
