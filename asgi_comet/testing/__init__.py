"""Tools to test applications with channels, and to test brokers.

The module of a name is imported when the name is first used, as in `asgi_comet`.
"""

from typing import TYPE_CHECKING

from asgi_comet._runtime.lazy import resolver

if TYPE_CHECKING:
    from asgi_comet.testing.clock import ManualClock
    from asgi_comet.testing.contract import BrokerContract, SharedBrokerContract
    from asgi_comet.testing.joined import JoinedBroker, join
    from asgi_comet.testing.store import Store
    from asgi_comet.testing.waiting import wait_for_listeners

__all__ = [
    "BrokerContract",
    "JoinedBroker",
    "ManualClock",
    "SharedBrokerContract",
    "Store",
    "join",
    "wait_for_listeners",
]

_MODULES = {  # the module of each name
    "BrokerContract": "asgi_comet.testing.contract",
    "JoinedBroker": "asgi_comet.testing.joined",
    "ManualClock": "asgi_comet.testing.clock",
    "SharedBrokerContract": "asgi_comet.testing.contract",
    "Store": "asgi_comet.testing.store",
    "join": "asgi_comet.testing.joined",
    "wait_for_listeners": "asgi_comet.testing.waiting",
}

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name
    __getattr__ = resolver("asgi_comet.testing", _MODULES)
