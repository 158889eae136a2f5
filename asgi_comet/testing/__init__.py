"""Tools to test applications with channels, and to test brokers.

The module of a name is imported when the name is first used, as in `asgi_comet`.
"""

from typing import TYPE_CHECKING

from asgi_comet._runtime.lazy import resolver

if TYPE_CHECKING:
    from asgi_comet.testing.audience_contract import AudienceContract
    from asgi_comet.testing.browsing import Browser, Tab
    from asgi_comet.testing.clock import ManualClock
    from asgi_comet.testing.contract import BrokerContract, SharedBrokerContract
    from asgi_comet.testing.following import Messages, follow
    from asgi_comet.testing.joined import JoinedBroker, join
    from asgi_comet.testing.own_contract import OwnContract
    from asgi_comet.testing.people_contract import PeopleContract
    from asgi_comet.testing.quiet import NotQuiet
    from asgi_comet.testing.reading import ChannelReader
    from asgi_comet.testing.running import CometApp, Record, TestClock, run
    from asgi_comet.testing.store import Store
    from asgi_comet.testing.waiting import wait_for_listeners

__all__ = [
    "AudienceContract",
    "BrokerContract",
    "Browser",
    "ChannelReader",
    "CometApp",
    "JoinedBroker",
    "ManualClock",
    "Messages",
    "NotQuiet",
    "OwnContract",
    "PeopleContract",
    "Record",
    "SharedBrokerContract",
    "Store",
    "Tab",
    "TestClock",
    "follow",
    "join",
    "run",
    "wait_for_listeners",
]

_MODULES = {  # the module of each name
    "AudienceContract": "asgi_comet.testing.audience_contract",
    "BrokerContract": "asgi_comet.testing.contract",
    "Browser": "asgi_comet.testing.browsing",
    "ChannelReader": "asgi_comet.testing.reading",
    "CometApp": "asgi_comet.testing.running",
    "JoinedBroker": "asgi_comet.testing.joined",
    "ManualClock": "asgi_comet.testing.clock",
    "Messages": "asgi_comet.testing.following",
    "NotQuiet": "asgi_comet.testing.quiet",
    "OwnContract": "asgi_comet.testing.own_contract",
    "PeopleContract": "asgi_comet.testing.people_contract",
    "Record": "asgi_comet.testing.running",
    "SharedBrokerContract": "asgi_comet.testing.contract",
    "Store": "asgi_comet.testing.store",
    "Tab": "asgi_comet.testing.browsing",
    "TestClock": "asgi_comet.testing.running",
    "follow": "asgi_comet.testing.following",
    "join": "asgi_comet.testing.joined",
    "run": "asgi_comet.testing.running",
    "wait_for_listeners": "asgi_comet.testing.waiting",
}

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name
    __getattr__ = resolver("asgi_comet.testing", _MODULES)
