"""What the documents show is what runs."""

from __future__ import annotations

import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from asgi_comet import Settings
from asgi_comet.testing import wait_for_listeners
from tests.kit.serving import Address, hold_registration, poll, serve

ROOT = Path(__file__).parent.parent


def test_the_first_lines_of_the_readme_are_the_example_that_runs() -> None:
    text = (ROOT / "README.md").read_text()
    (shown, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert (ROOT / "examples" / "quickstart.py").read_text().endswith(shown)
    assert len(text.splitlines()) <= 120
    from examples import quickstart

    with serve(quickstart.app) as server:
        held = hold_registration(server, "registration=news")
        wait_for_listeners(quickstart.news, 1)
        (command,) = re.findall(r"curl -X POST 'http://127.0.0.1:8000(\S+)'", text)
        assert server.request("POST", command).status == 200
        assert held.answer().body == b"news:Hello"
        assert poll(server, {"news": "last:1"})[-1]["data"] == "Hello"
        assert b"/comet/comet.js" in server.request("GET", "/").body


def test_the_readme_can_be_read_on_a_package_index() -> None:
    """There every link is absolute; here it leads to a file."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    for link in links:
        path = re.fullmatch(
            r"https://(?:github|raw.githubusercontent).com/asgi-comet/asgi-comet/(?:blob/)?main/([^#]+)(#.*)?",
            link,
        )
        assert path is not None, link
        assert (ROOT / path[1]).exists(), link


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


COMMAND = re.compile(
    r"(?:^ *|`|: )(uvicorn (?:[^`\n]*:app|[^`\n]*--root-path))|-m uvicorn .*\n.*\n.*", re.MULTILINE
)
BOUNDS = "--ws-max-size 65536 --ws-per-message-deflate false"


def test_every_command_line_of_uvicorn_bounds_what_a_websocket_may_send() -> None:
    shown = 0
    for path in [
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/**/*.py"),
        ROOT / "scripts/demo",
        ROOT / "README.md",
    ]:
        for line in COMMAND.finditer(path.read_text()):
            assert BOUNDS in line[0], (path.name, line[0])
            shown += 1
    assert shown >= 16


# What docs/wire.md shows


ADDRESS = "127.0.0.1:8000"
STEP = re.compile(r"^(?=\$ |> |< |Connection closed: )", re.MULTILINE)
EPOCH = re.compile(r"(?<![\w-])([\w-]{8})\.\d")
LEFT_OUT = re.compile(r"(?:date|server|content-length|transfer-encoding): .*\r?\n")
RANDOM = re.compile(r"retry: \d{4,}")


class Replay:
    """Takes the steps of a transcript, and checks what the server says.

    Epochs, the token and the session of the document stand for those of the server.
    """

    def __init__(self, server: Address, folder: Path, stack: ExitStack) -> None:
        self.known = {f"//{ADDRESS}": server.url.removeprefix("http:")}
        self._folder = folder
        self._stack = stack
        self._socket: ClientConnection | None = None

    def take(self, step: str) -> None:
        command, _, shown = step.partition("\n")
        if command.startswith("$ curl "):
            self.check(shown, self.run(command[2:]))
        elif command.startswith("$ python -m websockets "):
            self._socket = self._stack.enter_context(connect(self.real(command.split()[-1])))
        else:
            assert self._socket is not None, step
            self.speak(self._socket, command)

    def speak(self, socket: ClientConnection, line: str) -> None:
        if line.startswith("> "):
            socket.send(self.real(line[2:]))
        elif line.startswith("< "):
            self.check(line[2:], str(socket.recv(timeout=20)))
        else:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=20)
            assert line == f"Connection closed: {closed.value.rcvd}."

    def run(self, command: str) -> str:
        words = shlex.split(self.real(command))
        done = subprocess.run(words, capture_output=True, cwd=self._folder, check=False)
        assert done.returncode in (0, 28), done.stderr  # 28: --max-time has passed
        return LEFT_OUT.sub("", done.stdout.decode()).replace("\r\n", "\n")

    def check(self, shown: str, came: str) -> None:
        for one, other in zip(EPOCH.findall(shown), EPOCH.findall(came), strict=False):
            self.known.setdefault(one, other)
        token = re.search(r'"process": "([^"]+)"', came)
        if token is not None:
            self.known.setdefault("TOKEN", token[1])
        came = re.sub(r"comet=[^;]+;", "comet=SESSION;", came)
        expected = RANDOM.sub("retry: 1000", self.real(shown))
        assert RANDOM.sub("retry: 1000", came).rstrip() == expected.rstrip()

    def real(self, text: str) -> str:
        for shown, real in self.known.items():
            text = text.replace(shown, real)
        return text


def test_the_server_says_what_the_examples_of_the_wire_show(tmp_path: Path) -> None:
    from examples import wire

    text = (ROOT / "docs" / "wire.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    with serve(wire.app) as server, ExitStack() as stack:
        replay = Replay(server, tmp_path, stack)
        steps = [step for block in blocks for step in STEP.split(block) if step]
        for step in steps:
            replay.take(step)
    assert len(steps) >= 30


UNITS = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024 * 1024}


def test_the_limits_that_are_promised_are_those_of_the_settings() -> None:
    text = (ROOT / "docs" / "semantics.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| `(\w+)` \| ", text, re.MULTILINE)
    assert len(rows) >= 15
    for shown, name in rows:
        number, _, unit = shown.replace(",", "").partition(" ")
        value = None if shown == "no limit" else int(number) * UNITS[unit]
        assert getattr(Settings(), name) == value, name
