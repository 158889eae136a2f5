"""A page for each transport."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.kit.clients import CLIENTS, Client, MakeClient
from tests.kit.serving import Address, Tab


@pytest.fixture(params=CLIENTS)
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def make_client(server: Address, transport: str) -> Iterator[MakeClient]:
    """Make a page that speaks the transport; its connection is cut before the server stops."""
    with ExitStack() as stack:

        def make(tab: Tab | None, address: Address | None = None) -> Client:
            where = address or (server if tab is None else tab.address)
            client = CLIENTS[transport](tab, where)
            stack.callback(client.cut)
            return client

        yield make


@pytest.fixture
def tab(server: Address) -> Tab:
    return Tab(server)


@pytest.fixture
def client(make_client: MakeClient, tab: Tab) -> Client:
    return make_client(tab)
