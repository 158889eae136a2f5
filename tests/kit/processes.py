"""Client processes and sessions of a test's tabs."""

from __future__ import annotations

from asgi_comet import ClientProcess, Comet
from asgi_comet.identity.registry import Processes
from asgi_comet.testing._inspect import inside
from tests.kit.serving import Tab


def processes_of(comet: Comet) -> Processes:
    return inside(comet).processes


def open_in(comet: Comet, session: str = "s") -> ClientProcess:
    return processes_of(comet).open(session)


def process_of(comet: Comet, tab: Tab) -> ClientProcess:
    id_ = inside(comet).visits.identity.unsign_process(tab.opened["process"])
    assert id_ is not None
    process = inside(comet).processes.find(id_)
    assert process is not None
    return process


def session_in(comet: Comet, tab: Tab) -> str | None:
    return inside(comet).visits.identity.unsign_session(tab.jar["comet"])


def default_of(comet: Comet, tab: Tab) -> ClientProcess:
    """Return the default client process of a tab's session, which is there already."""
    process = process_of(comet, tab)
    there = process.session.processes
    default = processes_of(comet).default(process.session)
    assert default is not process
    assert default in there
    return default
