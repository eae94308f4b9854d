"""The receivers themselves, with DCMTK's own sender: what is read back of them is what was sent."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import examples

from interop import peers
from interop.peers import PROGRAMS, data_set_bytes, is_listening, require_peer, split_part10

pytestmark = pytest.mark.interop

Start = Callable[..., Any]


@pytest.fixture(scope="session")
def mr_file() -> Path:
    """Of 20 PDUs, and without the undefined lengths and the trailing padding that DCMTK's senders rewrite."""
    return Path(examples.get_path("overlay"))


def storescu(address: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Send `path` with DCMTK's storescu, in Explicit VR Little Endian."""
    title, host, port = re.split("[@:]", address)
    return subprocess.run(
        [require_peer("storescu"), "-v", "-R", "-xe", "-aec", title, host, port, str(path)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


@pytest.mark.parametrize("receiver", ["storescp", "orthanc", "pynetdicom_scp"])
def test_the_bytes_read_back_are_those_sent(receiver: str, mr_file: Path, request: pytest.FixtureRequest) -> None:
    peer = request.getfixturevalue(receiver)()
    sent = storescu(peer.address, mr_file)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    uid = split_part10(mr_file.read_bytes())[0][0x0003].decode()
    assert peer.received() == {uid: data_set_bytes(mr_file)}


def test_storescp_options_are_passed_on(storescp: Start, mr_file: Path) -> None:
    peer = storescp("--refuse")
    assert storescu(peer.address, mr_file).returncode != 0
    assert peer.received() == {}
    assert "Refusing" in peer.log


def test_pynetdicom_answers_with_the_statuses_in_turn(pynetdicom_scp: Start, mr_file: Path) -> None:
    peer = pynetdicom_scp(statuses=[0xA700])
    assert "Refused: OutOfResources" in storescu(peer.address, mr_file).stderr
    assert storescu(peer.address, mr_file).returncode == 0
    assert len(peer.stored) == 2


def test_pynetdicom_records_whole_pdus(pynetdicom_scp: Start, mr_file: Path) -> None:
    peer = pynetdicom_scp()
    storescu(peer.address, mr_file)
    types = [data[0] for data in peer.pdu_bytes]
    assert types[0] == 0x01  # A-ASSOCIATE-RQ
    assert types[-1] == 0x05  # A-RELEASE-RQ
    assert set(types[1:-1]) == {0x04}  # P-DATA-TF
    assert len(peer.pdus) == len(types)
    assert all(len(data) == 6 + int.from_bytes(data[2:6], "big") for data in peer.pdu_bytes)


@pytest.mark.parametrize("receiver", ["storescp", "orthanc", "pynetdicom_scp"])
def test_nothing_is_left_behind(receiver: str, tmp_path: Path) -> None:
    folder = () if receiver == "pynetdicom_scp" else (tmp_path,)
    with getattr(peers, receiver)(*folder) as peer:
        assert is_listening(peer.port)
    assert not is_listening(peer.port)


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_peer_skips_unless_it_is_required(
    required: str, outcome: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "storescp", str(tmp_path / "absent"))
    monkeypatch.setenv("TRIO_DICOM_REQUIRE_PEERS", required)
    with pytest.raises(outcome, match="absent is not installed"):
        require_peer("storescp")
