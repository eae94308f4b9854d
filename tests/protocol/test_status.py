"""Status: classes of PS3.7 annex C, and what counts as stored by PS3.4 B.2.3."""

from __future__ import annotations

import pytest

from trio_dicom.errors import Retry
from trio_dicom.protocol import status as module
from trio_dicom.protocol.status import Status, StatusCategory


@pytest.mark.parametrize(
    ("code", "category", "meaning"),
    [
        (0x0000, "success", "Success"),
        (0x0001, "warning", "Warning: Requested Optional Attributes Not Supported"),
        (0x0105, "failure", "No Such Attribute"),
        (0x0106, "failure", "Invalid Attribute Value"),
        (0x0107, "warning", "Warning: Attribute List Error"),
        (0x0110, "failure", "Processing Failure"),
        (0x0111, "failure", "Duplicate SOP Instance"),
        (0x0112, "failure", "No Such SOP Instance"),
        (0x0113, "failure", "No Such Event Type"),
        (0x0114, "failure", "No Such Argument"),
        (0x0115, "failure", "Invalid Argument Value"),
        (0x0116, "warning", "Warning: Attribute Value Out of Range"),
        (0x0117, "failure", "Invalid Object Instance"),
        (0x0118, "failure", "No Such SOP Class"),
        (0x0119, "failure", "Class-Instance Conflict"),
        (0x0120, "failure", "Missing Attribute"),
        (0x0121, "failure", "Missing Attribute Value"),
        (0x0122, "failure", "Refused: SOP Class Not Supported"),
        (0x0123, "failure", "No Such Action"),
        (0x0124, "failure", "Refused: Not Authorized"),
        (0x0199, "failure", "Failure, not listed for the service"),
        (0x0210, "failure", "Duplicate Invocation"),
        (0x0211, "failure", "Unrecognized Operation"),
        (0x0212, "failure", "Mistyped Argument"),
        (0x0213, "failure", "Resource Limitation"),
        (0x0214, "failure", "Refused: Not Authorized"),
        (0x02FF, "failure", "Failure, not listed for the service"),
        (0x0300, "unknown", "Unknown, not listed for the service"),
        (0x1234, "unknown", "Unknown, not listed for the service"),
        (0xA6FF, "failure", "Failure, not listed for the service"),
        (0xA700, "failure", "Refused: Out of Resources"),
        (0xA7FF, "failure", "Refused: Out of Resources"),
        (0xA800, "failure", "Failure, not listed for the service"),
        (0xA900, "failure", "Error: Data Set Does Not Match SOP Class"),
        (0xA9FF, "failure", "Error: Data Set Does Not Match SOP Class"),
        (0xB000, "warning", "Warning: Coercion of Data Elements"),
        (0xB001, "warning", "Warning, not listed for the service"),
        (0xB006, "warning", "Warning: Elements Discarded"),
        (0xB007, "warning", "Warning: Data Set Does Not Match SOP Class"),
        (0xC000, "failure", "Error: Cannot Understand"),
        (0xCFFF, "failure", "Error: Cannot Understand"),
        (0xD000, "unknown", "Unknown, not listed for the service"),
        (0xFE00, "cancel", "Cancel"),
        (0xFF00, "pending", "Pending"),
        (0xFF01, "pending", "Pending: Optional Keys Not Supported"),
        (0xFF02, "unknown", "Unknown, not listed for the service"),
        (0xFFFF, "unknown", "Unknown, not listed for the service"),
    ],
)
def test_category_and_meaning(code: int, category: str, meaning: str) -> None:
    assert Status(code).category is StatusCategory(category)
    assert Status(code).meaning == meaning


# fault 33, 34: nothing counts as stored but what PS3.4 lists.
@pytest.mark.fault_row(34)
def test_exactly_four_codes_of_all_count_as_stored() -> None:
    statuses = [Status(code) for code in range(0x10000)]
    assert [int(status) for status in statuses if status.is_success] == [0x0000]
    assert [int(status) for status in statuses if status.is_warning] == [0xB000, 0xB006, 0xB007]
    assert sum(status.is_failure for status in statuses) == 0x10000 - 4


def test_it_is_an_int_that_shows_itself() -> None:
    status = Status(0xA700)
    assert status == 0xA700
    assert f"{status:04X}" == "A700"
    assert hash(status) == hash(0xA700)
    assert repr(status) == "Status(0xA700, 'Refused: Out of Resources')"


@pytest.mark.parametrize("code", [-1, 0x10000])
def test_a_status_has_16_bits(code: int) -> None:
    with pytest.raises(ValueError, match="0 to 65,535"):
        Status(code)


@pytest.mark.parametrize(
    ("code", "retry"),
    [
        (0x0000, Retry.NEVER),
        (0xA700, Retry.LATER),
        (0xA7FF, Retry.LATER),
        (0xA900, Retry.NEVER),
        (0xC000, Retry.NEVER),
        (0x0110, Retry.LATER),
        (0x0111, Retry.NEVER),
        (0x0122, Retry.AFTER_CONFIG),
        (0x0124, Retry.AFTER_CONFIG),
        (0x0210, Retry.NEW_ASSOCIATION),
        (0x0213, Retry.LATER),
        (0x0214, Retry.AFTER_CONFIG),
        (0x1234, Retry.NEVER),
    ],
    ids=lambda value: f"{value:04X}" if isinstance(value, int) else value.name,
)
def test_when_to_try_again(code: int, retry: Retry) -> None:
    assert Status(code).retry is retry


def test_no_other_code_is_worth_another_attempt() -> None:
    again = {code for code in range(0x10000) if Status(code).retry is not Retry.NEVER}
    configured = {0x0112, 0x0118, 0x0122, 0x0124, 0x0214}
    assert again == {0x0110, 0x0210, 0x0213, *configured, *range(0xA700, 0xA800)}
    assert all(Status(code).retry is Retry.AFTER_CONFIG for code in configured)


def test_what_this_library_answers_means_what_it_is_called() -> None:
    answers = {name: status for name, status in vars(module).items() if isinstance(status, Status)}
    assert answers
    for name, status in answers.items():
        assert name in status.meaning.upper().replace(" ", "_")
        assert status < 0x1000 or status & 0xFF == 0  # of a range, its first
