"""Real senders for tests: DCMTK's storescu, dcmsend and echoscu, pynetdicom, Orthanc, and dcmjs-dimse.

Each is an async function of whom to send to and of the samples, in none of which an instance occurs twice; it returns
the samples that it did not send, with the reason that it gave. It keeps a sample's transfer syntax if it can be made
to: dcmsend cannot, among the uncompressed ones.

Nothing here uses trio_dicom: it is the outside view.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from interop import peers
from interop.peers import HOST, require_peer
from interop.samples import Sample

if TYPE_CHECKING:
    from pynetdicom.events import Event

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}  # which is DCMTK's own variable


@attrs.frozen
class Receiver:
    """Whom to send to, on this host."""

    port: int
    ae_title: str = "RECEIVER"


Sender = Callable[[Receiver, Sequence[Sample]], Awaitable[dict[str, str]]]


async def run(*command: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """The finished `command`; its `stdout` has all that it printed."""
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=ENVIRONMENT)
    output = done.stdout.decode(errors="replace")
    print(f"--- {os.path.basename(command[0])}\n{output}")
    return subprocess.CompletedProcess(done.args, done.returncode, output)


def own_contexts(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """Each SOP class in each transfer syntax that it occurs in."""
    return sorted({(each.sop_class_uid, each.transfer_syntax_uid) for each in samples})


# --- DCMTK ------------------------------------------------------------------------------------------------------------


async def echoscu(receiver: Receiver, *options: str) -> subprocess.CompletedProcess[str]:
    address = (HOST, str(receiver.port))
    return await run(require_peer("echoscu"), "-v", "-aec", receiver.ae_title, *options, *address)


async def run_storescu(
    receiver: Receiver, samples: Sequence[Sample], *options: str
) -> subprocess.CompletedProcess[str]:
    """storescu over one association, with a presentation context for each SOP class in each transfer syntax."""
    with tempfile.TemporaryDirectory() as folder:
        profile = trio.Path(folder, "profile.cfg")
        await profile.write_text(own_transfer_syntaxes(samples))
        command = [require_peer("storescu"), "-v", "--no-halt", "-aec", receiver.ae_title, *options]
        command += ["--config-file", str(profile), "Own", HOST, str(receiver.port)]
        return await run(*command, *(each.path for each in samples))


async def storescu(receiver: Receiver, samples: Sequence[Sample]) -> dict[str, str]:
    output = (await run_storescu(receiver, samples)).stdout
    return {
        sample.name: f"{problem[1]}{problem[2]}"
        for sample in samples
        if (problem := re.search(rf"^E: (.*?):? (?:in )?(?:file: )?{re.escape(str(sample.path))}(.*)$", output, re.M))
    }


def own_transfer_syntaxes(samples: Iterable[Sample]) -> str:
    """A DCMTK association negotiation profile, "Own"."""
    pairs = own_contexts(samples)
    names = {uid: f"Only{n}" for n, uid in enumerate({uid for _, uid in pairs})}
    transfer_syntaxes = "".join(f"[{name}]\nTransferSyntax1 = {uid}\n" for uid, name in names.items())
    contexts = "".join(f"PresentationContext{n} = {of}\\{names[uid]}\n" for n, (of, uid) in enumerate(pairs, 1))
    return (
        f"[[TransferSyntaxes]]\n{transfer_syntaxes}[[PresentationContexts]]\n[Contexts]\n{contexts}"
        "[[Profiles]]\n[Own]\nPresentationContexts = Contexts\n"
    )


async def dcmsend(receiver: Receiver, samples: Sequence[Sample]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        report = trio.Path(folder, "report.txt")
        command = [require_peer("dcmsend"), "-v", "--no-halt", "--no-uid-checks", "--decompress-never"]
        command += ["--create-report-file", str(report), "-aec", receiver.ae_title, HOST, str(receiver.port)]
        output = (await run(*command, *(each.path for each in samples))).stdout
        entries = (await report.read_text()).split("\n\n")
    unsent = [each for each in entries if "DIMSE Status  : <not sent>" in each]
    # It prints why, in the same order, and not always of which file.
    problems = re.findall(r"^E: cannot send SOP instance(?: from file: \S+: |, )(.*?):?$", output, re.M | re.I)
    names = {str(each.path): each.name for each in samples}
    paths = [path for entry in unsent for path in re.findall(r"^Filename +: (.*)$", entry, re.M)]
    return {names[path]: problem for path, problem in zip(paths, problems, strict=True)}


# --- pynetdicom -------------------------------------------------------------------------------------------------------


async def pynetdicom_paths(receiver: Receiver, samples: Sequence[Sample]) -> dict[str, str]:
    """Sends the data sets as they are in the files, in pieces, if `_config.STORE_SEND_CHUNKED_DATASET` is set."""
    return await trio.to_thread.run_sync(pynetdicom_scu, receiver, samples, lambda each: each.path)


async def pynetdicom_data_sets(receiver: Receiver, samples: Sequence[Sample]) -> dict[str, str]:
    """Sends what pydicom has read."""
    return await trio.to_thread.run_sync(pynetdicom_scu, receiver, samples, Sample.read)


def pynetdicom_scu(receiver: Receiver, samples: Sequence[Sample], form: Callable[[Sample], Any]) -> dict[str, str]:
    from pynetdicom import AE, evt

    def on_connection(event: Event) -> None:  # or each object would wait 40 ms for an acknowledgement
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    ae = AE("PYNETDICOM")
    for sop_class_uid, transfer_syntax_uid in own_contexts(samples):
        ae.add_requested_context(sop_class_uid, transfer_syntax_uid)
    association = ae.associate(
        HOST, receiver.port, ae_title=receiver.ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, on_connection)]
    )
    if not association.is_established:
        raise ConnectionError("pynetdicom has no association")
    problems = {}
    try:
        for sample in samples:
            try:
                association.send_c_store(form(sample))
            except (AttributeError, ValueError) as error:
                problems[sample.name] = str(error)
    finally:
        association.release()
    return problems


# --- Orthanc ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class OrthancSender:
    """Has an Orthanc store samples in itself, send them in one job, and delete them again.

    It does not tell which of many it could not send; so those named in `alone` have jobs of their own.
    """

    peer: peers.Orthanc
    modality: str = "receiver"
    alone: frozenset[str] = attrs.field(default=(), converter=frozenset)

    async def __call__(self, receiver: Receiver, samples: Sequence[Sample]) -> dict[str, str]:
        identifiers: dict[str, str] = {}
        problems: dict[str, str] = {}

        async def upload(sample: Sample) -> None:
            answer = await self.ask("POST", "/instances", sample.path.read_bytes())
            if "ID" not in answer:
                problems[sample.name] = answer["Message"]
                return
            identifiers[sample.name] = answer["ID"]
            if sample.name in self.alone and "Message" in (answer := await self.send([answer["ID"]])):
                problems[sample.name] = answer["Message"]

        modality = {"AET": receiver.ae_title, "Host": HOST, "Port": receiver.port, "AllowTranscoding": False}
        await self.ask("PUT", f"/modalities/{self.modality}", modality)
        async with trio.open_nursery() as nursery:
            for sample in samples:
                nursery.start_soon(upload, sample)
        if together := [identifiers[each.name] for each in samples if each.name in identifiers.keys() - self.alone]:
            await self.send(together)
        if identifiers:
            await self.ask("POST", "/tools/bulk-delete", {"Resources": [*identifiers.values()]})
        return problems

    async def send(self, identifiers: list[str]) -> dict[str, Any]:
        job = {"Resources": identifiers, "Synchronous": True}
        return await self.ask("POST", f"/modalities/{self.modality}/store", job)

    async def ask(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> dict[str, Any]:
        """What the REST API answers, be it of an error."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"http://{HOST}:{self.peer.http_port}{path}", data, method=method)
        answer: dict[str, Any] = json.loads(await trio.to_thread.run_sync(answer_of, request) or b"{}")
        print(f"--- Orthanc: {method} {path}: {answer}")
        return answer


def answer_of(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.ExitStack() as stack:
        try:
            answer = stack.enter_context(opener.open(request, timeout=20))
        except urllib.error.HTTPError as error:
            answer = stack.enter_context(error)
        body: bytes = answer.read()
        return body


# --- dcmjs-dimse ------------------------------------------------------------------------------------------------------

DCMJS_SENDER = Path(__file__).with_name("senders_dcmjs.js")


@functools.cache
def has_dcmjs() -> bool:
    """Whether node finds dcmjs-dimse, of the npm registry; the variable NODE_PATH says where it is installed."""
    with contextlib.suppress(FileNotFoundError):
        looked = subprocess.run(["node", "-e", "require.resolve('dcmjs-dimse')"], capture_output=True, check=False)
        return looked.returncode == 0
    return False


async def dcmjs(receiver: Receiver, samples: Sequence[Sample]) -> dict[str, str]:
    paths = [str(each.path) for each in samples]
    done = await run("node", str(DCMJS_SENDER), HOST, str(receiver.port), receiver.ae_title, *paths)
    problems = dict(re.findall(r"^not sent: (.*?): (.*)$", done.stdout, re.M))
    return {each.name: problems[str(each.path)] for each in samples if str(each.path) in problems}
