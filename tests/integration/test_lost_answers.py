"""An answer that is lost on the way is not lost: the connection is cut after every byte of it."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator

import pytest

from asgi_comet import SITE, Comet
from tests.kit.faults import CuttingProxy
from tests.kit.processes import process_of
from tests.kit.serving import COMET, Address, Tab

BROKEN = (OSError, http.client.HTTPException)


@pytest.fixture
def proxy(server: Address) -> Iterator[CuttingProxy]:
    with CuttingProxy(server).run() as proxy:
        yield proxy


def read_polls(proxy: CuttingProxy, tab: Tab, channels: dict[str, str]) -> list[tuple[str, object]]:
    """Poll until there is nothing more, with every answer cut after 0, 1, 2 … bytes at first."""
    seen: list[tuple[str, object]] = []
    cut = 0
    while True:
        proxy.limit = cut
        try:
            answer = tab.post(f"{tab.url}/poll", {"channels": channels, "idle": True})
        except BROKEN:
            cut += 1
            continue
        found = json.loads(answer.body)["events"]
        if not found:
            return seen
        for event in found:
            channels[event["channel"]] = event["position"]
            if "data" in event:
                seen.append((event["channel"], event["data"]))
        cut = 0


@pytest.mark.parametrize("scope", ["site", "process"])
def test_poll_every_message_once_and_in_order_after_a_cut_at_every_byte(
    comet: Comet, server: Address, proxy: CuttingProxy, scope: str
) -> None:
    tab = Tab(server)
    own = scope == "process"
    channel = comet.create(scope=process_of(comet, tab) if own else SITE, name="c")
    start = tab.poll({channel.id: "now"})[0]["position"]
    tab.address = proxy.address
    for n in range(3):
        channel.publish(f"message {n}")
    seen = read_polls(proxy, tab, {channel.id: start})
    assert seen == [(channel.id, f"message {n}") for n in range(3)]


def test_registration_with_a_number_likewise(
    comet: Comet, server: Address, proxy: CuttingProxy
) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox")
    tab.address = proxy.address
    seen: list[bytes] = []
    for number in range(3):
        inbox.publish(f"message {number}")
        cut = 0
        while True:
            proxy.limit = cut
            with contextlib.suppress(*BROKEN):
                answer = tab.post(f"{tab.url}/poll", f"registration=~inbox&number={number}", COMET)
                break
            cut += 1
        assert cut == proxy.passed > 200  # it was cut at every byte of the answer, head and body
        seen += answer.pairs
    assert seen == [f"~inbox:message%20{n}".encode() for n in range(3)]
