"""Every program in the documentation is a file of docs/examples, and is run here against a receiver."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest
import trio
import trio.testing
from pydicom import examples
from pydicom.data import get_testdata_file

from interop.peers import PynetdicomSCP, data_set_bytes, pynetdicom_scp
from trio_dicom import AssociationRejected, ConnectionLost, NoAcceptedContexts, OperationTimeout, StatusError
from trio_dicom.testing import ScriptedPeer, scripted_listener, tls_contexts

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
CT = str(examples.get_path("ct"))
MR = str(examples.get_path("mr"))
DOSE = str(examples.get_path("rt_dose"))  # 15 frames
BASIC_OFFSET_TABLE = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"  # empty

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """The example of that name, as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))  # examples import each other as scripts do
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def peer() -> Iterator[PynetdicomSCP]:
    with pynetdicom_scp() as scp:
        yield scp


def uid_of(path: str) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


# --- the examples, one by one ---------------------------------------------------------------------------------------


def test_verify(load: Load, peer: PynetdicomSCP) -> None:
    assert trio.run(load("verify").main, peer.address) > 0


def test_send_one(load: Load, peer: PynetdicomSCP, capsys: pytest.CaptureFixture[str]) -> None:
    trio.run(load("send_one").main, peer.address, CT)
    assert peer.received() == {uid_of(CT): data_set_bytes(CT)}
    assert "Success" in capsys.readouterr().out


def test_send_one_raises_for_a_refusal(load: Load) -> None:
    with pynetdicom_scp(statuses=[0xA900]) as peer, pytest.raises(StatusError, match="0xA900"):
        trio.run(load("send_one").main, peer.address, CT)


def test_send_many(load: Load, peer: PynetdicomSCP) -> None:
    results = trio.run(load("send_many").main, peer.address, CT, MR)
    assert results == {CT: "Status(0x0000, 'Success')", MR: "Status(0x0000, 'Success')"}
    assert set(peer.received()) == {uid_of(CT), uid_of(MR)}


def test_send_many_says_what_cannot_be_sent(load: Load, peer: PynetdicomSCP, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_bytes(b"no DICOM")
    results = trio.run(load("send_many").main, peer.address, MR, str(other))
    assert results[MR] == "Status(0x0000, 'Success')"
    assert results[str(other)].startswith("not stored: ")


def test_one_association(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    with pynetdicom_scp(statuses=[0x0000, 0xB000, 0xC000]) as peer:
        responses = trio.run(load("one_association").main, peer.address, CT, MR, CT)
    assert [int(response.status) for response in responses] == [0x0000, 0xB000, 0xC000]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["stored", "stored, with a warning", "refused"]


def test_contexts(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    supported = {"1.2.840.10008.5.1.4.1.1.2": ["1.2.840.10008.1.2.1"]}
    with pynetdicom_scp(supported=supported) as peer:
        assert trio.run(load("contexts").main, peer.address, CT).is_success
    assert capsys.readouterr().out.splitlines() == [
        "context 3: 1.2.840.10008.1.2.1",
        "rejected: 1.2.840.10008.5.1.4.1.1.2, ('1.2.840.10008.1.2.4.90',)",
    ]


def test_three_forms(load: Load, peer: PynetdicomSCP) -> None:
    assert all(response.is_success for response in trio.run(load("three_forms").main, peer.address, CT))
    bodies = [data for _, data in peer.stored]
    assert bodies[0] == bodies[1] == data_set_bytes(CT)
    assert b"ANONYMOUS" in bodies[2]


def test_pixels_made(load: Load, peer: PynetdicomSCP) -> None:
    module = load("pixels_made")
    assert trio.run(module.main, peer.address).is_success
    ((_, data),) = peer.stored
    pixels = b"".join(bytes([number]) * 65_536 for number in range(20))
    assert data.endswith(pixels)


def test_pixels_array(load: Load, peer: PynetdicomSCP) -> None:
    assert trio.run(load("pixels_array").main, peer.address).is_success
    ((_, data),) = peer.stored
    assert data.endswith(b"".join((number % 65_536).to_bytes(2, "little") for number in range(20 * 65_536)))


def test_pixels_decompressed(load: Load, peer: PynetdicomSCP) -> None:
    compressed = get_testdata_file("rtdose_rle.dcm", download=False)
    assert trio.run(load("pixels_decompressed").main, peer.address, compressed).is_success
    ((_, data),) = peer.stored
    assert data.endswith(pydicom.dcmread(DOSE).PixelData)


def test_pixels_compressed(load: Load, peer: PynetdicomSCP, tmp_path: Path) -> None:
    native = pydicom.dcmread(MR)
    native.NumberOfFrames = 3
    native.PixelData *= 3
    native.save_as(tmp_path / "three.dcm")
    assert trio.run(load("pixels_compressed").main, peer.address, str(tmp_path / "three.dcm")).is_success
    ((_, data),) = peer.stored
    pixels = data[data.index(BASIC_OFFSET_TABLE) + len(BASIC_OFFSET_TABLE) :]
    assert len(list(pydicom.encaps.generate_fragments(pixels))) == 3


def test_progress(load: Load, peer: PynetdicomSCP, capsys: pytest.CaptureFixture[str]) -> None:
    response = trio.run(load("progress").main, peer.address, CT)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{response.bytes_sent} bytes, 100 %")


def test_deadlines(load: Load, peer: PynetdicomSCP) -> None:
    module = load("deadlines")
    assert trio.run(module.told, peer.address, CT).is_success
    assert trio.run(module.cancelled, peer.address, CT).is_success


@pytest.fixture
def silent() -> Iterator[str]:
    """A receiver that stores, and answers only when the test is over."""
    is_over = threading.Event()

    class Late:
        def __iter__(self) -> Late:
            return self

        def __next__(self) -> int:
            is_over.wait(20)
            return 0x0000

    with pynetdicom_scp(statuses=Late()) as scp, contextlib.ExitStack() as stack:
        stack.callback(is_over.set)
        yield scp.address


def test_deadlines_missed(load: Load, silent: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = load("deadlines")
    error = trio.run(module.told, silent, CT, 0.5)
    assert isinstance(error, OperationTimeout)
    assert "in doubt: True" in capsys.readouterr().out
    assert trio.run(module.cancelled, silent, CT, 0.5) is None
    assert "the peer may have the object" in capsys.readouterr().out


def test_send_again(load: Load) -> None:
    with pynetdicom_scp() as peer:
        assert trio.run(load("send_again").main, peer.address, CT).is_success


def test_send_again_after_a_failure_that_may_pass(load: Load, peer: PynetdicomSCP) -> None:
    module = load("send_again")
    errors = [lost_in_doubt(), AssociationRejected(2, 3, 1)]
    open_association = module.open_association

    def failing(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return open_association(*args, **kwargs)

    async def main() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "open_association", failing)
            return await module.main(peer.address, CT)

    clock = trio.testing.MockClock(rate=100)
    assert trio.run(main, clock=clock).is_success
    assert not errors


def lost_in_doubt() -> Exception:
    error = ConnectionLost()
    error.in_doubt = True
    return error


def test_send_again_does_not_repeat_what_will_not_pass(load: Load) -> None:
    with (
        pynetdicom_scp(supported={"1.2.840.10008.1.1": ["1.2.840.10008.1.2"]}) as peer,
        pytest.raises(NoAcceptedContexts),
    ):
        trio.run(load("send_again").main, peer.address, CT)


def test_window(load: Load, peer: PynetdicomSCP) -> None:
    responses = trio.run(load("window").main, peer.address, CT, MR)
    assert [response.is_success for response in responses.values()] == [True, True]


def test_from_asyncio(load: Load, peer: PynetdicomSCP) -> None:
    assert asyncio.run(load("from_asyncio").main(peer.address, CT)).is_success


def test_from_asyncio_cancelled(load: Load) -> None:
    module = load("from_asyncio")
    has_begun, has_ended = threading.Event(), threading.Event()

    async def for_ever() -> None:
        has_begun.set()
        try:
            await trio.sleep_forever()
        finally:
            has_ended.set()

    async def main() -> None:
        task = asyncio.create_task(module.run_trio(for_ever))
        assert await asyncio.to_thread(has_begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert has_ended.is_set()

    asyncio.run(main())


def test_tls(load: Load, tmp_path: Path) -> None:
    contexts = tls_contexts(client_certificate=True)
    authorities, certificate = tmp_path / "ca.pem", tmp_path / "our.pem"
    authorities.write_bytes(contexts.authority_pem)
    certificate.write_bytes(contexts.client_key_pem + contexts.client_certificate_pem)

    async def main() -> Any:
        async with scripted_listener(ScriptedPeer.serve, tls=contexts.server) as listener:
            return await load("tls").main(listener.address, CT, authorities, certificate)

    assert trio.run(main).is_success


# --- nothing but these ----------------------------------------------------------------------------------------------


def test_every_example_is_run() -> None:
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(re.findall(r'load\("(\w+)"\)', here))


def test_the_pages_show_programs_by_inclusion_only() -> None:
    shown = set()
    for page in (ROOT / "docs").glob("*.rst"):
        text = page.read_text()
        assert not re.search(r"code-block:: *python|>>> |doctest", text), page.name
        shown |= set(re.findall(r"literalinclude:: examples/(\w+)\.py", text))
    assert shown == {path.stem for path in EXAMPLES.glob("*.py")}


def test_the_readme_shows_the_files_that_are_run() -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"(?:<!-- (\S+) -->\n)?```python\n(.*?)```", readme, re.DOTALL)
    assert [(name, code) for name, code in blocks] == [(name, (ROOT / name).read_text()) for name, _ in blocks]
    assert len(blocks) == 3
