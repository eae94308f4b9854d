"""Services: what is performed for peers (PS3.7 section 7.5, the performing side), and which of them performs what."""

from __future__ import annotations

import abc
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from ..protocol.command import CEchoRQ, Command, Response
from ..protocol.pdu import AssociateRQ
from ..protocol.status import SUCCESS
from ..uids import VERIFICATION

if TYPE_CHECKING:
    from .service_request import ServiceRequest


class Service(abc.ABC):
    """A DIMSE service that is performed for peers: derive from it, and give it to `serve_associations`."""

    requests: ClassVar[tuple[type[Command], ...]]
    """The requests that it performs, such as `(CStoreRQ,)`."""

    @abc.abstractmethod
    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        """The transfer syntax UIDs that are taken for an abstract syntax; None if it is none of this service's."""

    @abc.abstractmethod
    async def perform(self, request: ServiceRequest) -> Response:
        """Do what `request` asks for, and return the final response to it.

        What is raised is answered with 0110H, and so is `timeouts.handler` seconds without progress, after which the
        task is cancelled; waiting for the peer's bytes does not count. It is cancelled, too, when the association ends.
        """


class Verification(Service):
    """C-ECHO, which every acceptor performs (PS3.4 annex A)."""

    requests = (CEchoRQ,)

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return ANY if abstract_syntax == VERIFICATION else None

    async def perform(self, request: ServiceRequest) -> Response:
        return request.response(SUCCESS)


class _Any(Container[str]):
    def __contains__(self, item: object) -> bool:
        return True


ANY: Container[str] = _Any()  #: every transfer syntax that is proposed


class Services:
    """The services of an acceptor, by abstract syntax and request."""

    def __init__(self, services: Service | Iterable[Service]) -> None:
        self._services = (Verification(), *((services,) if isinstance(services, Service) else services))

    def supported(self, request: AssociateRQ) -> Mapping[str, Container[str]]:
        """What is taken of the presentation contexts that `request` proposes."""
        supported: dict[str, Container[str]] = {}
        for offer in request.presentation_contexts:
            for service in self._services:
                transfer_syntaxes = service.transfer_syntaxes(offer.abstract_syntax)
                if transfer_syntaxes is not None:
                    supported.setdefault(offer.abstract_syntax, transfer_syntaxes)
        return supported

    def find(self, abstract_syntax: str, command: Command) -> Service | None:
        """The service that performs `command` in a presentation context of `abstract_syntax`."""
        for service in self._services:
            if isinstance(command, service.requests) and service.transfer_syntaxes(abstract_syntax) is not None:
                return service
        return None


class Refusal(Service):
    """What is not performed."""

    requests = ()

    def __init__(self, status: int) -> None:
        self._status = status

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return None

    async def perform(self, request: ServiceRequest) -> Response:
        return request.response(self._status)
