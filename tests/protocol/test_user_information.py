"""Sub-items of User Information: what is written is read again, and what has no meaning is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_dicom.errors import InvalidPDU
from trio_dicom.protocol import user_information as ui
from trio_dicom.settings import Limits

LIMITS = Limits()
SOP_CLASS = "1.2.840.10008.5.1.4.1.1.2"

uids = st.lists(st.integers(0, 10**6), min_size=1, max_size=8).map(lambda parts: ".".join(map(str, parts)))
small_bytes = st.binary(max_size=20)
uint16 = st.integers(0, 0xFFFF)

ITEMS = (
    st.builds(ui.MaximumLength, st.integers(0, 0xFFFFFFFF)),
    st.builds(ui.ImplementationClassUID, uids),
    st.builds(ui.AsynchronousOperationsWindow, uint16, uint16),
    st.builds(ui.RoleSelection, uids, st.booleans(), st.booleans()),
    st.builds(ui.ImplementationVersionName, st.text("abcXYZ_. 09\xe9", max_size=16).map(str.rstrip)),
    st.builds(ui.SOPClassExtendedNegotiation, uids, small_bytes),
    st.builds(ui.SOPClassCommonExtendedNegotiation, uids, uids, st.lists(uids, max_size=3).map(tuple)),
    st.builds(ui.UserIdentityRQ, st.integers(0, 255), st.booleans(), small_bytes, small_bytes),
    st.builds(ui.UserIdentityAC, small_bytes),
    st.builds(ui.UnknownItem, st.integers(0, 255).filter(lambda number: not 0x51 <= number <= 0x59), small_bytes),
)


def decode(*items: bytes) -> tuple[ui.UserItem, ...]:
    return ui.decode_user_items(memoryview(b"".join(items)), LIMITS)


@given(st.lists(st.sampled_from(ITEMS), unique=True).flatmap(lambda chosen: st.tuples(*chosen)))
def test_items_come_back_as_they_were_written(items: tuple[ui.UserItem, ...]) -> None:
    assert decode(*(item.encode() for item in items)) == items


@given(st.lists(st.one_of(ITEMS[3], ITEMS[5], ITEMS[6], ITEMS[9]), max_size=6))
def test_items_by_sop_class_and_unknown_ones_may_be_many(items: list[ui.UserItem]) -> None:
    assert list(decode(*(item.encode() for item in items))) == items


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        (ui.MaximumLength(16384), "51000004 00004000"),
        (ui.ImplementationClassUID("1.2.3"), "52000005 312e322e33"),
        (ui.AsynchronousOperationsWindow(8, 1), "53000004 0008 0001"),
        (ui.RoleSelection("1.2", scu=False, scp=True), "54000007 0003 312e32 00 01"),
        (ui.ImplementationVersionName("AB"), "55000002 4142"),
        (ui.SOPClassExtendedNegotiation("1.2", b"\1\0"), "56000007 0003 312e32 0100"),
        (
            ui.SOPClassCommonExtendedNegotiation("1.2", "1.3", ("1.4",)),
            "57000011 0003312e32 0003312e33 0005 0003312e34",
        ),
        (ui.UserIdentityRQ(2, True, b"me", b"pw"), "5800000a 02 01 0002 6d65 0002 7077"),
        (ui.UserIdentityAC(b"ok"), "59000004 0002 6f6b"),
        (ui.UnknownItem(0x5A, b"\xff"), "5a000001 ff"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_items_look_on_the_wire_as_the_standard_draws_them(item: ui.UserItem, encoded: str) -> None:
    assert item.encode() == bytes.fromhex(encoded)


def test_no_items() -> None:
    assert decode() == ()


@pytest.mark.parametrize("padding", [b"\0", b" "])
def test_padding_is_no_part_of_a_uid_or_a_name(padding: bytes) -> None:
    items = decode(ui.encode_item(0x52, b"1.2.3" + padding), ui.encode_item(0x55, b"NAME" + padding))
    assert items == (ui.ImplementationClassUID("1.2.3"), ui.ImplementationVersionName("NAME"))


def test_reserved_bytes_are_not_tested() -> None:
    assert decode(b"\x51\xff\x00\x04\x00\x00\x40\x00") == (ui.MaximumLength(16384),)


def test_later_versions_may_append_to_common_extended_negotiation() -> None:
    item = ui.SOPClassCommonExtendedNegotiation("1.2", "1.3")
    assert decode(ui.encode_item(0x57, item.encode()[4:] + b"more")) == (item,)


@pytest.mark.fault_row(14)
@pytest.mark.parametrize(
    ("item_type", "value"),
    [
        pytest.param(0x51, "000040", id="length-too-short"),
        pytest.param(0x51, "0000400000", id="length-too-long"),
        pytest.param(0x52, "", id="fault14-empty-uid"),
        pytest.param(0x52, "31" * 65, id="fault14-65-characters"),
        pytest.param(0x52, "312e32c2b2", id="fault14-not-ascii"),
        pytest.param(0x52, "312e0032", id="nul-inside-uid"),
        pytest.param(0x53, "0001", id="window-too-short"),
        pytest.param(0x53, "000100010001", id="window-too-long"),
        pytest.param(0x54, "", id="role-empty"),
        pytest.param(0x54, "00", id="role-half-a-count"),
        pytest.param(0x54, "0004312e3200", id="fault14-role-uid-past-the-end"),
        pytest.param(0x54, "0003312e3200", id="role-without-scp"),
        pytest.param(0x54, "0003312e32000000", id="role-with-more"),
        pytest.param(0x54, "0003312e320200", id="scu-role-2"),
        pytest.param(0x54, "0003312e3200ff", id="scp-role-255"),
        pytest.param(0x54, "00000000", id="role-without-uid"),
        pytest.param(0x56, "ffff312e32", id="extended-uid-past-the-end"),
        pytest.param(0x56, "000158", id="extended-uid-is-none"),
        pytest.param(0x57, "0003312e32", id="common-without-service-class"),
        pytest.param(0x57, "0003312e320003312e33", id="common-without-related"),
        pytest.param(0x57, "0003312e320003312e33000400053132", id="common-related-past-the-end"),
        pytest.param(0x57, "0003312e320003312e330003000158", id="common-related-is-none"),
        pytest.param(0x57, "0001580003312e330000", id="common-class-is-none"),
        pytest.param(0x57, "0003312e320001580000", id="common-service-class-is-none"),
        pytest.param(0x58, "", id="identity-empty"),
        pytest.param(0x58, "01", id="identity-of-a-byte"),
        pytest.param(0x58, "01000005414243", id="identity-past-the-end"),
        pytest.param(0x58, "010000034142430000ff", id="identity-with-more"),
        pytest.param(0x58, "010200000000", id="positive-response-2"),
        pytest.param(0x59, "", id="response-empty"),
        pytest.param(0x59, "000541", id="response-past-the-end"),
        pytest.param(0x59, "00014142", id="response-with-more"),
    ],
)
def test_what_has_no_meaning_is_refused(item_type: int, value: str) -> None:
    with pytest.raises(InvalidPDU) as caught:
        decode(ui.encode_item(item_type, bytes.fromhex(value)))
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)


@pytest.mark.parametrize(
    ("item_type", "value", "counts"),
    [
        (0x51, "0000400000", "ends with 5 bytes where there are 4 to be"),
        (0x54, "0003312e320200", "an SCU role is 2, neither 0 nor 1"),
        (0x56, "ffff312e32", "declares 65535 bytes where 3 are left"),
        (0x58, "010000034142430000ff", "ends with 1 bytes where there are 0 to be"),
    ],
)
def test_what_is_refused_is_counted_right(item_type: int, value: str, counts: str) -> None:
    with pytest.raises(InvalidPDU, match=counts):
        decode(ui.encode_item(item_type, bytes.fromhex(value)))


@pytest.mark.fault_row(14)
@pytest.mark.parametrize("left_over", ["51", "5100", "510000", "51000004", "510000040000 40", "5100ffff"])
def test_fault14_an_item_that_runs_past_the_end_is_refused(left_over: str) -> None:
    with pytest.raises(InvalidPDU):
        decode(ui.AsynchronousOperationsWindow(1, 1).encode(), bytes.fromhex(left_over))


@pytest.mark.fault_row(70)
@pytest.mark.parametrize(
    "item",
    [
        ui.MaximumLength(0),
        ui.ImplementationClassUID("1.2"),
        ui.AsynchronousOperationsWindow(1, 1),
        ui.ImplementationVersionName("x"),
        ui.UserIdentityRQ(1, False, b""),
        ui.UserIdentityAC(b""),
    ],
    ids=lambda item: f"fault70-{type(item).__name__}",
)
def test_a_second_item_of_a_single_kind_is_refused(item: ui.UserItem) -> None:
    other = ui.UnknownItem(0x5A, b"")
    with pytest.raises(InvalidPDU, match=f"{item.item_type:02X}H is there twice"):
        decode(item.encode(), other.encode(), item.encode())


def test_the_number_of_items_is_limited() -> None:
    item = ui.UnknownItem(0x5A, b"").encode()
    limits = Limits(user_items=3)
    assert len(ui.decode_user_items(memoryview(item * 3), limits)) == 3
    with pytest.raises(InvalidPDU, match="more than 3"):
        ui.decode_user_items(memoryview(item * 4), limits)


def test_what_does_not_fit_is_not_written() -> None:
    assert len(ui.UnknownItem(0x5A, bytes(0xFFFF)).encode()) == 4 + 0xFFFF
    with pytest.raises(ValueError, match="65536 bytes do not fit into item 5AH"):
        ui.UnknownItem(0x5A, bytes(0x10000)).encode()
    with pytest.raises(ValueError, match="65536 bytes do not fit into a field"):
        ui.UserIdentityAC(bytes(0x10000)).encode()


@pytest.mark.parametrize(
    "item",
    [ui.UserIdentityRQ(2, True, b"SECRET", b"SECRET"), ui.UserIdentityAC(b"SECRET"), ui.UnknownItem(0x5A, b"SECRET")],
)
def test_secrets_do_not_show(item: ui.UserItem) -> None:
    assert "SECRET" not in f"{item!r} {item}"


def test_a_peers_words_are_escaped_in_errors() -> None:
    with pytest.raises(InvalidPDU) as caught:
        decode(ui.encode_item(0x52, b"\x1b[31m\nfake log line" + b"A" * 1000))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200
