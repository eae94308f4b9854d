"""tls_contexts: a handshake on loopback that succeeds, and one for each fault that fails, for that reason."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import pytest
import trio

from trio_dicom.testing import TLSContexts, TLSFault, loopback_streams, tls_contexts


async def handshake(contexts: TLSContexts, host: str = "127.0.0.1") -> tuple[str | None, object]:
    """The TLS version and the client's certificate as the server sees it; raises what either side does."""
    ours, theirs = await loopback_streams()
    client = trio.SSLStream(ours, contexts.client, server_hostname=host)
    server = trio.SSLStream(theirs, contexts.server, server_side=True)
    async with trio.open_nursery() as nursery:

        async def talk(stream: trio.SSLStream[trio.SocketStream], word: bytes) -> None:
            try:
                await stream.send_all(word)
                assert await stream.receive_some() in (b"ping", b"pong")
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise

        nursery.start_soon(talk, client, b"ping")
        nursery.start_soon(talk, server, b"pong")
    found = server.version(), server.getpeercert()
    for stream in (client, server):
        await trio.aclose_forcefully(stream)
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "archive.example"])
async def test_they_trust_each_other(host: str) -> None:
    version, certificate = await handshake(tls_contexts(host), host)
    assert version in ("TLSv1.2", "TLSv1.3")
    assert not certificate


async def test_a_client_certificate() -> None:
    _, certificate = await handshake(tls_contexts(client_certificate=True))
    assert "client@example.org" in str(certificate)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (TLSFault.WRONG_HOST, "IP address mismatch"),
        (TLSFault.EXPIRED, "certificate has expired"),
        (TLSFault.OTHER_AUTHORITY, "unable to get local issuer certificate"),
        (TLSFault.NO_CLIENT_CERTIFICATE, "peer did not return a certificate"),
        (TLSFault.OTHER_CLIENT_AUTHORITY, "unable to get local issuer certificate"),
    ],
)
async def test_a_fault(fault: TLSFault, reason: str) -> None:
    with pytest.RaisesGroup(trio.BrokenResourceError, allow_unwrapped=False, flatten_subgroups=True) as caught:
        await handshake(tls_contexts(fault=fault))
    (broken,) = caught.value.exceptions
    assert isinstance(broken.__cause__, ssl.SSLError)
    assert reason.replace(" ", "_").lower() in str(broken.__cause__).replace(" ", "_").lower()


@pytest.mark.parametrize("side", ["client", "server"])
async def test_nothing_older_than_1_2(side: str) -> None:
    contexts = tls_contexts()
    assert getattr(contexts, side).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_the_pems_are_those_of_the_contexts(tmp_path: Path) -> None:
    contexts = tls_contexts(client_certificate=True)
    for name in (
        "authority_pem",
        "server_certificate_pem",
        "server_key_pem",
        "client_certificate_pem",
        "client_key_pem",
    ):
        (tmp_path / name).write_bytes(getattr(contexts, name))
    client = ssl.create_default_context(cafile=str(tmp_path / "authority_pem"))
    client.load_cert_chain(tmp_path / "client_certificate_pem", tmp_path / "client_key_pem")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "authority_pem"))
    server.load_cert_chain(tmp_path / "server_certificate_pem", tmp_path / "server_key_pem")
    server.verify_mode = ssl.CERT_REQUIRED
    await handshake(attrs.evolve(contexts, server=server))
    await handshake(attrs.evolve(contexts, client=client))
    assert b"KEY" not in repr(contexts).encode()
