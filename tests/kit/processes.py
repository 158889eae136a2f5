"""Client processes and sessions of a test's tabs."""

from __future__ import annotations

from asgi_comet import ClientProcess, Comet
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.process import Claim, Client, Session
from asgi_comet.testing._inspect import inside
from tests.kit.serving import Tab


def clients_of(comet: Comet) -> Clients:
    return inside(comet).clients


def open_in(comet: Comet, session: str = "s") -> Client:
    return clients_of(comet).open(Claim.of(Session(session))).process


def process_of(comet: Comet, tab: Tab) -> ClientProcess:
    id_ = inside(comet).requests.identity.unsign_process(tab.opened["process"])
    (found,) = (process for process in comet.processes() if process.id == id_)
    return found


def session_in(comet: Comet, tab: Tab) -> str | None:
    return inside(comet).requests.identity.unsign_session(tab.jar["comet"])


def default_of(comet: Comet, tab: Tab) -> ClientProcess:
    """Return the default client process of a tab's session, which is there already."""
    process = process_of(comet, tab)
    there = process.session.processes
    default = clients_of(comet).default(Claim.of(process.session)).process
    assert default is not process
    assert default in there
    return default
