"""What a client receives when its connections are cut at every byte."""

from __future__ import annotations

import socket

import pytest

from asgi_comet import SITE, Comet
from asgi_comet.client.wanted import TRANSPORTS, Transport
from tests.kit.cutting import CuttingPipe
from tests.kit.serving import Address
from tests.python_client.conftest import Loop, url_of

CUT_UP_TO = 450  # bytes: more than what the server says up to the first message


class GrowingPipe(CuttingPipe):
    """Cuts each connection a byte later than the one before."""

    def accept(self, client: socket.socket) -> None:
        self.limit = 0 if self.limit is None else self.limit + 1
        super().accept(client)


CUTS = [("asyncio", one) for one in TRANSPORTS] + [("trio", "websocket"), ("thread", "sse")]
"""Each transport and each kind of loop; what reads is the same."""


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "transport"), CUTS)
def test_each_message_comes_once_when_connections_are_cut_at_every_byte(
    comet: Comet, server: Address, no_pauses: None, shell: str, transport: Transport
) -> None:
    channel = comet.create(scope=SITE, name="news")
    channel.publish(0)
    with GrowingPipe(server).run() as pipe:
        loop = Loop(shell, url_of(pipe.address), transports=[transport])
        with loop.stack:
            iterator = loop.begin(loop.client.channel("news", start="first"))
            expected = 0
            while pipe.limit is None or pipe.limit < CUT_UP_TO:
                assert loop.take(iterator).data == expected
                expected += 1
                channel.publish(expected)
            loop.end(iterator)
    assert expected > 50
