"""The clients, each with the little that it needs to follow channels through everything.

All tell what happens in the same words: `:open` when it knows where it is, `news "data"` for a
message and `:full news` for an error.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Page

from tests.kit.programs import ROOT, find_program, need_modules

HERE = ROOT / "tests" / "clients"
PATIENCE = 20.0  # seconds until a line that does not come is missed


class Follower(ABC):
    """A client at work."""

    @abstractmethod
    def line(self) -> str:
        """Wait for the next line."""

    def begun(self) -> None:
        """Wait until it knows where it is."""
        assert self.line() == ":open"

    def next(self) -> str:
        """Wait for the next message or error."""
        while (line := self.line()) == ":open":
            pass
        return line


Follow = Callable[[BrowserContext, str, Sequence[str]], AbstractContextManager[Follower]]


class Program(Follower):
    """A program that prints lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._output = process.stdout
        self._lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        for line in self._output:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        return self._lines.get(timeout=PATIENCE)


class Tab(Follower):
    """A page whose script appends lines to the array `seen`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._count = 0

    def line(self) -> str:
        self._count += 1
        return str(
            self.page.wait_for_function(
                "(count) => seen[count - 1]", arg=self._count, timeout=PATIENCE * 1000
            ).json_value()
        )


@contextmanager
def run(command: Sequence[str | Path]) -> Iterator[Follower]:
    """Run a program while the context lasts."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    program = Program(process)
    try:
        yield program
        assert process.poll() is None, "it has ended by itself"
    finally:
        process.kill()
        program.reader.join(PATIENCE)
        process.communicate()


@contextmanager
def open_tab(context: BrowserContext, url: str) -> Iterator[Tab]:
    """Open a page while the context lasts."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    try:
        yield Tab(page)
    finally:
        page.close()
    assert errors == []


def query(channels: Sequence[str]) -> str:
    return "&".join(f"channel={name}" for name in channels)


@contextmanager
def chromium_eventsource(
    context: BrowserContext, url: str, channels: Sequence[str]
) -> Iterator[Tab]:
    with open_tab(context, url) as tab:
        tab.page.add_script_tag(path=HERE / "eventsource.js")
        tab.page.evaluate(
            """([url, channels]) => {
                window.source = new EventSource(url)
                follow(source, channels, (line) => seen.push(line))
            }""",
            [f"{url}/comet/events?{query(channels)}", list(channels)],
        )
        yield tab


@contextmanager
def chromium_websocket(context: BrowserContext, url: str, channels: Sequence[str]) -> Iterator[Tab]:
    with open_tab(context, url) as tab:
        tab.page.add_script_tag(path=HERE / "websocket.js")
        tab.page.evaluate(
            "([url, channels]) => follow(WebSocket, url, channels, (line) => seen.push(line))",
            [url.replace("http", "ws", 1) + "/comet/socket", list(channels)],
        )
        yield tab


@contextmanager
def chromium_htmx(context: BrowserContext, url: str, channels: Sequence[str]) -> Iterator[Tab]:
    need_modules()
    with open_tab(context, f"{url}/htmx?channels={','.join(channels)}") as tab:
        yield tab


@contextmanager
def chromium_htmx_comet(
    context: BrowserContext, url: str, channels: Sequence[str]
) -> Iterator[Tab]:
    need_modules()
    with open_tab(context, f"{url}/extension?channels={','.join(channels)}") as tab:
        yield tab


@contextmanager
def node_eventsource(
    context: BrowserContext, url: str, channels: Sequence[str]
) -> Iterator[Follower]:
    need_modules()
    script = HERE / "node_eventsource.cjs"
    with run(
        [find_program("node"), script, f"{url}/comet/events?{query(channels)}", *channels]
    ) as program:
        yield program


@contextmanager
def node_ws(context: BrowserContext, url: str, channels: Sequence[str]) -> Iterator[Follower]:
    need_modules()
    address = url.replace("http", "ws", 1) + "/comet/socket"
    with run([find_program("node"), HERE / "node_websocket.cjs", address, *channels]) as program:
        yield program


@contextmanager
def httpx_sse(context: BrowserContext, url: str, channels: Sequence[str]) -> Iterator[Follower]:
    command = [sys.executable, "-u", "-m", "tests.clients.follow_with_httpx_sse"]
    with run([*command, f"{url}/comet/events?{query(channels)}"]) as program:
        yield program


SSE: tuple[Follow, ...] = (
    chromium_eventsource,
    chromium_htmx,
    chromium_htmx_comet,
    node_eventsource,
    httpx_sse,
)
WEBSOCKET: tuple[Follow, ...] = (chromium_websocket, node_ws)
