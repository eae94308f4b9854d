"""CStoreOptions and CStoreResponse: the defaults, the bounds, and what a status means."""

from __future__ import annotations

import math

import attrs
import pytest

from trio_dicom import CStoreOptions, CStoreResponse, Priority, Status, StatusError

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_the_defaults() -> None:
    options = CStoreOptions()
    assert options.timeout == 30.0
    assert options.max_duration == math.inf
    assert options.priority is Priority.MEDIUM
    assert options.priority == 0
    assert options.max_retries == 0
    assert options.retry_delay == 1.0
    assert options.report_progress is True


def test_options_are_kept() -> None:
    options = CStoreOptions(
        timeout=5, max_duration=60.0, priority=Priority.HIGH, max_retries=3, retry_delay=0.25, report_progress=False
    )
    assert attrs.astuple(options) == (5, 60.0, Priority.HIGH, 3, 0.25, False)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.timeout = 6  # type: ignore[misc]


def test_options_are_named() -> None:
    with pytest.raises(TypeError):
        CStoreOptions(30.0)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("timeout", "max_duration") for value in (0, -1, math.nan, True, "30", None)],
        *[("retry_delay", value) for value in (-0.001, math.inf, math.nan, True, "1", None)],
        *[("max_retries", value) for value in (-1, 1.0, True, "3", None, math.inf)],
        *[("priority", value) for value in (3, -1, "HIGH", None)],
        *[("report_progress", value) for value in (1, 0, None, "yes")],
    ],
)
def test_an_option_that_could_not_work(name: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        CStoreOptions(**{name: value})  # type: ignore[arg-type]
    if name != "priority":
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", math.inf),
        ("timeout", 0.001),
        ("timeout", 1),
        ("max_duration", 0.5),
        ("retry_delay", 0),
        ("max_retries", 1000),
        ("priority", 2),
    ],
)
def test_an_option_at_its_bound(name: str, value: float) -> None:
    assert getattr(CStoreOptions(**{name: value}), name) == value  # type: ignore[arg-type]


def test_a_priority_is_one_of_the_three() -> None:
    assert CStoreOptions(priority=1).priority is Priority.HIGH  # type: ignore[arg-type]
    assert [each.value for each in (Priority.MEDIUM, Priority.HIGH, Priority.LOW)] == [0, 1, 2]


def response(status: int, **changes: object) -> CStoreResponse:
    return CStoreResponse(status, CT, "1.2.3", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning(status: int) -> None:
    answer = response(status)
    assert (answer.is_success, answer.is_warning, answer.is_failure) == (False, True, False)
    assert answer.raise_for_status() is answer


def test_success() -> None:
    answer = response(0)
    assert (answer.is_success, answer.is_warning, answer.is_failure) == (True, False, False)
    assert answer.raise_for_status() is answer


FAILURES = [0xA700, 0xA7FF, 0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0110, 0x0111, 0x0117, 0x0122, 0x0124, 0x0210, 0x0211]
FAILURES += [0x0212, 0x0213]
NOT_LISTED = [0x0001, 0x0107, 0x0116, 0x1234, 0xB001, 0xBFFF, 0xFE00, 0xFF00, 0xFF01, 0xFFFF]


@pytest.mark.parametrize("status", FAILURES + NOT_LISTED, ids=hex)
def test_all_else_is_a_failure(status: int) -> None:
    answer = response(status)
    assert (answer.is_success, answer.is_warning, answer.is_failure) == (False, False, True)
    with pytest.raises(StatusError, match=f"0x{status:04X}") as caught:
        answer.raise_for_status()
    assert caught.value.response is answer


def test_what_a_response_holds() -> None:
    answer = response(0xA700, error_comment="disk full", attempts=3, bytes_sent=12, elapsed=1.5)
    assert isinstance(answer.status, Status)
    assert answer.status == 0xA700
    assert answer.sop_class_uid == CT
    assert answer.sop_instance_uid == "1.2.3"
    assert answer.error_comment == "disk full"
    assert (answer.attempts, answer.bytes_sent, answer.elapsed) == (3, 12, 1.5)


def test_a_peers_comment_is_not_in_the_error() -> None:
    with pytest.raises(StatusError) as caught:
        response(0xC000, error_comment="\x1b[31mDOE^JOHN").raise_for_status()
    assert "DOE" not in str(caught.value)
