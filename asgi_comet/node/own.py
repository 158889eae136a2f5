"""Channels of client processes, as a broker fills and ends them in this worker.

Owns nothing: finds the client process of a channel. Must not know how a broker carries messages.
"""

from __future__ import annotations

from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.channels.adopting import Adopting
from asgi_comet.channels.feed import Feed
from asgi_comet.declare.declarations import Declarations
from asgi_comet.errors import CometError, ProcessClosed
from asgi_comet.identity.process import Client

__all__ = ["open_window"]


def open_window(
    process: Client | None, spec: ChannelSpec, channels: Adopting, declarations: Declarations
) -> Feed | None:
    """Return the window on a channel of a client process, see `PeopleHost.window`.

    A declared channel is started in this worker, too: the source moves here if its worker stops.

    Args:
        process: The client process; `None` if this worker does not know it.
        spec: The channel.
        channels: Makes the window.
        declarations: The declared channels.

    Returns:
        The window; `None` if the client process has closed, or is not known.
    """
    if process is None:
        return None
    if spec.closed is None:
        try:
            declarations.find_own(process, spec.name)
        except CometError as error:
            declarations.report(spec.name, error)
    try:
        return channels.window(process.place, spec)
    except ProcessClosed:
        return None
