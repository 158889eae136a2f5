"""Publishing in a process that serves nothing, each time in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asgi_comet import SITE, Comet
from asgi_comet.testing import join
from asgi_comet.testing._inspect import WARN_AT_EXIT, pretend_fork

ROOT = Path(__file__).parent.parent

APPLICATION = """
import os
from asgi_comet import SITE, Comet

comet = Comet("k" * 32)
news = comet.create(scope=SITE, name="news")
"""


SERVED = """
from starlette.testclient import TestClient
from tests.kit.stage import application

with TestClient(application(comet)): {}
"""


def run(script: str) -> str:
    """Run a script that has imported an application; return what it says on stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", APPLICATION + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == ""
    return ran.stderr


def test_a_script_that_publishes_is_told_how_many_nobody_could_get() -> None:
    said = run("for _ in range(3): news.publish('x')\ncomet.channels.create().write('y')")
    assert re.fullmatch(r"4 messages .* no server ran: .*an endpoint of the application.*\n", said)


def test_one_message_is_one() -> None:
    assert run("news.publish('x')").startswith("1 message ")


@pytest.mark.parametrize(
    "script",
    [
        "",
        SERVED.format("news.publish('x')"),
        "news.publish('x')" + SERVED.format("pass") + "news.publish('y')",
    ],
    ids=["nothing published", "served", "published before and after"],
)
def test_nothing_is_said_where_nothing_was_lost(script: str) -> None:
    assert run(script) == ""


def test_a_process_of_a_task_queue_is_told_at_once() -> None:
    """It was forked after the import, and ends without what Python does at the end."""
    said = run(
        "news.publish('before')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    news.publish('x'); news.publish('y')\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    at_once, at_the_end = said.splitlines()
    assert "published where no server runs" in at_once
    assert at_the_end.startswith("1 message ")


def test_a_forked_process_that_ends_in_order_is_not_told_twice() -> None:
    said = run("news.publish('before')\nif not os.fork(): raise SystemExit\nos.wait()\n")
    assert len(said.splitlines()) == 1


def test_the_counts_of_another_process_are_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    channel = Comet("k" * 32).channels.create()
    channel.publish("x")
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 0)
        channel.publish("y")
        channel.publish("z")
        WARN_AT_EXIT.function()
    (record,) = caplog.records
    assert "published where no server runs" in record.message
    WARN_AT_EXIT.function()
    assert "published where no server ran" in caplog.text


async def test_a_process_that_a_server_forked_is_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    comet = Comet("k" * 32)
    channel = comet.channels.create()
    async with comet.lifespan():
        channel.publish("x")
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 0)
            pretend_fork(comet)
            channel.publish("y")
    (record,) = caplog.records
    assert "published where no server runs" in record.message


def test_where_a_broker_is_shared_the_way_out_is_publishing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    comet = Comet("k" * 32, broker=join(1)[0])
    channel = comet.create(scope=SITE, name="news", type=str)
    channel.publish("x")
    channel.publish("y")
    WARN_AT_EXIT.function()
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 0)
        channel.publish("z")
    for told in ("2 messages were published where no server ran", "where no server runs"):
        (line,) = [one.message for one in caplog.records if told in one.message]
        assert "publish within `with comet.publishing():`" in line
        assert "endpoint" not in line
