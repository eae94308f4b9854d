"""What is compared with what: the contests, by name."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from .goals import AtLeast, AtMost, Goal, Measure
from .receivers import Receiver, Storing

CT, TINY, BIG = 1000, 2000, 1024  # objects; of big, MiB of the one
FEW = {"ct": 40, "tiny": 200, "big": 32}
DELAYED = 20  # objects, where each waits for 40 ms
MANY_TIMES = 50  # the tiny ones, for 100,000


class Clock(enum.Enum):
    WHOLE = "whole process"  # from its start to its end
    OWN = "its own"  # as it prints, without its start


@attrs.frozen
class Contestant:
    """A sender, or in a contest of receivers a receiver. {Words} of its command are the `Workshop`'s or the run's."""

    name: str
    command: tuple[str, ...]
    clock: Clock = Clock.WHOLE
    variables: Mapping[str, str] = {}
    objects: int | None = None  # that it is given, if fewer than the others are
    times: int = 1  # that it sends them
    rehearsed: int = 0  # objects that it sends before the clock starts
    encodes_anew: bool = False  # so the sink may count other bytes than the files have

    @property
    def needs(self) -> str:
        return self.command[0]


@attrs.frozen
class Contest:
    """Contestants that do the same, in turn. In one of receivers they have `receiver` None, and C sends."""

    name: str
    title: str
    kind: str  # of the corpus
    count: int
    receiver: Receiver | None
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...] = ()
    most_runs: int | None = None

    @property
    def heading(self) -> str:
        """The title, with what is known of the receiver."""
        return f"{self.title}. Receiver: {self.receiver.note}" if self.receiver else self.title


# --- receivers --------------------------------------------------------------------------------------------------------

STORESCP = ("{storescp}", "--ignore", "{port}")
NO_NAGLE = {"TCP_NODELAY": "1"}
SINK_TLS = Receiver(("{sink}", "-t", "{certificate}"), Storing.COUNTED, note="sink, 16 KiB PDUs, TLS 1.3, no Nagle")
STORESCP_AS_INSTALLED = Receiver(
    STORESCP, Storing.THROWN_AWAY, note="storescp as installed (Nagle on), which throws away"
)
STORESCP_NO_NAGLE = Receiver(
    STORESCP, Storing.THROWN_AWAY, NO_NAGLE, note="storescp with TCP_NODELAY=1, which throws away"
)
LIMITS = {"16k": (16384, "16 KiB"), "128k": (131072, "128 KiB"), "0": (0, "no limit on")}


def sink(limit: str, *options: str) -> Receiver:
    length, text = LIMITS[limit]
    with_delay = ", each answer 5 ms late" if "-d" in options else ""
    return Receiver(
        ("{sink}", "-p", str(length), *options), Storing.COUNTED, note=f"sink, {text} PDUs, no Nagle{with_delay}"
    )


# --- senders ----------------------------------------------------------------------------------------------------------

IN_PROCESS = ("{python}", "{here}/in_process.py")
REHEARSED = 20
SEND = "CStoreSCU.send"
SENDER = "open_sender, 1 association"
WINDOW = "open_sender, window 8"
LANES = "open_sender, 8 associations"
BARE = ("{python}", "{here}/bare.py")
BARE_SOCKETS = "Python, bare sockets"
BARE_TRIO = "Python, bare trio"
BARE_TASKS = "Python, bare trio, 3 tasks"
BARE_THREADS = "Python, bare trio, threads"


def inside(name: str, form: str, *options: str, times: int = 1, rehearsed: int = REHEARSED) -> Contestant:
    command = (*IN_PROCESS, form, "{port}", "{folder}", *options, "--rehearse", str(rehearsed), "--times", str(times))
    return Contestant(name, command, Clock.OWN, times=times, rehearsed=rehearsed)


C_SENDER = Contestant("C", ("{yardstick}", "{port}", "{folder}"), Clock.OWN)
C_WINDOW = Contestant("C, window 8", ("{yardstick}", "-w", "8", "{port}", "{folder}"), Clock.OWN)
BY_SEND = inside(SEND, "send")
BY_SENDER = inside(SENDER, "sender")
BY_WINDOW = inside(WINDOW, "sender", "--window", "8")
BY_LANES = inside(LANES, "sender", "--associations", "8")

BY_BARE = tuple(
    Contestant(name, (*BARE, form, "{port}", "{folder}"), Clock.OWN)
    for name, form in ((BARE_SOCKETS, "sockets"), (BARE_TRIO, "trio"), (BARE_TASKS, "tasks"))
)

COMMAND = ("{python}", "-m", "trio_dicom", "send", "--quiet", "SINK@127.0.0.1:{port}")
TRIO_DICOM = Contestant("trio-dicom send", (*COMMAND, "{folder}"))
STORESCU_COMMAND = ("{storescu}", "-xe", "-R", "+sd", "127.0.0.1", "{port}", "{folder}")
STORESCU = Contestant("storescu as installed", STORESCU_COMMAND, objects=DELAYED, encodes_anew=True)
STORESCU_NO_NAGLE = Contestant("storescu, TCP_NODELAY=1", STORESCU_COMMAND, variables=NO_NAGLE, encodes_anew=True)
DCMSEND_COMMAND = ("{dcmsend}", "+sd", "127.0.0.1", "{port}", "{folder}")
DCMSEND = Contestant("dcmsend as installed", DCMSEND_COMMAND, objects=DELAYED, encodes_anew=True)
DCMSEND_NO_NAGLE = Contestant("dcmsend, TCP_NODELAY=1", DCMSEND_COMMAND, variables=NO_NAGLE, encodes_anew=True)
PYNETDICOM = Contestant("pynetdicom, tuned", ("{pynetdicom}", "{here}/pynetdicom_sender.py", "{port}", "{folder}"))
PROCESSES = (TRIO_DICOM, DCMSEND_NO_NAGLE, STORESCU_NO_NAGLE, PYNETDICOM, DCMSEND, STORESCU)
TLS_PROCESSES = (
    Contestant("trio-dicom send", (*COMMAND, "--tls", "--ca", "{authority}", "{folder}")),
    Contestant(
        "storescu, TCP_NODELAY=1",
        ("{storescu}", "+tla", "+cf", "{authority}", *STORESCU_COMMAND[1:]),
        variables=NO_NAGLE,
        encodes_anew=True,
    ),
)

# --- receivers that are compared --------------------------------------------------------------------------------------

RECEIVE = ("{python}", "-m", "trio_dicom", "receive", "--quiet", "--port", "{port}", "--output", "{received}")
STORE = ("{storescp}", "-pdu", "131072", "-od", "{received}", "{port}")
RECEIVERS = (
    Contestant("trio-dicom receive", RECEIVE),
    Contestant("trio-dicom receive, no fsync", (*RECEIVE, "--no-fsync")),
    Contestant("storescp, TCP_NODELAY=1", STORE, variables=NO_NAGLE),
    Contestant("storescp with +B, TCP_NODELAY=1", (STORE[0], "+B", *STORE[1:]), variables=NO_NAGLE),
    Contestant(BARE_SOCKETS, (*BARE, "receive", "{port}", "{received}")),
    Contestant(f"{BARE_SOCKETS}, no fsync", (*BARE, "receive", "{port}", "{received}", "--no-fsync")),
    Contestant(BARE_THREADS, (*BARE, "receive-trio", "{port}", "{received}")),
    Contestant(f"{BARE_THREADS}, no fsync", (*BARE, "receive-trio", "{port}", "{received}", "--no-fsync")),
)


# --- contests ---------------------------------------------------------------------------------------------------------


def _in_process(limit: str) -> tuple[Contest, ...]:
    text = LIMITS[limit][1]
    cpu = AtMost(120, Measure.CPU, SEND, more_than=("C", 1.3, 60))
    one_by_one = (C_SENDER, BY_SEND, BY_SENDER)
    memory = (AtMost(60, Measure.MEMORY, SEND), AtMost(60, Measure.MEMORY, SENDER)) if limit == "16k" else ()
    return (
        Contest(
            f"in-process-ct-{limit}",
            f"CT, in process, {text} PDUs",
            "ct",
            CT,
            sink(limit, "-w", "8"),
            (*one_by_one, BY_WINDOW, BY_LANES, *BY_BARE),
            (AtLeast(0.85, SEND, "C"), AtLeast(0.85, SENDER, "C")),
        ),
        Contest(
            f"in-process-tiny-{limit}",
            f"tiny, in process, {text} PDUs",
            "tiny",
            TINY,
            sink(limit, "-w", "8"),
            (*one_by_one, BY_WINDOW, BY_LANES, *BY_BARE),
            (
                AtLeast(0.65, SEND, "C"),
                AtLeast(0.65, SENDER, "C"),
                AtLeast(0.85, WINDOW, "C"),
                AtLeast(0.85, LANES, "C"),
                *((cpu,) if limit == "16k" else ()),
            ),
        ),
        Contest(
            f"in-process-big-{limit}",
            f"1 GiB, in process, {text} PDUs",
            "big",
            BIG,
            sink(limit),
            (C_SENDER, inside(SEND, "send", rehearsed=0), inside(SENDER, "sender", rehearsed=0), *BY_BARE),
            (AtLeast(0.9, SEND, "C"), AtLeast(0.9, SENDER, "C"), *memory),
        ),
    )


CONTESTS = (
    *_in_process("16k"),
    *_in_process("128k"),
    *_in_process("0"),
    Contest(
        "in-process-delay",
        "tiny, in process, a receiver that answers 5 ms late",
        "tiny",
        400,
        sink("16k", "-w", "8", "-d", "5"),
        (C_SENDER, C_WINDOW, BY_SEND, BY_SENDER, BY_WINDOW, BY_LANES),
    ),
    *(
        Contest(
            f"process-{kind}",
            f"{text}, whole processes, 16 KiB PDUs",
            kind,
            count,
            sink("16k"),
            PROCESSES,
            (
                AtLeast(storescu, TRIO_DICOM.name, STORESCU_NO_NAGLE.name),
                AtLeast(pynetdicom, TRIO_DICOM.name, PYNETDICOM.name),
            ),
        )
        for kind, text, count, storescu, pynetdicom in (("ct", "CT", CT, 3, 10), ("tiny", "tiny", TINY, 4, 15))
    ),
    Contest(
        "process-big",
        "1 GiB, whole processes, 16 KiB PDUs",
        "big",
        BIG,
        sink("16k"),
        (TRIO_DICOM, DCMSEND_NO_NAGLE, STORESCU_NO_NAGLE),
        (AtMost(60, Measure.MEMORY, TRIO_DICOM.name),),
    ),
    *(
        Contest(
            f"process-{kind}-storescp-nagle",
            f"{text}, whole processes, to storescp as installed (Nagle on)",
            kind,
            count,
            STORESCP_AS_INSTALLED,
            (TRIO_DICOM, attrs.evolve(STORESCU_NO_NAGLE, objects=DELAYED), STORESCU),
            (AtLeast(times, TRIO_DICOM.name, STORESCU.name),),
        )
        for kind, text, count, times in (("ct", "CT", CT, 20), ("tiny", "tiny", TINY, 60))
    ),
    *(
        Contest(
            f"process-{kind}-storescp",
            f"{text}, whole processes, to storescp with TCP_NODELAY=1",
            kind,
            count,
            STORESCP_NO_NAGLE,
            (TRIO_DICOM, DCMSEND_NO_NAGLE, STORESCU_NO_NAGLE, PYNETDICOM),
        )
        for kind, text, count in (("ct", "CT", CT), ("tiny", "tiny", TINY))
    ),
    Contest(
        "process-ct-tls",
        "CT, whole processes, TLS 1.3",
        "ct",
        CT,
        SINK_TLS,
        TLS_PROCESSES,
        (AtLeast(2, TRIO_DICOM.name, STORESCU_NO_NAGLE.name),),
    ),
    Contest(
        "receive-ct",
        "CT, received and filed on the disk, from C",
        "ct",
        CT,
        None,
        RECEIVERS,
        (
            AtLeast(1.5, RECEIVERS[1].name, RECEIVERS[2].name),
            AtLeast(1, RECEIVERS[0].name, RECEIVERS[2].name),
        ),
    ),
    Contest(
        "memory-many",
        "100,000 tiny objects",
        "tiny",
        TINY,
        sink("16k"),
        (
            inside(SENDER, "sender", times=MANY_TIMES, rehearsed=0),
            Contestant("trio-dicom send", (*COMMAND, *(("{folder}",) * MANY_TIMES)), times=MANY_TIMES),
        ),
        (AtMost(100, Measure.MEMORY, SENDER), AtMost(100, Measure.MEMORY, TRIO_DICOM.name)),
        most_runs=1,
    ),
    Contest(
        "start-up",
        "one tiny object, from the start of the process to the first byte on the wire",
        "tiny",
        1,
        sink("16k"),
        (TRIO_DICOM, STORESCU_NO_NAGLE, PYNETDICOM),
        (AtMost(0.35, Measure.START, TRIO_DICOM.name),),
    ),
)
