"""`trio-dicom demo`: real objects to a receiver on this machine, and what it made of them."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import trio
from rich.table import Table
from rich.text import Text

from ..association.acceptor import AssociationServer, serve_associations
from ..association.association import Association
from ..association.requestor import open_association
from ..errors import InvalidObject, TrioDicomError
from ..peer import Peer
from ..protocol.status import Status
from ..sender.outcome import InstanceReport, Outcome, report_of_failure, report_of_response
from ..services.instance import Instance, StoreReply
from ..services.instance_folder import InstanceFolder, StoredInstance
from ..services.storage_scp import StorageSCP
from ..services.storage_scu import CStoreOptions, StoreDelivery
from ..sources.contexts import contexts_of
from ..sources.file import read_head
from ..sources.part10 import Head
from .console import console
from .display import print_line
from .exit_codes import ExitCode
from .signals import cancel_on_signals
from .transfer_display import is_news, line_of
from .wording import duration, plural, size_of, spelled

NUMBERS_WIDTH = 40  # columns of the table that are not for names, the lines of it included


@attrs.define
class Sample:
    """A file, and what the receiver made of it."""

    path: Path
    head: Head
    status: Status | None = None
    agrees: bool = False

    @property
    def size(self) -> int:
        """Bytes of the data set."""
        return self.path.stat().st_size - self.head.data_set_offset

    def compare(self, stored: StoredInstance) -> None:
        """The data set on the receiver's disk is that of the file, and has its name and transfer syntax."""
        head = self.head
        self.agrees = (
            stored.path is not None
            and stored.path.read_bytes()[stored.data_set_offset :] == self._data_set()
            and (stored.sop_class_uid, stored.sop_instance_uid, stored.transfer_syntax_uid)
            == (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid)
        )

    def _data_set(self) -> bytes:
        return self.path.read_bytes()[self.head.data_set_offset :]


class Receiver:
    """Files in a folder, and knows what it filed last."""

    def __init__(self, folder: Path) -> None:
        self.last: StoredInstance | None = None
        self._folder = InstanceFolder(folder, sync=False)

    async def store(self, instance: Instance) -> StoreReply:
        """A handler."""
        self.last = stored = await self._folder.store(instance)
        return StoreReply(stored.status, stored.error_comment)


def run_demo() -> int:
    """The whole of it; gives the exit code."""
    folder = samples_folder()
    samples, left_out = find_samples(folder)
    if not samples:
        print(f"trio-dicom: pydicom has no sample objects in {folder}", file=sys.stderr)
        return ExitCode.NO_INPUT
    return trio.run(_demo, folder, samples, left_out)


def samples_folder() -> Path:
    """Where the pydicom package keeps the files of its own tests; pydicom is not imported for that."""
    spec = importlib.util.find_spec("pydicom")
    (home, *_) = (spec and spec.submodule_search_locations) or ("",)
    return Path(home, "data", "test_files")


def find_samples(folder: Path) -> tuple[list[Sample], int]:
    """The objects below `folder` that can be sent, and how many other files there are."""
    samples, left_out = [], 0
    for path in sorted(Path(base, name) for base, _, names in os.walk(folder) for name in names):
        try:
            samples.append(Sample(path, read_head(path)))
        except InvalidObject:
            left_out += 1
    return samples, left_out


async def _demo(folder: Path, samples: Sequence[Sample], left_out: int) -> int:
    async with cancel_on_signals() as signals:
        with tempfile.TemporaryDirectory(prefix="trio-dicom-demo-") as temporary:
            receiver = Receiver(Path(temporary))
            async with trio.open_nursery() as nursery:
                scp = StorageSCP(receiver.store, accept_private=True)
                server: AssociationServer = await nursery.start(serve_associations, scp, 0)
                await _send(samples, receiver, Peer("DEMO", "127.0.0.1", server.port))
                nursery.cancel_scope.cancel()
        agreeing = _show(folder, samples)
        objects = f"{agreeing} of {len(samples)} objects were stored, and their bytes agree"
        kinds = f"{_distinct(each.head.sop_class_uid for each in samples)} SOP classes"
        syntaxes = f"{_distinct(each.head.transfer_syntax_uid for each in samples)} transfer syntaxes"
        others = f"{left_out} other files of pydicom were left out, for they are no objects that can be sent"
        console().print(Text(f"{objects}: {kinds}, {syntaxes} ({others})."))
        return ExitCode.OK if agreeing == len(samples) else ExitCode.NOT_STORED
    return signals.exit_code


def _distinct(uids: Iterable[str]) -> int:
    return len(set(uids))


async def _send(samples: Sequence[Sample], receiver: Receiver, peer: Peer) -> None:
    contexts = contexts_of((each.head.sop_class_uid, each.head.transfer_syntax_uid) for each in samples)
    start, reports = trio.current_time(), []
    try:
        async with open_association(peer, contexts) as association:
            for each in samples:
                reports.append(await _send_one(association, each, receiver))
    except TrioDicomError as error:
        print_line(f"trio-dicom: {error}", to_errors=True)
    outcomes = Counter(report.outcome for report in reports)
    counts = ", ".join(f"{count} {spelled(outcome)}" for outcome, count in outcomes.items())
    size = sum(report.bytes_sent for report in reports if report.outcome.is_stored)
    print_line(
        f"{plural(len(samples), 'object')}: {counts}; {size_of(size)} in {duration(trio.current_time() - start)}"
    )


async def _send_one(association: Association, sample: Sample, receiver: Receiver) -> InstanceReport:
    name = str(sample.path)
    delivery = StoreDelivery(association, CStoreOptions(), name)
    try:
        response = await delivery.run()
    except TrioDicomError as error:
        report = report_of_failure(name, delivery, error)
    else:
        report = report_of_response(name, delivery, response)
        sample.status = response.status
        if report.outcome is Outcome.STORED and receiver.last is not None:  # one association, one object at a time
            await trio.to_thread.run_sync(sample.compare, receiver.last)
    if is_news(report):
        print_line(line_of(report), to_errors=True)
    return report


def _show(folder: Path, samples: Sequence[Sample]) -> int:
    """Print what was stored, a line for each SOP class; how many agree."""
    from pydicom.uid import UID

    output = console()
    table = Table()
    for name in ("SOP class", "Transfer syntaxes"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=(output.width - NUMBERS_WIDTH) // 2)
    for name in ("Objects", "Bytes", "Agree"):
        table.add_column(name, justify="right", no_wrap=True)
    for uid, group in itertools.groupby(sorted(samples, key=_sop_class), _sop_class):
        same = list(group)
        syntaxes = [UID(uid).name for uid in sorted({each.head.transfer_syntax_uid for each in same})]
        agreeing = sum(each.agrees for each in same)
        table.add_row(
            Text(UID(uid).name),
            Text(syntaxes[0] if len(syntaxes) == 1 else f"{len(syntaxes)} different"),
            str(len(same)),
            f"{sum(each.size for each in same):,}",
            Text(str(agreeing), "green" if agreeing == len(same) else "bold red"),
        )
    output.print(table)
    for each in samples:
        if not each.agrees:
            status = "no answer" if each.status is None else f"status {each.status:04X}"
            output.print(Text(f"does NOT agree: {each.path.relative_to(folder)} ({status})", "bold red"))
    return sum(each.agrees for each in samples)


def _sop_class(sample: Sample) -> str:
    return sample.head.sop_class_uid
