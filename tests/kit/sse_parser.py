"""Readers of `text/event-stream`: one of our own by the letter of the standard, and two of others.

Source: the HTML standard, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx
import httpx_sse

_LINE = re.compile(r"(?P<text>[^\r\n]*)(?:\r\n|\n|\r)")


class Event(NamedTuple):
    """What a page gets: the type it listens for, the data, and the id it would come back with."""

    type: str
    data: str
    id: str


@dataclass
class Reader:
    """A client that has read a stream to its end."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    last_event_id: str = ""
    retry: int | None = None
    _type: str = ""
    _data: str = ""
    _id: str = ""

    def read(self, stream: bytes) -> Reader:
        text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
        for line in _LINE.finditer(text):  # what follows the last end of a line is no line
            self._interpret(line["text"])
        return self

    def _interpret(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._process(name, value.removeprefix(" "))

    def _process(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            data = self._data.removesuffix("\n")
            self.events.append(Event(self._type or "message", data, self.last_event_id))
        self._type = self._data = ""


def read_sse(stream: bytes) -> list[Event]:
    """Read the events of a stream by the letter of the standard."""
    return Reader().read(stream).events


def read_with_httpx(stream: bytes) -> list[Event]:
    """Read them with httpx-sse. It takes an empty line for an event where there was an id."""
    kind = {"content-type": "text/event-stream"}
    source = httpx_sse.EventSource(httpx.Response(200, headers=kind, content=stream))
    return [Event(event.event, event.data, event.id) for event in source.iter_sse()]


NODE = """
const http = require("http");
const streams = JSON.parse(require("fs").readFileSync(0, "utf8"));
const server = http.createServer((request, response) => {
  response.writeHead(200, {"content-type": "text/event-stream"});
  response.end(Buffer.from(streams[Number(request.url.slice(1))], "base64"));
});
const read = (base, number) => new Promise(resolve => {
  const events = [];
  const source = new EventSource(`${base}/${number}`);
  source.dispatchEvent = event => {
    if (event.constructor.name === "MessageEvent") {
      events.push([event.type, event.data, event.lastEventId]);
    } else if (event.type === "error") {
      source.close();
      resolve(events);
    }
    return true;
  };
});
server.listen(0, "127.0.0.1", async () => {
  const base = `http://127.0.0.1:${server.address().port}`;
  const found = await Promise.all(streams.map((_, number) => read(base, number)));
  process.stdout.write(JSON.stringify(found), () => process.exit(0));
});
"""


def read_with_node(*streams: bytes) -> list[list[Event]]:
    """Read the events of each of several streams with the `EventSource` of Node."""
    sent = json.dumps([base64.b64encode(stream).decode() for stream in streams])
    run = subprocess.run(
        ["node", "--experimental-eventsource", "-e", NODE],
        input=sent.encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return [[Event(*event) for event in events] for events in json.loads(run.stdout)]
