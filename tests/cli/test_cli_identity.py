"""The options that say who we are; what is secret is on no command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.command_line import CommandLine
from trio_dicom.protocol.pdu import AssociateRQ
from trio_dicom.protocol.user_information import UserIdentityRQ
from trio_dicom.testing import ScriptedPeer, make_instance_file

Scripted = Callable[..., str]


@pytest.fixture
def secrets(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "passcode").write_bytes(b"open sesame\r\n")
    (tmp_path / "token").write_bytes(b"head.body.signature\n")
    (tmp_path / "long").write_bytes(b"x" * 65_001)
    (tmp_path / "nothing").write_bytes(b"\n")
    return tmp_path.joinpath


CASES = [
    ((), None),
    (("--user", "alice"), UserIdentityRQ(1, False, b"alice")),
    (("--user", "alice", "--passcode-file", "passcode"), UserIdentityRQ(2, False, b"alice", b"open sesame")),
    (("--token-type", "jwt", "--token-file", "token"), UserIdentityRQ(5, False, b"head.body.signature")),
    (("--token-type", "kerberos", "--token-file", "token"), UserIdentityRQ(3, False, b"head.body.signature")),
    (("--token-type", "saml", "--token-file", "token"), UserIdentityRQ(4, False, b"head.body.signature")),
]


def asked(options: tuple[str, ...], secrets: Callable[[str], Path]) -> list[str]:
    return [str(secrets(word)) if word in ("passcode", "token", "long", "nothing") else word for word in options]


@pytest.mark.parametrize(
    ("options", "expected"), CASES, ids=lambda value: " ".join(value or ["none"]) if isinstance(value, tuple) else ""
)
def test_who_we_are(
    command_line: CommandLine,
    scripted_peer: Scripted,
    secrets: Callable[[str], Path],
    options: tuple[str, ...],
    expected: UserIdentityRQ | None,
) -> None:
    requests: list[AssociateRQ] = []

    async def listen(peer: ScriptedPeer) -> None:
        requests.append(await peer.accept())
        await peer.serve_requests()

    secrets("object.dcm").write_bytes(make_instance_file(100))
    address = scripted_peer(listen)
    for command in (("echo", address), ("send", address, secrets("object.dcm"))):
        assert command_line(*command, *asked(options, secrets)).code == 0
        items = [each for each in requests[-1].user_information if isinstance(each, UserIdentityRQ)]
        assert items == ([] if expected is None else [expected])


def test_it_may_be_in_the_environment(
    command_line: CommandLine, scripted_peer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[AssociateRQ] = []

    async def listen(peer: ScriptedPeer) -> None:
        requests.append(await peer.accept())
        await peer.serve_requests()

    address = scripted_peer(listen)
    monkeypatch.setenv("TRIO_DICOM_PASSCODE", "sesame")
    monkeypatch.setenv("TRIO_DICOM_TOKEN", "ticket")
    for options, expected in (
        (("--user", "alice"), UserIdentityRQ(2, False, b"alice", b"sesame")),
        (("--token-type", "jwt"), UserIdentityRQ(5, False, b"ticket")),
    ):
        assert command_line("echo", address, *options).code == 0
        assert expected in requests[-1].user_information


def test_an_identity_that_is_not_confirmed(
    command_line: CommandLine, scripted_peer: Scripted, secrets: Callable[[str], Path]
) -> None:
    async def listen(peer: ScriptedPeer) -> None:
        await peer.accept()

    options = asked(("--user", "alice", "--passcode-file", "passcode", "--confirm-identity"), secrets)
    ended = command_line("echo", scripted_peer(listen), *options)
    assert ended.code == 69
    assert "confirm" in ended.err
    assert "sesame" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--user", "a", "--token-type", "jwt"), "--user and --token-type are two identities"),
        (("--token-type", "jwt"), "--token-type needs --token-file, or the variable TRIO_DICOM_TOKEN"),
        (("--passcode-file", "passcode"), "--passcode-file needs --user"),
        (("--confirm-identity",), "--confirm-identity needs --user or --token-type"),
        (("--user", "a", "--token-file", "token"), "--token-file needs --token-type"),
        (("--user", "a", "--passcode-file", "/none"), "the secret cannot be read: No such file or directory: /none"),
        (("--user", "a", "--passcode-file", "/dev/zero"), "cannot be read: it has more than 65536 bytes: /dev/zero"),
        (("--user", "a", "--passcode-file", "long"), "an identity of 65002 bytes, where 65000 are the most"),
        (("--token-type", "jwt", "--token-file", "long"), "an identity of 65001 bytes, where 65000 are the most"),
        (
            ("--token-type", "jwt", "--token-file", "nothing"),
            "the identity cannot be sent: there is nothing in primary",
        ),
        (("--user", ""), "the identity cannot be sent: there is nothing in primary"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_make_no_identity(
    command_line: CommandLine, secrets: Callable[[str], Path], options: tuple[str, ...], text: str
) -> None:
    ended = command_line("echo", "A@127.0.0.1:1", *asked(options, secrets))
    assert ended.code == 2
    assert text in ended.err
