"""The contract of brokers, run against one of them: put your own in the place of `join`.

python -m pytest examples/broker_contract.py
"""

import pytest

from asgi_comet.brokers import Broker
from asgi_comet.testing import (
    AudienceContract,
    OwnContract,
    PeopleContract,
    SharedBrokerContract,
    join,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run the suite in this event loop; without the fixture in asyncio and in trio."""
    return "asyncio"


class OnOneStore:
    """Makes the brokers of a test."""

    @pytest.fixture(autouse=True)
    def find(self, request: pytest.FixtureRequest) -> None:
        """Give each test a store of its own: a schema or a prefix, by the name of the test."""
        self.prefix = request.node.name

    def make(self, count: int) -> list[Broker]:
        """Return one broker for each worker: `[MyBroker(URL, self.prefix) for _ in ...]`."""
        return [*join(count)]


class TestChannels(OnOneStore, SharedBrokerContract):
    """Channels of the site: all that a broker with `shares_people = False` needs."""


class TestPeople(OnOneStore, PeopleContract):
    """Sessions, client processes and users."""


class TestOwnChannels(OnOneStore, OwnContract):
    """Channels of client processes, and their readers."""


class TestNotifiers(OnOneStore, AudienceContract):
    """The client processes that listen on a key."""
