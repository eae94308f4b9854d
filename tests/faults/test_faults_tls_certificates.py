"""Certificates that are not to be trusted, on either side: rows 118 and 122 of the fault table, in TLS 1.2 and 1.3."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from types import SimpleNamespace

import attrs
import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from support.certificates import CLIENT, DAY, SERVER, Certified, authority, certify, revocation_list
from trio_dicom import (
    Admission,
    AssociationRejected,
    AssociationSettings,
    ConnectionLost,
    CStoreSCU,
    Instance,
    Retry,
    StorageSCP,
    TLSError,
    TLSVerifyError,
    open_association,
    serve_associations,
)
from trio_dicom.testing import ScriptedPeer, SOPClass, make_instance, scripted_listener
from trio_dicom.tls import client_context, server_context

HOST = "archive.example"
CT = [SOPClass.CT]
VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


@cache
def pki() -> SimpleNamespace:
    """Ours and theirs."""
    ours, theirs = authority("Ours"), authority("Theirs")
    return SimpleNamespace(
        ours=ours,
        theirs=theirs,
        server=certify([HOST], ours, usage=[SERVER]),
        client=certify(["ct1.example"], ours, common_name="CT One", usage=[CLIENT]),
    )


@attrs.frozen
class Untrusted:
    """A server's certificate, what its client knows besides the authority, and what is said."""

    certificate: Callable[[], Certified]
    text: str
    knows: Callable[[], dict[str, object]] = dict


def of_ours(**changes: object) -> Callable[[], Certified]:
    return lambda: certify([HOST], pki().ours, **({"usage": [SERVER]} | changes))


def by_crl(*, is_revoked: bool = True, is_current: bool = True) -> Callable[[], dict[str, object]]:
    """A revocation list."""
    times = {} if is_current else {"begin": -2 * DAY, "end": -DAY}
    return lambda: {"crl": revocation_list(pki().ours, *([pki().server] if is_revoked else []), **times)}


def of_another() -> dict[str, object]:
    return {"crl": revocation_list(pki().theirs)}


UNTRUSTED = {
    "untrusted authority": Untrusted(lambda: certify([HOST], pki().theirs), "unable to get local issuer certificate"),
    "expired": Untrusted(of_ours(begin=-2 * DAY, end=-DAY), "certificate has expired"),
    "not yet valid": Untrusted(of_ours(begin=DAY, end=2 * DAY), "certificate is not yet valid"),
    "wrong host": Untrusted(lambda: certify(["elsewhere.example"], pki().ours), "is not valid for 'archive.example'"),
    "wrong use": Untrusted(of_ours(usage=[CLIENT]), "(un)?suitable certificate purpose"),
    "self-signed": Untrusted(lambda: certify([HOST]), "self[- ]signed certificate"),
    "revoked": Untrusted(lambda: pki().server, "certificate revoked", by_crl()),
    "revocation list expired": Untrusted(
        lambda: pki().server, "CRL has expired", by_crl(is_revoked=False, is_current=False)
    ),
    "no revocation list of it": Untrusted(lambda: pki().server, "unable to get certificate CRL", of_another),
    "not the pinned one": Untrusted(
        lambda: pki().server, "none of those that are pinned: SHA-256 [0-9a-f]{64}", lambda: {"pins": ["a" * 64]}
    ),
}


@versions
@pytest.mark.fault_row(118)
@pytest.mark.parametrize("name", UNTRUSTED)
async def test_fault118_a_server_that_is_not_trusted(name: str, version: ssl.TLSVersion) -> None:
    """Not a byte of DICOM goes to it, and there is no second try without TLS."""
    fault = UNTRUSTED[name]
    server = server_context(fault.certificate().both)
    server.minimum_version = server.maximum_version = version
    client = client_context(ca=pki().ours.pem, **fault.knows())
    async with scripted_listener(ScriptedPeer.serve, tls=server) as listener:
        with pytest.raises(TLSVerifyError, match=fault.text) as caught:
            async with open_association(listener.address, CT, tls=client, server_hostname=HOST):
                raise AssertionError("there is no association")
    assert caught.value.retry is Retry.AFTER_CONFIG
    assert [bytes(peer.received) for peer in listener.peers] in ([], [b""])


TRUSTED = {
    "by its authority": (lambda: pki().server, lambda: {"ca": pki().ours.pem}),
    "not revoked": (lambda: pki().server, lambda: {"ca": pki().ours.pem, "crl": revocation_list(pki().ours)}),
    "self-signed and known": (lambda: SELF, lambda: {"ca": SELF.pem}),
    "pinned": (lambda: SELF, lambda: {"pins": ["a" * 64, SELF.fingerprint.upper()]}),
    "pinned, of another name and too old": (lambda: OLD, lambda: {"pins": [OLD.fingerprint]}),
    "pinned, of an authority, and of another name": (
        lambda: ELSEWHERE,
        lambda: {"ca": pki().ours.pem, "pins": [ELSEWHERE.fingerprint]},
    ),
    "not verified at all": (lambda: OLD, lambda: {"dangerous_disable_verification": True}),
}
SELF, OLD = certify([HOST]), certify(["elsewhere.example"], begin=-2 * DAY, end=-DAY)
ELSEWHERE = certify(["elsewhere.example"], pki().ours)


@versions
@pytest.mark.fault_row(118)
@pytest.mark.parametrize("name", TRUSTED)
async def test_fault118_those_that_are_right(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, knows = TRUSTED[name]
    server = server_context(certificate().both)
    server.minimum_version = server.maximum_version = version
    client = client_context(**knows())
    caplog.clear()
    async with (
        scripted_listener(ScriptedPeer.serve, tls=server) as listener,
        open_association(listener.address, CT, tls=client, server_hostname=HOST) as association,
    ):
        assert (await CStoreSCU(association).send(make_instance())).is_success
    warned = [record.name for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == (["trio_dicom.tls"] if name == "not verified at all" else [])


async def test_fault118_a_pin_and_an_authority_both_count() -> None:
    stranger = certify([HOST], pki().theirs)
    client = client_context(ca=pki().ours.pem, pins=[stranger.fingerprint])
    async with scripted_listener(ScriptedPeer.serve, tls=server_context(stranger.both)) as listener:
        with pytest.raises(TLSVerifyError, match="issuer"):
            async with open_association(listener.address, CT, tls=client, server_hostname=HOST):
                raise AssertionError("there is no association")


# --- who calls --------------------------------------------------------------------------------------------------------


@attrs.define
class Server:
    port: int
    stored: list[str]
    log: pytest.LogCaptureFixture

    @property
    def said(self) -> list[str]:
        return self.log.messages

    @property
    def address(self) -> str:
        return f"ARCHIVE@127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture, admission: Admission | None = None, **more: object
) -> AsyncIterator[Server]:
    """A server that asks for certificates of our authority."""
    caplog.set_level(logging.INFO, "trio_dicom.association.acceptor")
    context = server_context(pki().server.both, ca=pki().ours.pem, **more)
    context.minimum_version = context.maximum_version = version
    stored: list[str] = []

    async def store(instance: Instance) -> int:
        await instance.read()
        stored.append(instance.calling_ae_title)
        return 0x0000

    async def serve(task_status: trio.TaskStatus[object]) -> None:
        await serve_associations(StorageSCP(store), 0, tls=context, admission=admission, task_status=task_status)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        yield Server(server.port, stored, caplog)
        await server.drain(5)


async def call(server: Server, certificate: Certified | None, title: str = "CT1") -> None:
    """Send one object."""
    client = client_context(ca=pki().ours.pem, certificate=certificate.both if certificate else None)
    settings = AssociationSettings(calling_ae_title=title)
    opened = open_association(server.address, CT, settings=settings, tls=client, server_hostname=HOST)
    async with opened as association:
        assert (await CStoreSCU(association).send(make_instance())).is_success


NOT_LET_IN = {
    "no certificate": (lambda: None, {}, "the peer sent no certificate"),
    "of another authority": (
        lambda: certify(["ct1.example"], pki().theirs),
        {},
        "(CERTIFICATE_VERIFY_FAILED|unable to get local issuer)",
    ),
    "self-signed": (lambda: certify(["ct1.example"]), {}, "self[- ]signed"),
    "expired": (lambda: certify(["ct1.example"], pki().ours, begin=-2 * DAY, end=-DAY), {}, "expired"),
    "for servers": (lambda: certify(["ct1.example"], pki().ours, usage=[SERVER]), {}, "(un)?suitable certificate"),
    "revoked": (lambda: pki().client, {"crl": lambda: revocation_list(pki().ours, pki().client)}, "revoked"),
}


@versions
@pytest.mark.fault_row(122)
@pytest.mark.parametrize("name", NOT_LET_IN)
async def test_fault122_a_client_that_is_not_trusted(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, more, text = NOT_LET_IN[name]
    async with serving(version, caplog, **{key: value() for key, value in more.items()}) as server:
        with pytest.raises((TLSError, ConnectionLost)):
            await call(server, certificate())
        with trio.fail_after(10):
            while not server.said:
                await trio.lowlevel.checkpoint()
    assert re.fullmatch(f"connection from 127.0.0.1: the TLS handshake failed: .*{text}.*", server.said[0])
    assert server.stored == []


TITLES = {"CT1.example": ["CT1", "CT2"], pki().client.fingerprint: "CT3"}


@versions
@pytest.mark.fault_row(122)
@pytest.mark.parametrize(
    ("titles", "title", "doubt"),
    [
        (TITLES, "CT1", None),
        (TITLES, "CT2", None),
        (TITLES, "CT3", None),
        ({"CT One": "CT1"}, "CT1", None),
        (TITLES, "MR1", "the certificate is for another AE title"),
        ({"mr1.example": "CT1"}, "CT1", "the certificate is not listed"),
        ({}, "CT1", "the certificate is not listed"),
    ],
    ids=["name", "another of its titles", "fingerprint", "common name", "other title", "other name", "nobody"],
)
async def test_fault122_a_certificate_stands_for_titles(
    titles: dict[str, str],
    title: str,
    doubt: str | None,
    version: ssl.TLSVersion,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(version, caplog, Admission(certificate_titles=titles)) as server:
        if doubt is None:
            await call(server, pki().client, title)
            assert server.stored == [title]
        else:
            with pytest.raises(AssociationRejected) as caught:
                await call(server, pki().client, title)
            assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 3)
    said = [each for each in server.said if "rejected" in each]
    shown = f"calling AE title not recognised: {doubt} (SHA-256 {pki().client.fingerprint})"
    assert [each.endswith(shown) for each in said] == ([] if doubt is None else [True])


ODD_NAMES = {
    "a directory name": x509.SubjectAlternativeName(
        [
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CT One")])),
            x509.DNSName("ct1.example"),
        ]
    ),
    "not in ASCII": x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x06\x82\x04\xe4.de"),
    "an address of five bytes": x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x07\x87\x05\x7f\0\0\1\5"
    ),
    "a name and NUL": x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x0f\x82\x0dct1.example\0."
    ),
}
NOT_READ = ("not in ASCII", "an address of five bytes", "a name and NUL")


@versions
@pytest.mark.fault_row(122)
@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("known_by", ["nothing", "fingerprint", "name"])
async def test_fault122_a_certificate_with_odd_names(
    known_by: str, name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """A trusted certificate is let in, with or without names that can be read."""
    odd = certify(["CT One"], pki().ours, usage=[CLIENT], alternative_names=ODD_NAMES[name])
    known = {"nothing": None, "fingerprint": {odd.fingerprint: "CT1"}, "name": {"ct1.example": "CT1"}}[known_by]
    async with serving(version, caplog, Admission(certificate_titles=known)) as server:
        if known_by == "name" and name in NOT_READ:
            with pytest.raises(AssociationRejected):
                await call(server, odd)
        else:
            await call(server, odd)
            assert server.stored == ["CT1"]
    said = f"the certificate is not listed (SHA-256 {odd.fingerprint})"
    assert any(each.endswith(said) for each in server.said) == (not server.stored)


@pytest.mark.fault_row(122)
async def test_fault122_a_name_is_no_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    """A certificate that is made out to the fingerprint of another does not stand for it."""
    admission = Admission(certificate_titles={pki().client.fingerprint: "CT1"})
    long_name = x509.SubjectAlternativeName([x509.DNSName(pki().client.fingerprint)])
    pretender = certify(["pretender"], pki().ours, usage=[CLIENT], alternative_names=long_name)
    async with serving(ssl.TLSVersion.TLSv1_3, caplog, admission) as server:
        with pytest.raises(AssociationRejected):
            await call(server, pretender)
        await call(server, pki().client)
    assert server.stored == ["CT1"]
