"""An outside check: the command sets that pynetdicom recorded for its own tests."""

from __future__ import annotations

import pytest
from pynetdicom.tests import encoded_dimse_msg, encoded_dimse_n_msg

from trio_dicom.errors import DIMSEDecodeError, InvalidResponse
from trio_dicom.protocol.command import CommandField, decode_command, encode_command

# Each begins with the control header of its PDV, which is not part of the command set.
RECORDED = {
    name: value[1:]
    for module in (encoded_dimse_msg, encoded_dimse_n_msg)
    for name, value in vars(module).items()
    if "_cmd" in name and isinstance(value, bytes)
}

# Recorded with a value where the standard has one number: refused.
WRONG = {"c_move_rsp_cmd_with_dup": "two values of Number of Remaining Sub-operations"}

# Decoded, but written by us in another way.
NOT_CANONICAL = {"n_create_rq_cmd_empty": "an Affected SOP Instance UID of no length, which says as much as none"}


def test_there_are_enough() -> None:
    assert len(RECORDED) >= 25
    assert {*WRONG, *NOT_CANONICAL} < RECORDED.keys()


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - WRONG.keys()))
def test_decoding_and_encoding_again(name: str) -> None:
    data = RECORDED[name]
    command = decode_command(data)
    stem = name.split("_cmd")[0].replace("n_er", "n_event_report").upper()
    assert command.command_field is CommandField[stem]
    encoded = encode_command(command)
    if name in NOT_CANONICAL:
        assert encoded != data
        assert decode_command(encoded) == command
    else:
        assert encoded == data


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong_on_purpose(name: str) -> None:
    with pytest.raises(DIMSEDecodeError, match="instead of 2"):
        decode_command(RECORDED[name])


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_truncation_is_refused(name: str) -> None:
    data = RECORDED[name]
    whole = set()
    answers = set()
    for length in range(len(data)):
        try:
            decode_command(data[:length])
        except (DIMSEDecodeError, InvalidResponse) as error:
            answers.add((error.abort_source, error.abort_reason))
        else:
            whole.add(length)
    assert answers == {(2, 6)}
    # What remains is whole only at the end of an element, with nothing of importance behind it.
    assert whole <= element_ends(data)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_mutation_of_one_byte_ends_well(name: str) -> None:
    data = bytearray(RECORDED[name])
    refused = 0
    for position, original in enumerate(data):
        for value in range(256):
            data[position] = value
            try:
                decode_command(bytes(data))
            except (DIMSEDecodeError, InvalidResponse):
                refused += 1
        data[position] = original
    assert refused > 0


def element_ends(data: bytes) -> set[int]:
    ends = set()
    position = 0
    while position + 8 <= len(data):
        position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        ends.add(position)
    return ends
