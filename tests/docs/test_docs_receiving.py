"""The programs of the documentation that receive, run here with a sender."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pydicom
import pytest
import trio
from pydicom import examples
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from interop.peers import data_set_bytes
from support.certificates import authority, certify
from trio_dicom import AssociationRejected, AssociationServer, AssociationSettings, Status, send_file, tls

CT = str(examples.get_path("ct"))
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """The example of that name, as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


async def served(main: Callable[..., Awaitable[None]], client: Callable[[int], Awaitable[None]]) -> None:
    """Run `client` with the port of the server that `main` starts, and drain it."""
    async with trio.open_nursery() as nursery:
        server: AssociationServer = await nursery.start(main)
        await client(server.port)
        await server.drain(5)


async def test_receive_to_folder(load: Load, tmp_path: Path) -> None:
    async def client(port: int) -> None:
        assert (await send_file(f"ARCHIVE@127.0.0.1:{port}", CT)).is_success
        with pytest.raises(AssociationRejected, match="called"):
            await send_file(f"OTHER@127.0.0.1:{port}", CT)

    await served(functools.partial(load("receive_to_folder").main, tmp_path, 0), client)
    dataset = pydicom.dcmread(CT)
    filed = tmp_path / dataset.StudyInstanceUID / f"{dataset.SOPInstanceUID}.dcm"
    assert pydicom.dcmread(filed) == dataset


async def test_tls_receiver(load: Load, tmp_path: Path) -> None:
    ours, files = authority(), {}
    certificates = {"server": certify(["127.0.0.1"], ours), "ct1": certify(["ct1.hospital.example"], ours)}
    for name, content in {"ca": ours.pem, **{name: each.both for name, each in certificates.items()}}.items():
        files[name] = tmp_path / f"{name}.pem"
        files[name].write_bytes(content)
    context = tls.client_context(ca=files["ca"], certificate=files["ct1"])

    async def client(port: int) -> None:
        for title, is_let_in in (("CT1", True), ("CT2", False)):
            settings = AssociationSettings(calling_ae_title=title)
            with contextlib.nullcontext() if is_let_in else pytest.raises(AssociationRejected, match="calling"):
                assert (await send_file(f"ARCHIVE@127.0.0.1:{port}", CT, settings=settings, tls=context)).is_success

    main = load("tls_receiver").main
    await served(functools.partial(main, tmp_path / "in", 0, files["ca"], files["server"]), client)
    assert len(list((tmp_path / "in").iterdir())) == 1


async def test_receive_handler(load: Load) -> None:
    module = load("receive_handler")

    async def client(port: int) -> None:
        assert (await send_file(f"DOSE@127.0.0.1:{port}", CT)).is_success
        refused = await send_file(f"OTHER@127.0.0.1:{port}", CT)
        assert (refused.status, refused.error_comment) == (Status(0x0124), "call DOSE for dose reports")

    await served(functools.partial(module.main, 0), client)
    assert module.doses == [(pydicom.dcmread(CT).SOPInstanceUID, "CT")]


async def test_receive_stream(load: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("receive_stream")

    async def send(_seconds: float) -> None:
        port = int(capsys.readouterr().out.split()[-1])
        assert (await send_file(f"ANY@127.0.0.1:{port}", CT)).is_success

    monkeypatch.setattr(module, "trio", SimpleNamespace(open_nursery=trio.open_nursery, sleep=send))
    await module.main(0)
    data_set = data_set_bytes(CT)
    assert hashlib.sha256(data_set).hexdigest() in capsys.readouterr().out


async def test_own_service(load: Load) -> None:
    def query(port: int, patient: str) -> list[tuple[int, str | None]]:
        ae = AE()
        ae.add_requested_context(ModalityWorklistInformationFind)
        association = ae.associate("127.0.0.1", port)
        assert association.is_established
        wanted = pydicom.Dataset()
        wanted.PatientID = patient
        answers = [
            (int(status.Status), str(identifier.AccessionNumber) if identifier else None)
            for status, identifier in association.send_c_find(wanted, ModalityWorklistInformationFind)
        ]
        association.release()
        return answers

    async def client(port: int) -> None:
        assert await trio.to_thread.run_sync(query, port, "TEST-1") == [(0xFF00, "A1"), (0x0000, None)]
        assert await trio.to_thread.run_sync(query, port, "NOBODY") == [(0x0000, None)]

    await served(functools.partial(load("own_service").main, 0), client)
