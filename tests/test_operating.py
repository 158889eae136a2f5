"""What `docs/operating.md` says is so: its commands, and its tables of settings and figures."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_comet import SITE, Comet, Settings, settings
from asgi_comet.testing import join, wait_for_listeners
from tests.kit.serving import Address, Tab, poll, serve
from tests.kit.stage import KEY, TOKEN, application
from tests.kit.streams import Sse, Ws

PAGE = (Path(__file__).parent.parent / "docs" / "operating.md").read_text()
UNITS = {
    "seconds": 1,
    "milliseconds": 1,
    "days": 24 * 3600,
    "bytes": 1,
    "MiB": 2**20,
    "characters": 1,
    "notifications": 1,
}


def rows(begin: str) -> list[list[str]]:
    """The cells of a table, by how its first line begins; without the two lines of its head."""
    table = PAGE[PAGE.index(f"\n| {begin}") + 1 :].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


# The commands


def test_each_command_of_the_page_answers_what_the_page_shows(
    comet: Comet, server: Address
) -> None:
    shown = re.findall(r"```sh\n(curl .*)\n```\n\n```json\n(.*)\n```", PAGE)
    assert len(shown) == 5
    for command, answer in shown:
        line = command.replace("http://127.0.0.1:8000", server.url).replace("curl", "curl -sS", 1)
        run = subprocess.run(
            ["bash", "-c", line], env={"TOKEN": TOKEN}, capture_output=True, text=True, check=True
        )
        expected, found = json.loads(answer), json.loads(run.stdout)
        assert expected.keys() <= found.keys()
        assert (found["active"], found["timeout"]) == (expected["active"], expected["timeout"])


def test_each_field_of_the_status_is_explained(server: Address) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    status = json.loads(server.request("GET", "/comet/admin/status", headers=headers).body)
    assert [row[0] for row in rows("field |")] == [f"`{name}`" for name in status]


def test_each_field_of_the_status_with_a_broker_is_explained() -> None:
    (broker,) = join(1)
    with serve(application(Comet(KEY, admin=TOKEN, broker=broker))) as server:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        status = json.loads(server.request("GET", "/comet/admin/status", headers=headers).body)
    named = [row[0] for row in [*rows("field |"), *rows("field with a broker")]]
    assert named == [f"`{name}`" for name in status]
    (example,) = [row[1] for row in rows("field with a broker") if row[0] == "`all`"]
    assert list(json.loads(example.split("`")[1])) == list(status["all"])


def test_each_command_of_the_language_works(comet: Comet) -> None:
    for command, _ in rows("command"):
        comet.activation.command(command.strip("`"))
        comet.activation.command("comet:" + command.strip("`"))
    assert comet.activation.timeout == 5


# Switching push off, and KILL


@pytest.fixture
def stream(comet: Comet, server: Address) -> Iterator[Sse]:
    comet.create(scope=SITE, name="news")
    with Sse.get(server, "/comet/events?channel=news") as found:
        assert found.next().name == ":open"
        yield found


def test_while_push_is_off_each_request_is_answered_as_the_page_says(
    comet: Comet, server: Address, stream: Sse
) -> None:
    news = comet.create(scope=SITE, name="other")
    tab = Tab(server)
    (begun,) = poll(server, {"other": "now"})
    comet.activation.deactivate()
    assert stream.next().name == ":deactivated"
    refused = [
        tab.post("/comet/poll", {"channels": {"other": "now"}}),
        tab.post("/comet/open"),
        tab.post(f"{tab.url}/ack", {"~inbox": "e.1"}),
        server.register("registration=other"),
    ]
    assert [answer.status for answer in refused] == [503] * 4
    assert all(5 <= int(answer.headers["retry-after"]) <= 15 for answer in refused)
    with Sse.get(server, "/comet/events?channel=other") as one:
        assert (one.status, one.next().name) == (200, ":deactivated")
    with Ws(server) as socket:
        assert socket.closed() == 1013
    assert server.request("GET", "/comet/comet.js").status == 200
    assert tab.post(f"{tab.url}/close").status == 204
    news.publish("meanwhile")
    comet.activation.activate()
    (event,) = poll(server, {"other": begun["position"]})
    assert event["data"] == "meanwhile"


def test_kill_ends_polls_and_leaves_streams_and_websockets_open(
    comet: Comet, server: Address, stream: Sse
) -> None:
    channel = comet.create(scope=SITE, name="other")
    tab = Tab(server)
    (begun,) = poll(server, {"other": "now"})
    held = tab.hold({"other": begun["position"]})
    with Ws(server) as socket:
        socket.say(subscribe={"other": "now"})
        socket.next()
        wait_for_listeners(channel, 2)
        comet.activation.command("set_timeout 5 KILL")
        assert json.loads(held.answer().body) == {"events": []}
        channel.publish("after")
        assert socket.next()["data"] == "after"


# The tables


def make_table() -> str:
    """The table of all settings, from the source of `Settings`: its docstrings and annotations."""
    lines = ["| setting | variable | default | unit | what it is |", "|---|---|---|---|---|"]
    (tree,) = (
        node
        for node in ast.parse(inspect.getsource(settings)).body
        if isinstance(node, ast.ClassDef)
    )
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            name = ast.unparse(field.target)
            default = getattr(Settings(), name)
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert isinstance(text, ast.Expr)
            told = " ".join(inspect.cleandoc(ast.literal_eval(text.value)).split())
            unit = re.search("Seconds|Bytes", ast.unparse(field.annotation))
            variable = f"COMET_{name.upper()}"
            cells = [
                f"`{name}`",
                f"`{variable}`",
                f"`{shown}`",
                unit[0].lower() if unit else "",
                told,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_table_of_settings_is_made_from_settings() -> None:
    table = make_table()
    assert f"\n\n{table}\n\n" in PAGE, f"docs/operating.md should have this table:\n\n{table}"


@pytest.mark.parametrize("row", rows("what | how much"), ids=lambda row: row[-1])
def test_each_fixed_figure_is_that_of_the_package(row: list[str]) -> None:
    _, shown, constant = row
    module, _, name = constant.strip("`").rpartition(".")
    figures, _, unit = shown.rpartition(" ")
    found: Any = getattr(importlib.import_module(f"asgi_comet.{module}"), name)
    expected = [float(figure) * UNITS[unit] for figure in figures.split(" to ")]
    assert (list(found) if isinstance(found, tuple) else [found]) == expected


def test_each_logger_of_the_page_is_a_module() -> None:
    for name in re.findall(r"`(asgi_comet\.[\w.]+)`", PAGE):
        importlib.import_module(name)
