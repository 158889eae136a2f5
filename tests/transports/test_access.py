"""A request that came before a login and goes on after it."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_comet import Comet
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity.process import Claim
from asgi_comet.testing._inspect import inside
from asgi_comet.transports.access import default_process, enter
from asgi_comet.transports.postponing import TryAgain
from tests.kit.listening import Reader
from tests.kit.processes import open_in


async def never(*_: object) -> Any:
    raise NotImplementedError


def test_it_is_not_registered_and_gets_no_process() -> None:
    comet = Comet("k" * 32)
    node, reader = inside(comet), Reader()
    exchange = Exchange({"type": "http", "headers": []}, never, never, "", "/poll")
    exchange.claim = node.clients.claim("s")  # nothing has this id yet
    node.clients.replace_id(Claim.of(open_in(comet).session))
    with pytest.raises(TryAgain):
        enter(node, exchange, None, reader, 1.0)
    with pytest.raises(TryAgain):
        default_process(node, exchange).send(None)
    assert (len(node.fanout.listeners), len(node.clients)) == (0, 1)
