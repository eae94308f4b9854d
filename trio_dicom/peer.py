"""Peer: the application entity at the other end and where it listens."""

from __future__ import annotations

import attrs


def _ae_title(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    check_ae_title(value)


def check_ae_title(title: str) -> str:
    """`title`, if it is one: 1 to 16 printable ASCII characters, no backslash, not all spaces (PS3.5 6.2, VR AE)."""
    if not isinstance(title, str):
        raise TypeError(f"an AE title is a str, not {type(title).__name__}")
    if not 1 <= len(title) <= 16 or not title.strip(" ") or not all(" " <= c <= "~" and c != "\\" for c in title):
        raise ValueError(f"not an AE title (1 to 16 printable ASCII characters, no backslash): {title!r}")
    return title


def _host(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"not a host name or address: {value!r}")


def _port(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ValueError(f"not a port (1 to 65535): {value!r}")


@attrs.frozen
class Peer:
    """An application entity title with the host and TCP port where it accepts associations."""

    ae_title: str = attrs.field(validator=_ae_title)
    host: str = attrs.field(validator=_host)
    port: int = attrs.field(validator=_port)

    @classmethod
    def parse(cls, text: str | Peer) -> Peer:
        """The peer that `text` names: `PACS@host:104`, `PACS@10.0.0.5:104` or `PACS@[::1]:104`.

        Raises `ValueError`, saying what is missing, if it names none, and `TypeError` if it is neither text nor peer.
        """
        if isinstance(text, Peer):
            return text
        if not isinstance(text, str):
            raise TypeError(f"a peer is a Peer, or text such as PACS@10.0.0.5:104, not {type(text).__name__}")
        title, at, address = text.rpartition("@")
        if not at:
            raise ValueError(f"no AE title in {text!r}: write AET@host:port, for example PACS@10.0.0.5:104")
        if address.startswith("["):
            host, bracket, rest = address[1:].partition("]")
            colon, port = rest[:1], rest[1:]
            if not bracket:
                raise ValueError(f"no closing bracket after the IPv6 address in {text!r}")
        else:
            host, colon, port = address.rpartition(":")
            if ":" in host:
                raise ValueError(f"an IPv6 address goes in brackets: AET@[{host}]:{port}")
        if colon != ":" or not host:
            raise ValueError(f"no host and port in {text!r}: write AET@host:port")
        if not (port.isascii() and port.isdigit()):
            raise ValueError(f"not a port (1 to 65535) in {text!r}")
        return cls(title, host, int(port))

    def __str__(self) -> str:
        return f"{self.ae_title}@{host_and_port(self.host, self.port)}"


def host_and_port(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
