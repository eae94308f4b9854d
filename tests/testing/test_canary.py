"""The canary that watches all tests does sing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from support import canary
from trio_dicom import InvalidObject, TLSError
from trio_dicom.testing import make_instance

PATIENT = make_instance()
NAME, NUMBER = str(PATIENT.PatientName), str(PATIENT.PatientID)


def sings(what: str) -> pytest.RaisesExc[AssertionError]:
    return pytest.raises(AssertionError, match=f"the patient was seen in {what}")


@pytest.mark.parametrize("text", [NAME, NUMBER, NAME.lower(), "CANARY%5EPHI", f"path/{NUMBER}.dcm"])
@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR], ids=logging.getLevelName)
def test_a_record(level: int, text: str) -> None:
    with sings("a record of trio_dicom.some.where"), canary.watched():
        logging.getLogger("trio_dicom.some.where").log(level, "filed %s", text)
    with sings("a record of trio_dicom.x"), canary.watched():
        logging.getLogger("trio_dicom.x").log(level, "fine", extra={"field": text})


def test_an_exception() -> None:
    with sings("InvalidObject: "), canary.watched():
        InvalidObject(f"a value that is not valid: {NAME}", "file.dcm")
    with sings("TLSError: "), canary.watched():
        TLSError(peer="A@h:1", reason=NUMBER)


def test_the_name_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "below" / f".arriving-{NUMBER}"
    file.parent.mkdir()
    with sings("the name of a file: .*below"), canary.watched(tmp_path):
        file.touch()
    with canary.watched(tmp_path, names=False):
        pass
    file.unlink()


def test_what_may_be_said() -> None:
    with canary.watched():
        logging.getLogger("trio_dicom.x").debug("a value: %s", NAME)
        logging.getLogger("elsewhere").warning("a value: %s", NAME)
        InvalidObject("canary, and phi", "file.dcm")
