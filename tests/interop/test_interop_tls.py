"""TLS with DCMTK, both ways, in each of its BCP 195 profiles, with client certificates and without."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from interop import senders
from interop.peers import HOST, require_peer
from interop.samples import SAMPLES, Sample
from interop.senders import Receiver
from support.certificates import authority, certify, rsa_key
from trio_dicom import (
    Admission,
    AssociationServer,
    CStoreSCU,
    InstanceFolder,
    StorageSCP,
    TLSProfile,
    TrioDicomError,
    open_association,
    serve_associations,
)
from trio_dicom.tls import client_context, server_context

pytestmark = pytest.mark.interop

CT = next(each for each in SAMPLES if each.name == "CT_small.dcm")
# All that DCMTK 3.6.7 has, but those that are retired: BCP 195, the same without downgrading, and extended.
DCMTK_PROFILES = {"bcp195": "+px", "non-downgrading": "+py", "extended": "+pz"}
with_each = pytest.mark.parametrize("option", DCMTK_PROFILES.values(), ids=DCMTK_PROFILES)
ours = pytest.mark.parametrize("profile", TLSProfile, ids=lambda each: each.value)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Paths of "ca", and of certificates and keys, as "server" and "server-key"; "stranger" is of another authority."""
    folder, root = tmp_path_factory.mktemp("pem"), authority()
    (folder / "ca").write_bytes(root.pem)
    made = {
        "server": certify([HOST, "localhost"], root, key=rsa_key(2048)),
        "client": certify(["storescu.example"], root, key=rsa_key(2048)),
        "stranger": certify(["storescu.example"], authority("Another"), key=rsa_key(2048)),
    }
    for name, certified in made.items():
        (folder / name).write_bytes(certified.pem)
        (folder / f"{name}-key").write_bytes(certified.key_pem())
    return lambda name: str(folder / name)


async def send(address: str, sample: Sample, context: ssl.SSLContext) -> tuple[bool, str]:
    """Whether it was stored, and the version of TLS."""
    opened = open_association(address, [(sample.sop_class_uid)], tls=context)
    async with opened as association:
        stored = (await CStoreSCU(association).send(sample.path)).is_success
        version: Any = association._transport._tls.version()  # type: ignore[attr-defined]
        return stored, version


# --- to storescp ------------------------------------------------------------------------------------------------------


@ours
@with_each
async def test_to_storescp(
    option: str, profile: TLSProfile, storescp: Callable[..., Any], pem: Callable[[str], str]
) -> None:
    """By its own default it wants a certificate of ours."""
    peer = storescp("+tls", pem("server-key"), pem("server"), "+cf", pem("ca"), option)
    context = client_context(ca=pem("ca"), certificate=pem("client"), key=pem("client-key"), profile=profile)
    stored, version = await send(peer.address, CT, context)
    assert stored
    assert version in ("TLSv1.2", "TLSv1.3")
    assert list(peer.received().values()) == [CT.data_set]


@pytest.mark.parametrize("certificate", [None, "stranger"], ids=["none", "stranger"])
async def test_storescp_does_not_take_our_certificate(
    certificate: str | None, storescp: Callable[..., Any], pem: Callable[[str], str]
) -> None:
    peer = storescp("+tls", pem("server-key"), pem("server"), "+cf", pem("ca"))
    key = {} if certificate is None else {"certificate": pem(certificate), "key": pem(f"{certificate}-key")}
    with pytest.raises(TrioDicomError) as caught:
        await send(peer.address, CT, client_context(ca=pem("ca"), **key))
    # DCMTK may reset the connection, on which our request is, before it has let its alert go out.
    assert re.search("TLS certificate|reset", str(caught.value))
    assert not peer.received()


async def test_storescp_without_tls_or_with_nothing_else(
    storescp: Callable[..., Any], pem: Callable[[str], str]
) -> None:
    with pytest.raises(TrioDicomError, match=r"does the peer speak TLS on this port\?"):
        await send(storescp().address, CT, client_context(ca=pem("ca")))
    peer = storescp("+tls", pem("server-key"), pem("server"), "+cf", pem("ca"))
    with pytest.raises(TrioDicomError, match=r"speaks TLS|want TLS"):
        async with open_association(peer.address, [CT.sop_class_uid]):
            raise AssertionError("there is no association")


# --- from storescu ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    folder: Path, context: ssl.SSLContext, admission: Admission | None = None
) -> AsyncIterator[AssociationServer]:
    async def serve(task_status: trio.TaskStatus[AssociationServer]) -> None:
        service = StorageSCP(InstanceFolder(folder))
        await serve_associations(service, 0, tls=context, admission=admission, task_status=task_status)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        yield server
        await server.drain(5)


@ours
@with_each
@pytest.mark.parametrize("asks", [True, False], ids=["asks for a certificate", "does not ask"])
async def test_from_storescu(
    option: str, profile: TLSProfile, asks: bool, pem: Callable[[str], str], tmp_path: Path
) -> None:
    require_peer("storescu")
    context = server_context(pem("server"), pem("server-key"), ca=pem("ca") if asks else None, profile=profile)
    own = ("+tls", pem("client-key"), pem("client")) if asks else ("+tla",)
    admission = Admission(certificate_titles={"storescu.example": "STORESCU"}) if asks else None
    async with serving(tmp_path, context, admission) as server:
        done = await senders.run_storescu(Receiver(server.port), [CT], *own, "+cf", pem("ca"), option)
    assert done.returncode == 0
    assert os.listdir(tmp_path) == [f"{CT.sop_instance_uid}.dcm"]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (("+tla",), "the peer sent no certificate"),
        (("stranger",), "unable to get local issuer certificate"),
        ((), "does the peer speak TLS on this port?"),
    ],
    ids=["no certificate", "stranger", "no TLS"],
)
async def test_storescu_is_not_let_in(
    own: tuple[str, ...], words: str, pem: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_dicom.association.acceptor")
    context = server_context(pem("server"), pem("server-key"), ca=pem("ca"))
    if own == ("stranger",):
        own = ("+tls", pem("stranger-key"), pem("stranger"))
    async with serving(tmp_path, context) as server:
        done = await senders.run_storescu(Receiver(server.port), [CT], *own, *(("+cf", pem("ca")) if own else ()))
    assert done.returncode != 0
    assert os.listdir(tmp_path) == []
    assert words in caplog.text


async def test_storescu_may_not_call_by_this_title(pem: Callable[[str], str], tmp_path: Path) -> None:
    context = server_context(pem("server"), pem("server-key"), ca=pem("ca"))
    admission = Admission(certificate_titles={"storescu.example": "CT1"})
    own = ("+tls", pem("client-key"), pem("client"), "+cf", pem("ca"))
    async with serving(tmp_path, context, admission) as server:
        refused = await senders.run_storescu(Receiver(server.port), [CT], *own)
        taken = await senders.run_storescu(Receiver(server.port), [CT], "-aet", "CT1", *own)
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stdout
    assert taken.returncode == 0
