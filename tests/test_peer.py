"""Peer: what text names a peer, and what does not."""

from __future__ import annotations

import pytest

from trio_dicom import Peer
from trio_dicom.peer import check_ae_title


@pytest.mark.parametrize(
    ("text", "title", "host", "port"),
    [
        ("PACS@archive:104", "PACS", "archive", 104),
        ("PACS@10.0.0.5:104", "PACS", "10.0.0.5", 104),
        ("PACS@[::1]:11112", "PACS", "::1", 11112),
        ("PACS@[fe80::1%eth0]:1", "PACS", "fe80::1%eth0", 1),
        ("MY PACS@host.example.org:65535", "MY PACS", "host.example.org", 65535),
        ("A@B@host:104", "A@B", "host", 104),
        ("SIXTEEN_CHARS_AE@h:104", "SIXTEEN_CHARS_AE", "h", 104),
        ("PACS@host:0104", "PACS", "host", 104),
    ],
)
def test_text_that_names_a_peer(text: str, title: str, host: str, port: int) -> None:
    assert Peer.parse(text) == Peer(title, host, port)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("host:104", "no AE title"),
        ("", "no AE title"),
        ("@host:104", "not an AE title"),
        ("   @host:104", "not an AE title"),
        ("SEVENTEEN_CHARS_X@h:104", "not an AE title"),
        ("BACK\\SLASH@h:104", "not an AE title"),
        ("TAB\t@h:104", "not an AE title"),
        ("ÄRZTE@h:104", "not an AE title"),
        ("PACS@host", "no host and port"),
        ("PACS@:104", "no host and port"),
        ("PACS@", "no host and port"),
        ("PACS@[]:104", "no host and port"),
        ("PACS@[::1]", "no host and port"),
        ("PACS@[::1]104", "no host and port"),
        ("PACS@[::1:104", "no closing bracket"),
        ("PACS@::1:104", "goes in brackets"),
        ("PACS@host:", "not a port"),
        ("PACS@host:dicom", "not a port"),
        ("PACS@host:-1", "not a port"),
        ("PACS@host:1.5", "not a port"),
        ("PACS@host:٣", "not a port"),
        ("PACS@host:0", "not a port"),
        ("PACS@host:65536", "not a port"),
    ],
)
def test_text_that_names_none(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Peer.parse(text)


@pytest.mark.parametrize("text", ["PACS@archive:104", "PACS@10.0.0.5:104", "PACS@[::1]:11112", "A@B@host:104"])
def test_str_is_what_was_parsed(text: str) -> None:
    assert str(Peer.parse(text)) == text


def test_a_peer_parses_to_itself() -> None:
    peer = Peer("PACS", "host", 104)
    assert Peer.parse(peer) is peer


@pytest.mark.parametrize("port", [True, "104", 104.0, None, 0, 65536])
def test_ports_are_whole_numbers(port: object) -> None:
    with pytest.raises(ValueError, match="not a port"):
        Peer("PACS", "host", port)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["", 5, None])
def test_hosts_are_text(host: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Peer("PACS", host, 104)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, ("10.0.0.5", 104), b"PACS@10.0.0.5:104"])
def test_what_is_no_text_names_no_peer(text: object) -> None:
    with pytest.raises(TypeError, match="a peer is a Peer, or text such as"):
        Peer.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("title", [None, 5, b"PACS"])
def test_ae_titles_are_text(title: object) -> None:
    with pytest.raises(TypeError, match="an AE title is a str"):
        check_ae_title(title)  # type: ignore[arg-type]


def test_spaces_around_a_title_are_the_callers_own() -> None:
    assert check_ae_title(" A ") == " A "
