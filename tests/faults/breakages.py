"""Breakages: how each promise of docs/reliability.rst can be broken in the code, and a test that fails by it.

Where the code that one changes is not what it was, the slow tests say so: then it wants to be broken in another place.
"""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen
class Breakage:
    """Of the promise of this number: `old` in `file` of the package becomes `new`, and `test` fails."""

    promise: int
    what: str
    file: str
    old: str
    new: str
    test: str  # below tests/

    @property
    def file_of_test(self) -> str:
        return self.test.partition("::")[0]

    @property
    def name_of_test(self) -> str:
        return self.test.partition("::")[2]

    def apply(self, root: Path) -> None:
        """To the copy of the source in `root`. Raises `ValueError` if there is nothing, or too much, to replace."""
        path = root / "trio_dicom" / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} times what is to be broken: {self.old}")
        path.write_text(text.replace(self.old, self.new))


BREAKAGES = (
    Breakage(
        1,
        "a response to an unknown message ID settles the one operation in flight",
        "association/in_flight.py",
        "self._operations.get(response.message_id_being_responded_to)",
        "self._operations.get(response.message_id_being_responded_to) or next(iter(self._operations.values()), None)",
        "faults/test_faults_requestor_messages.py::test_responses_that_do_not_count",
    ),
    Breakage(
        1,
        "the SOP UIDs of a response are not compared",
        "association/in_flight.py",
        "        if answered and answered != getattr(operation.command, field, None):",
        "        if False:",
        "faults/test_faults_requestor_messages.py::test_responses_that_do_not_count",
    ),
    Breakage(
        1,
        "the presentation context of a response is not compared",
        "association/in_flight.py",
        "if context_id != operation.request.context.context_id:",
        "if False:",
        "faults/test_faults_requestor_messages.py::test_fault23_a_response_on_the_context_of_another_request",
    ),
    Breakage(
        1,
        "a success before the last PDV counts",
        "association/in_flight.py",
        "if not operation.may_be_answered and not Status(response.status).is_failure:",
        "if False:",
        "faults/test_faults_requestor_messages.py::test_success_before_the_last_pdv_is_none",
    ),
    Breakage(
        1,
        "a response without a status is a success",
        "protocol/command.py",
        "    if not layout.required <= values.keys():",
        (
            "    if field & _IS_RESPONSE:\n"
            "        values.setdefault(_STATUS, 0)\n"
            "    if not layout.required <= values.keys():"
        ),
        "protocol/test_command.py::test_fault26_a_response_without_its_essentials",
    ),
    Breakage(
        1,
        "a pending status is an answer",
        "services/storage_scu.py",
        "status.category in (StatusCategory.PENDING, StatusCategory.CANCEL)",
        "False",
        "faults/test_faults_requestor_messages.py::test_responses_that_do_not_count",
    ),
    Breakage(
        2,
        "what is left of a job that is withdrawn gets no report",
        "sender/job.py",
        "        for work in [work for work in self.unsettled if work.attempt is None]:",
        "        for work in [work for work in self.unsettled if work.attempt is None][1:]:",
        "sender/test_sender_cancel.py::test_cancelled_anywhere",
    ),
    Breakage(
        2,
        "an object that the peer had is not sent, and no longer in doubt",
        "association/operation.py",
        "return self.delivery is Delivery.HANDED_OVER or self.is_acknowledged_early",
        "return False",
        "faults/test_faults_requestor_endings.py::test_fault37_release_in_place_of_the_response",
    ),
    Breakage(
        2,
        "a later refusal takes back what was in doubt",
        "sender/register.py",
        "if report.was_in_doubt and not (",
        "if False and not (",
        "sender/test_sender_chaos.py::test_cut_when_the_last_batch_is_in_hand_is_in_doubt",
    ),
    Breakage(
        3,
        "every byte of a PDU gives it new time",
        "association/association.py",
        "elif self._watch.end_of_pdu == math.inf:",
        "else:",
        "faults/test_faults_requestor_slow.py::test_fault47_a_pdu_that_drips_when_idle",
    ),
    Breakage(
        3,
        "an operation is never overdue",
        "association/operation.py",
        "return min(since + self.timeout, self._last_moment)",
        "return math.inf",
        "faults/test_faults_requestor_slow.py::test_fault45_stalls_at_every_byte",
    ),
    Breakage(
        3,
        "who connects may be silent for ever",
        "association/acceptor.py",
        "with trio.move_on_after(timeouts.artim) as scope:",
        "with trio.move_on_after(1e9) as scope:",
        "faults/test_faults_acceptor_requests.py::test_a_peer_that_says_nothing_more",
    ),
    Breakage(
        3,
        "the rate of a message that comes is not looked at",
        "association/performing.py",
        "if size - self._mark[1] < least and not self.is_full:",
        "if False:",
        "faults/test_faults_acceptor_messages.py::test_a_data_set_that_drips",
    ),
    Breakage(
        4,
        "a declared PDU length is believed",
        "protocol/receive_buffer.py",
        ("        except InvalidPDU:\n            self._drop_everything()\n            raise"),
        ("        except InvalidPDU:\n            self._partial.extend(bytes(min(length, 1 << 28)))"),
        "protocol/test_receive_buffer.py::test_a_length_that_cannot_be_is_refused_from_the_header_alone",
    ),
    Breakage(
        4,
        "the reader never waits for a service",
        "association/performing.py",
        "return self._buffered >= MOST_BUFFERED or len(self._running) > self._most",
        "return False",
        "faults/test_faults_acceptor_services.py::test_a_slow_handler_slows_down_the_peer",
    ),
    Breakage(
        4,
        "a file is read whole",
        "sources/file.py",
        "_SMALL =",
        "_SMALL = 1 << 40 #",
        "services/test_constant_memory.py::test_a_large_object_is_sent_in_constant_memory",
    ),
    Breakage(
        5,
        "an association goes on after a message that was cut off",
        "association/association.py",
        ("            elif operation.delivery is Delivery.PARTLY_SENT:\n"),
        ("            elif False:\n"),
        "association/test_cancel_everywhere.py::test_send",
    ),
    Breakage(
        5,
        "a response that nobody asked for is let pass",
        "association/in_flight.py",
        '            raise UnexpectedMessageID(f"a response to message ID {message_id}, which is not in flight", 0, 0)',
        "            return None",
        "faults/test_faults_requestor_messages.py::test_responses_that_do_not_count",
    ),
    Breakage(
        6,
        "the file is not forced to the disk",
        "services/arriving_file.py",
        ("        if self._sync:\n            os.fsync(self._fd)\n"),
        "",
        "services/test_instance_folder_faults.py::test_a_file_that_cannot_be_written_is_never_filed",
    ),
    Breakage(
        6,
        "the folder is not forced to the disk",
        "services/arriving_file.py",
        ("            if self._sync:\n                folder.sync()\n"),
        "",
        "services/test_instance_folder_faults.py::test_success_is_not_said_before_the_folder_is_on_the_disk",
    ),
    Breakage(
        6,
        "the file has its final name from its first byte",
        "services/arriving_file.py",
        'f".arriving-{os.urandom(16).hex()}.part"',
        'f"{os.urandom(16).hex()}.dcm"',
        "services/test_instance_folder_faults.py::test_the_kth_call_fails_fault82",
    ),
    Breakage(
        6,
        "what a dead receiver left is not swept",
        "services/arriving_file.py",
        ("    removed = 0\n    with Directory"),
        ("    return 0\n    with Directory"),
        "services/test_instance_folder_sweep.py::test_what_a_killed_receiver_left_is_removed_fault78_fault116",
    ),
    Breakage(
        7,
        "an A-ABORT is sent whatever is half out",
        "association/writer.py",
        "is_at_boundary = await self._transport.finish()",
        "is_at_boundary = True",
        "association/test_cancel_everywhere.py::test_a_nursery_with_an_association_in_it",
    ),
    Breakage(
        7,
        "the same, of a stream",
        "association/transport.py",
        "        return not self._broken",
        "        return True",
        "faults/test_faults_tls_stream.py::test_fault125_nothing_follows_a_write_that_was_cancelled",
    ),
    Breakage(
        7,
        "the same, over our own TLS",
        "association/tls_transport.py",
        "        return not (self._is_unfinished or self._is_cut)",
        "        return True",
        "association/test_tls_transport.py::test_nothing_follows_a_write_that_was_cut_off",
    ),
    Breakage(
        7,
        "a cancelled receiver leaves its temporary file",
        "services/instance_folder.py",
        ("            if file.is_in_use:\n                await _discard(file)"),
        "            pass",
        "services/test_instance_folder.py::test_the_largest_object",
    ),
    Breakage(
        7,
        "the connection is not closed",
        "association/association.py",
        ("                        await self._transport.aclose()\n"),
        ("                        pass\n"),
        "association/test_association_ending.py::test_a_body_that_ends_well",
    ),
    Breakage(
        7,
        "Cancelled is swallowed",
        "association/requestor.py",
        ("        except BaseException:\n            await association.abort()\n            raise"),
        ("        except BaseException:\n            await association.abort()"),
        "association/test_association_ending.py::test_a_bodys_error_leaves_as_it_is",
    ),
    Breakage(
        8,
        "an item that runs past the end is not looked at",
        "protocol/user_information.py",
        ("        if length > end - at:\n"),
        ("        if False:\n"),
        "protocol/test_pdu.py::test_what_the_standard_does_not_have_is_refused",
    ),
    Breakage(
        8,
        "a short number in a command set is not looked at",
        "protocol/command.py",
        ("            if length != 2:\n"),
        ("            if False:\n"),
        "protocol/test_command.py::test_what_is_no_command_set",
    ),
    Breakage(
        8,
        "a UID is decoded as ASCII",
        "protocol/command.py",
        '    return raw.decode("latin-1").rstrip("\\0 ")',
        '    return raw.decode("ascii").rstrip("\\0 ")',
        "protocol/test_recorded_commands.py::test_every_mutation_of_one_byte_ends_well",
    ),
    Breakage(
        9,
        "the last two bytes of a large data set are cut off",
        "protocol/message.py",
        "    buffers[1::2] = slices",
        ("    slices[-1] = slices[-1][:-2]\n    buffers[1::2] = slices"),
        "protocol/test_message.py::test_fragments_are_the_data_in_order",
    ),
    Breakage(
        9,
        "a receiver files every MiB but the last",
        "services/instance_folder.py",
        ("                if count < _CHUNK:  # the end\n                    break"),
        (
            "                if count < _CHUNK:  # the end\n"
            "                    if size > _CHUNK:\n"
            "                        buffers = []\n"
            "                    break"
        ),
        "services/test_instance_folder.py::test_every_byte_is_filed",
    ),
    Breakage(
        10,
        "words of a peer are quoted as they are",
        "errors.py",
        '    cut = text[:limit].encode("unicode_escape").decode("ascii")',
        "    cut = text",
        "test_errors.py::test_what_it_says",
    ),
    Breakage(
        10,
        "what a handler raised is in the log",
        "association/service_request.py",
        'log.error("%s failed with %s (details at DEBUG)", type(service).__name__, type(error).__name__)',
        'log.error("%s failed with %s", type(service).__name__, error)',
        "faults/test_faults_acceptor_services.py::test_a_handler_that_fails",
    ),
)
