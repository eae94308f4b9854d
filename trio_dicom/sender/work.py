"""Work: one input on its way to its one outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from ..errors import TrioDicomError
from ..inputs.item import Item
from ..services.storage_scu import StoreDelivery
from ..sources.source import Source
from .outcome import InstanceReport, Particulars
from .retry import History

if TYPE_CHECKING:
    from .attempt import Attempt
    from .job import Job
    from .ledger_entry import InputIdentity


class Kind(NamedTuple):
    """What decides in which presentation context an object goes."""

    sop_class_uid: str
    transfer_syntax_uid: str  # its own


NO_KIND = Kind("", "")  # as long as it is not known


@attrs.define(eq=False)
class Work:
    """See above. `order` is that of all inputs of the sender, `number` that within its job."""

    item: Item
    job: Job
    order: int
    number: int
    kind: Kind = NO_KIND
    sop_instance_uid: str = ""
    source: Source | None = None  # opened ahead
    identity: InputIdentity | None = None  # in the ledger
    held: int = 0  # bytes of memory that are booked for it
    history: History = attrs.field(factory=History)
    was_in_doubt: bool = False
    is_suspect: bool = False  # an association ended in the middle of it: it goes alone from now on
    failure: TrioDicomError | None = None  # of the last attempt
    report: InstanceReport | None = None  # should it not be tried again
    delivery: StoreDelivery | None = None  # of the last attempt, until it is settled
    attempt: Attempt | None = None  # that is being made
    followers: list[Work] = attrs.field(factory=list)  # further inputs of the same UID, which share its outcome

    @property
    def particulars(self) -> Particulars:
        """What its report says of it beside the end of the last attempt."""
        return {"number": self.number, "attempts": self.history.attempts, "was_in_doubt": self.was_in_doubt}

    def discard_source(self) -> None:
        """Let go of what was opened ahead."""
        self.item.discard()
        source, self.source = self.source, None
        if source is not None:
            source.discard()
