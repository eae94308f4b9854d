"""The page about conversions: its programs run, its tables are those of the code."""

from __future__ import annotations

import importlib
import io
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
import trio
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from conversion.codec_samples import require, samples
from interop.peers import PynetdicomSCP, pynetdicom_scp
from sources.source_helpers import EXPLICIT, SHIPPED, data_set, meta
from trio_dicom.conversion import codec_process
from trio_dicom.conversion.transcoding import CAN_BE_MADE
from trio_dicom.testing import SOPClass, file_bytes, make_instance
from trio_dicom.uids import NATIVE_LITTLE_ENDIAN

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "converting.rst").read_text()

CANARY = "Canary"
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """The example of that name, as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def instance(number: int, **elements: object) -> Dataset:
    """An object that names a patient wherever the program looks."""
    dataset = make_instance(
        SOPClass.CT,
        number=number,
        PatientName=f"{CANARY}^Yellow",
        PatientID=f"{CANARY}-17",
        PatientBirthDate="19700102",
        InstitutionName=f"{CANARY} Hospital",
        ReferringPhysicianName=f"Dr^{CANARY}",
        AccessionNumber=f"{CANARY}1",
        PatientComments=CANARY,
        **elements,
    )
    dataset.private_block(0x0011, "TRIO DICOM", create=True).add_new(0x01, "LO", CANARY)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    item.PatientName = f"{CANARY}^Nested"
    dataset.ReferencedImageSequence = Sequence([item])
    return dataset


def stored(peer: PynetdicomSCP) -> list[Dataset]:
    return [pydicom.dcmread(io.BytesIO(meta(EXPLICIT, SOPClass.CT, uid) + data)) for uid, data in sorted(peer.stored)]


def test_anonymise(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = [instance(1), instance(2), instance(3, BurnedInAnnotation="YES")]
    for number, dataset in enumerate(study, 1):
        (tmp_path / f"{number}.dcm").write_bytes(file_bytes(dataset))
    peers = []
    for _ in range(2):
        with pynetdicom_scp() as peer:
            report = trio.run(load("anonymise").main, peer.address, str(tmp_path), "a long secret")
        assert (report.inputs, report.delivered) == (3, 2)
        peers.append(stored(peer))
    first, second = peers
    assert first == second  # sent again, the objects are the same
    for dataset, number in zip(first, (1, 2), strict=True):
        assert dataset.SOPClassUID == SOPClass.CT
        assert dataset.ReferencedImageSequence[0].ReferencedSOPClassUID == SOPClass.CT
        assert dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.PixelData in {each.PixelData for each in study}, number
        theirs = {str(uid) for each in study for uid in (each.SOPInstanceUID, each.StudyInstanceUID)}
        assert not theirs & {dataset.SOPInstanceUID, dataset.StudyInstanceUID}
    assert len({each.StudyInstanceUID for each in first}) == len({each.PatientID for each in first}) == 1
    assert len({each.SOPInstanceUID for each in first}) == 2
    said = capsys.readouterr().out.splitlines()
    assert said == 2 * [f"{tmp_path}/3.dcm: invalid, transform failed with ValueError"]


def test_nothing_that_was_to_go_is_anywhere_in_what_is_sent(load: Load, tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(file_bytes(instance(1)))
    with pynetdicom_scp() as peer:
        trio.run(load("anonymise").main, peer.address, str(tmp_path), "a long secret")
    ((_, data),) = peer.stored
    assert CANARY.encode() not in data
    assert CANARY.upper().encode() not in data
    assert b"19700102" not in data


def test_send_native(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("1.2.840.10008.1.2.4.90")
    for name in ("MR_small_jp2klossless.dcm", "CT_small.dcm", "test-SR.dcm"):
        (tmp_path / name).symlink_to(SHIPPED / name)
    (tmp_path / "damaged.dcm").write_bytes(meta("1.2.840.10008.1.2.4.90") + data_set())
    supported = {f"1.2.840.10008.5.1.4.1.1.{number}": [*NATIVE_LITTLE_ENDIAN] for number in ("2", "4", "88.33")}
    with pynetdicom_scp(supported=supported) as peer:
        report = trio.run(load("send_native").main, peer.address, str(tmp_path))
    assert (report.inputs, report.delivered) == (4, 3)
    image = pydicom.dcmread(SHIPPED / "MR_small_jp2klossless.dcm")
    received = peer.received()[image.SOPInstanceUID]
    after = pydicom.dcmread(io.BytesIO(meta(EXPLICIT) + received))
    assert (samples(after) == samples(image)).all()
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {path.rpartition("/")[2]: text.split()[0] for path, text in said.items()} == {
        "MR_small_jp2klossless.dcm": "stored",
        "CT_small.dcm": "stored",
        "test-SR.dcm": "stored",
        "damaged.dcm": "invalid",
    }


def test_what_can_be_made_is_in_the_table() -> None:
    _, _, table = PAGE.partition("Transfer syntax                              UID\n")
    assert set(re.findall(r" (1\.2\.840[0-9.]*)$", table, re.MULTILINE)) == {*NATIVE_LITTLE_ENDIAN, *CAN_BE_MADE}


def test_the_time_for_a_frame_is_that_of_the_code() -> None:
    assert f"takes longer than {codec_process.FRAME:g} s is given up" in PAGE.replace("\n", " ")


def test_the_extra_is_there_and_is_tested() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "pip install 'trio-dicom[transcode]'" in PAGE
    assert any("transcode" in requirement for requirement in extras["test"])
    assert not any("libjpeg" in name.removeprefix("pylibjpeg") for name in extras["transcode"])
