"""Tabs whose requests name their client process."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.kit.serving import Address, Answer, Tab
from tests.kit.streams import PATIENCE


class Page(Tab):
    """A tab whose requests name it, as those of `comet.js` do."""

    def __init__(self, address: Address, user: str | None = None, browser: Page | None = None):
        super().__init__(address, None if browser is None else browser.jar)
        self.positions: dict[str, str] = {}
        if user is not None:
            assert self.say(f"/login/{user}").status == 200

    def say(self, path: str, content: Any = None) -> Answer:
        token = self.url.rpartition("/")[2]
        headers = {"Content-Type": "application/json", "Cookie": self.cookie}
        headers["Comet-Process"] = token
        answer = self.address.request("POST", path, json.dumps(content), headers)
        self.keep(answer)
        return answer

    def follow(self, channel: str) -> list[Any]:
        """Poll once from where it is, and return the values that came."""
        found = list[Any]()
        for event in self.poll({channel: self.positions.get(channel, "new.0")}):
            self.positions[channel] = event["position"]
            if "data" in event:
                found.append(event["data"])
        return found

    def take(self, channel: str, count: int) -> list[Any]:
        """Poll until that many values have come, and acknowledge them."""
        found = list[Any]()
        while len(found) < count:
            found += self.follow(channel)
        self.acknowledge(channel)
        return found

    def acknowledge(self, channel: str) -> None:
        answer = self.post(f"{self.url}/ack", {channel: self.positions[channel]})
        assert answer.status == 204


class Browser:
    """A browser with a cookie jar, and one tab in it.

    Args:
        url: The server.
        other: A browser of which this is another tab.
    """

    def __init__(self, url: str, other: Browser | None = None) -> None:
        jar: Any = None if other is None else other.client.cookies.jar
        self.client: httpx.Client = httpx.Client(base_url=url, timeout=PATIENCE, cookies=jar)
        self.tab = self.client.post("/comet/open").raise_for_status().json()
        self.positions: dict[str, str] = {}

    def send(self, method: str, path: str, content: Any = None) -> httpx.Response:
        headers = {"Comet-Process": self.tab["process"]}
        return self.client.request(method, path, json=content, headers=headers)

    def poll(self, name: str) -> httpx.Response:
        channels = {name: self.positions.get(name, "now")}
        return self.client.post(f"{self.tab['url']}/poll", json={"channels": channels})

    def next(self, name: str) -> Any:
        """The next message of a channel, or what else there is to say of it."""
        while True:
            for event in self.poll(name).json()["events"]:
                if "error" in event:
                    return event["error"]
                self.positions[name] = event["position"]
                if "data" in event:
                    return event["data"]
