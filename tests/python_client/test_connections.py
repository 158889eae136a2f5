"""What a client says of itself and to whom, and what happens to its connections."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_comet import SITE, ClientProcess, Comet
from asgi_comet.client import AsyncClient, Client
from asgi_comet.client.wanted import Transport
from asgi_comet.errors import BadRequest, Refused
from tests.kit.certificate import make_certificate
from tests.kit.programs import ROOT
from tests.kit.serving import Address, reserved_port, serve
from tests.kit.stage import application
from tests.python_client.conftest import SHELLS, Loop, url_of

PATIENCE = 20.0  # seconds in which a program ends; shorter than a client waits for a silent server


# The end


@pytest.fixture
def steps(comet: Comet) -> None:
    @comet.unlimited("steps")
    async def steps(process: ClientProcess) -> AsyncIterator[str]:
        yield "begun"
        await anyio.sleep_forever()


@pytest.mark.parametrize("kind", SHELLS)
def test_ctrl_c_ends_a_program_and_closes_its_client_process(
    comet: Comet, server: Address, steps: None, kind: str
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.python_client.waiting", kind, url_of(server)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    assert len(comet.sessions()) == 1
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=PATIENCE)
    assert said.endswith("KeyboardInterrupt\n")
    assert program.returncode == -signal.SIGINT
    assert comet.sessions() == []


# Tokens


class Recorder:
    """An application that notes who asked for what, and answers as it is told."""

    def __init__(self, answer: Callable[[str], Response]) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        token = dict(scope["headers"]).get(b"authorization")
        self.seen.append((scope["path"], token and token.decode()))
        if scope["type"] == "websocket":
            extended = "websocket.http.response"
            answer = self._answer(scope["path"])
            head = {"status": answer.status_code, "headers": answer.raw_headers}
            await send({"type": f"{extended}.start", **head})
            await send({"type": f"{extended}.body", "body": answer.body})
        else:
            await self._answer(scope["path"])(scope, receive, send)


def test_a_token_is_sent_by_each_transport_and_never_after_a_redirect(
    shell: str, transport: Transport
) -> None:
    other = Recorder(lambda _: PlainTextResponse("ok"))
    with serve(other, lifespan="off") as there:
        here = Recorder(lambda path: RedirectResponse(f"{there.url}{path}"))
        with serve(here, lifespan="off") as address:
            loop = Loop(shell, url_of(address), transports=[transport], token="secret")
            with loop.stack, pytest.raises(Refused, match="status 307"):
                loop.read(loop.client.channel("news"), 1)
    assert [token for _, token in here.seen] == ["Bearer secret"]
    assert other.seen == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("host", ["example.org", "192.168.0.1", "localhost.example.org"])
def test_a_token_is_not_sent_in_clear_to_another_host(kind: Any, host: str) -> None:
    with pytest.raises(ValueError, match="expected https for a token, got 'http://"):
        kind(f"http://{host}/comet", token="secret")
    kind(f"http://{host}/comet", token="secret", insecure=True)
    kind(f"https://{host}/comet", token="secret")
    kind(f"http://{host}/comet")


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_a_token_is_sent_to_this_host(host: str) -> None:
    with Client(f"http://{host}/comet", token="secret"):
        pass


@pytest.mark.parametrize(
    "url", ["ws://a/comet", "/comet", "https:///comet", "https://a/comet?b", "https://a/comet#b"]
)
def test_a_url_is_that_of_the_endpoints(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected a URL like '.*', got"):
        Client(url)


# TLS


@pytest.fixture
def secure(comet: Comet, tmp_path: Path) -> Iterator[str]:
    make_certificate(tmp_path)
    files: Any = {"ssl_certfile": tmp_path / "cert", "ssl_keyfile": tmp_path / "key"}
    with serve(application(comet), **files) as address:
        yield url_of(address).replace("http", "https")


def test_by_tls(
    comet: Comet, secure: str, tmp_path: Path, shell: str, transport: Transport
) -> None:
    comet.create(scope=SITE, name="news").publish("x")
    context = ssl.create_default_context(cafile=tmp_path / "cert")
    loop = Loop(shell, secure, transports=[transport], ssl=context)
    with loop.stack:
        (found,) = loop.read(loop.client.channel("news", start="first"), 1)
    assert found.data == "x"


def test_a_server_whose_certificate_is_not_trusted_is_not_talked_to(
    secure: str,
    shell: str,
    transport: Transport,
    ends_at_a_pause: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop(shell, secure, transports=[transport])
    with loop.stack, pytest.raises(ends_at_a_pause):
        loop.read(loop.client.channel("news"), 1)
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


# Answers of other servers


@pytest.fixture
def read_answer(shell: str) -> Iterator[Callable[..., Any]]:
    """Follow by a client to which each request is answered so."""
    with ExitStack() as stack:

        def read(response: Response, name: str = "news") -> list[Any]:
            address = stack.enter_context(serve(Recorder(lambda _: response), lifespan="off"))
            loop = Loop(shell, url_of(address), transports=["poll"])
            with loop.stack:
                return loop.read(loop.client.channel(name), 1)

        yield read


@pytest.mark.parametrize("body", [{}, {"process": 1}, []])
def test_what_is_no_client_process_is_refused(read_answer: Any, body: Any) -> None:
    with pytest.raises(BadRequest, match="expected"):
        read_answer(JSONResponse(body), "~mine")


def test_the_client_process_may_be_refused(read_answer: Any) -> None:
    with pytest.raises(Refused, match="the server refuses with status 403: no"):
        read_answer(PlainTextResponse("no", 403), "~mine")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", "7.0"), ("Wed, 21 Oct 2026 07:28:00 GMT", ""), ("inf", ""), ("-1", "")],
)
def test_the_server_may_ask_for_a_pause(
    read_answer: Any,
    ends_at_a_pause: type[Exception],
    caplog: pytest.LogCaptureFixture,
    asked: str,
    seconds: str,
) -> None:
    with pytest.raises(ends_at_a_pause):
        read_answer(PlainTextResponse("", 503, {"Retry-After": asked}))
    assert f"the server answered 503; next try in {seconds}" in caplog.text


# A client process of which the client was told


def test_logs_do_not_show_the_token_of_a_client_process(
    shell: str, ends_at_a_pause: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with reserved_port() as port:
        loop = Loop(shell, f"http://127.0.0.1:{port}/comet/p/secret")
        with loop.stack, pytest.raises(ends_at_a_pause):
            loop.read(loop.client.channel("~mine"), 1)
    assert f"http://127.0.0.1:{port}/comet/p/…: " in caplog.text
    assert "secret" not in caplog.text


def test_logs_do_not_show_a_password(
    ends_at_a_pause: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with reserved_port() as port:
        loop = Loop("thread", f"HTTP://ada:secret@127.0.0.1:{port}/comet")
        with loop.stack, pytest.raises(ends_at_a_pause):
            loop.read(loop.client.channel("news"), 1)
    assert f"http://…@127.0.0.1:{port}/comet: " in caplog.text
    assert "secret" not in caplog.text
