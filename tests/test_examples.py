"""The examples that the documents show do what the documents say."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_comet import SITE, Channel, Comet
from asgi_comet.testing import wait_for_listeners
from examples import eventsource, follow, follow_once, htmx, kinds, listen
from examples.fastapi_app import main
from tests.kit.serving import Address, serve

ROOT = Path(__file__).parent.parent
KINDS = ("py", "js", "conf")
EXAMPLES = [path for kind in KINDS for path in ROOT.glob(f"examples/**/*.{kind}")]
EXAMPLES.append(ROOT / "tests/test_examples_with_kit.py")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; none takes long."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.fixture
def news(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="news")


# follow.py


async def test_follow_prints_what_comes(
    server: Address, news: Channel[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.request("GET", "/").status == 200  # it runs: what is closed now can be read
    news.publish({"price": 1.5})
    news.close()
    await follow.main(f"{server.url}/comet", ["news"])
    assert capsys.readouterr().out == "news {'price': 1.5}\n"


# follow_once.py


def test_follow_once_keeps_messages_and_positions(
    server: Address, news: Channel[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.request("GET", "/").status == 200
    for value in ({"price": 1.5}, "x"):
        news.publish(value)
    reference = news.reference()
    news.close()
    path = str(tmp_path / "news.sqlite")
    follow_once.main(f"{server.url}/comet", "news", path)
    with closing(follow_once.Database(path).connection) as connection:
        values = [json.loads(value) for (value,) in connection.execute("SELECT * FROM messages")]
        positions = [*connection.execute("SELECT * FROM positions")]
    assert values == [{"price": 1.5}, "x"]
    assert positions == [("news", reference["position"])]


# listen.py


def test_listen_gets_what_is_written_until_the_channels_end(
    server: Address, comet: Comet, pauses: list[float]
) -> None:
    one, two = comet.channels.create("one"), comet.channels.create("t:w ö%")
    with httpx.Client() as client:
        heard = listen.listen(client, server.url, [one.id, two.id])
        found: list[tuple[str, str]] = []

        def hear() -> None:
            found.append(next(heard))

        for channel in (one, two):
            thread = threading.Thread(target=hear)
            thread.start()
            wait_for_listeners(channel, 1)
            channel.write("a:b\nENDED_CHANNEL")
            thread.join(20)
        one.close()
        two.close()
        assert list(heard) == []
    assert found == [(one.id, "a:b\nENDED_CHANNEL"), (two.id, "a:b\nENDED_CHANNEL")]


def test_listen_waits_while_push_is_switched_off(pauses: list[float]) -> None:
    answers = [
        httpx.Response(503, headers={"Retry-After": "9"}),
        httpx.Response(200, text=""),
        httpx.Response(200, text="news:Hello%0A\nnews:ENDED_CHANNEL"),
    ]
    transport = httpx.MockTransport(lambda request: answers.pop(0))
    with httpx.Client(transport=transport) as client:
        assert list(listen.listen(client, "http://test/", ["news"])) == [("news", "Hello\n")]
    assert pauses == [9]


# kinds.py


@pytest.fixture(scope="module")
def shop() -> Iterator[httpx.Client]:
    with serve(kinds.app) as address, httpx.Client(base_url=address.url) as client:
        yield client


def poll(client: httpx.Client, url: str, **positions: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    channels = {name.replace("own_", "~"): position for name, position in positions.items()}
    while not found:
        found = client.post(f"{url}/poll", json={"channels": channels}).json()["events"]
    return found


def test_a_source_is_read_as_soon_as_values_come(shop: httpx.Client) -> None:
    (event, *_) = poll(shop, "/comet", ticker=kinds.ticker.reference()["position"])
    assert set(event["data"]) == {"symbol", "value", "at"}


def test_a_channel_without_a_source_is_written(shop: httpx.Client) -> None:
    shop.post("/room", json="Hello").raise_for_status()
    events = poll(shop, "/comet", room="last:1")
    assert [event.get("data") for event in events][-1] == "Hello"


def test_a_newest_channel_tells_only_the_last_value(shop: httpx.Client) -> None:
    for degrees in (20.5, 21.0, 21.5):
        kinds.thermometer.publish(degrees)
    events = poll(shop, "/comet", thermometer="last:10")
    assert [event["data"] for event in events if "data" in event] == [21.5]


def test_an_external_channel_is_followed_elsewhere() -> None:
    assert kinds.elsewhere.reference() == {
        "url": "https://live.example.com/comet",
        "channel": "news",
        "position": "last:5",
    }


def test_a_tab_gets_its_own_channels_from_their_beginning(shop: httpx.Client) -> None:
    tab = shop.get("/tab").json()
    url = tab["~inbox"]["url"]

    def read(name: str) -> list[Any]:
        position = tab[name]["position"]
        return [event.get("data", event) for event in poll(shop, url, **{name: position})]

    assert read("~inbox") == ["first", "second"]
    assert read("~unread") == [2]
    greeting = read("~greeting")
    assert greeting[0] == f"Welcome, tab {url.split('/')[-1][:6]}"
    assert greeting[1] == "You have mail"
    assert shop.post(f"{url}/close").status_code == 204


# fastapi_app, without a browser; the rest is in tests/browser


@pytest.fixture(scope="module")
def demo() -> Iterator[httpx.Client]:
    with serve(main.app) as address, httpx.Client(base_url=address.url) as client:
        yield client


def start_job(demo: httpx.Client, tab: dict[str, Any]) -> httpx.Response:
    return demo.post("/job", headers={"Comet-Process": tab["process"]})


def open_tab(demo: httpx.Client) -> dict[str, Any]:
    tab: dict[str, Any] = demo.post("/comet/open").json()
    return tab


def test_the_page_of_the_demo_knows_its_tab(demo: httpx.Client) -> None:
    page = demo.get("/").text
    (told,) = re.findall(r'<script type="application/json" id="comet">(.*?)</script>', page)
    tab = json.loads(told)
    me = tab["channels"]["me"]
    assert me["url"] == tab["url"]
    (event,) = poll(demo, tab["url"], own_me=me["position"])
    assert event["data"]["tabs"] == 1
    assert tab["url"].endswith(tab["process"])


def test_the_demo_introduces_a_tab_as_often_as_it_asks(demo: httpx.Client) -> None:
    tab = open_tab(demo)
    told = [demo.post("/me", headers={"Comet-Process": tab["process"]}).json() for _ in range(2)]
    assert told[0] == told[1]
    assert told[0]["url"] == tab["url"]
    demo.post(f"{tab['url']}/close")
    assert demo.post("/me", headers={"Comet-Process": tab["process"]}).status_code == 410


@pytest.mark.parametrize("path", ["/", "/2010", "/two"])
def test_the_pages_of_the_demo_run_no_foreign_script(demo: httpx.Client, path: str) -> None:
    page = demo.get(path)
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert page.headers["cache-control"] == "no-store"
    assert "{{" not in page.text


def test_a_tab_of_the_demo_has_one_job_at_a_time(demo: httpx.Client) -> None:
    tab, other = open_tab(demo), open_tab(demo)
    assert [start_job(demo, one).status_code for one in (tab, other, tab)] == [201, 201, 409]


def test_the_demo_refuses_a_job_to_nobody_and_to_a_tab_that_is_gone(demo: httpx.Client) -> None:
    tab = open_tab(demo)
    with httpx.Client(base_url=demo.base_url) as stranger:
        assert start_job(stranger, tab).status_code == 403
        assert stranger.post("/job").status_code == 403
    demo.post(f"{tab['url']}/close")
    assert start_job(demo, tab).status_code == 410


# eventsource.py, websocket.py and htmx.py; the pages themselves are in tests/clients


def test_curl_hears_what_is_posted_as_the_documents_show_it() -> None:
    importlib.reload(eventsource)  # its channel ended when another test stopped it
    lines = (ROOT / "docs" / "transports.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("curl -N ")]
    with serve(eventsource.app) as server:
        command = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
        with subprocess.Popen([*command, "-s"], stdout=subprocess.PIPE, text=True) as curl:
            assert curl.stdout is not None
            wait_for_listeners(eventsource.news, 1)
            for text in ("Hello", "W<o>rld"):
                posted = server.request("POST", "/news", text, {"Content-Type": "text/plain"})
                assert posted.status == 204
            heard: list[str] = []
            for said in curl.stdout:
                heard += [said.strip()] if said.startswith(("event", "data")) else []
                if "rld" in said:
                    break
            curl.kill()
    assert heard[0] == "event: :open"
    assert heard[2:] == ["event: news", 'data: "Hello"', "event: news", 'data: "W<o>rld"']


def test_a_page_for_eventsource_is_told_where_its_channel_is() -> None:
    importlib.reload(eventsource)
    with serve(eventsource.app) as server:
        for path, url, channel in (
            ("/", "/comet", "news"),
            ("/inbox", "/comet/p/[^/]+", "~inbox"),
        ):
            page = server.request("GET", path).body.decode()
            (told,) = re.findall(r"^follow\((.*)\)$", page, re.MULTILINE)
            reference = json.loads(told)
            assert re.fullmatch(url, reference["url"])
            assert reference["channel"] == channel
            assert reference["position"]


def test_a_page_for_htmx_holds_what_was_posted_and_where_to_go_on() -> None:
    importlib.reload(htmx)
    with serve(htmx.app) as server:
        for text in ("<Hello>", "World"):
            server.request("POST", "/rooms/kitchen", text, {"Content-Type": "text/plain"})
        page = server.request("GET", "/rooms/kitchen").body.decode()
        assert '<li id="m1">&lt;Hello&gt;</li><li id="m2">World</li>' in page
        reference = htmx.rooms.channel(room="kitchen").reference()
        assert reference["position"].endswith(".2")
        assert f'comet-from="{reference["position"]}"' in page
        assert "<li" not in server.request("GET", "/rooms/cellar").body.decode()
        assert server.request("GET", "/rooms/attic").status == 422


# The documents


# Lines that may be shown without being run.
LONGEST = {"python": 6, "javascript": 7, "html": 7, "nginx": 3}


def read_code(document: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", document.read_text(), re.DOTALL)


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_longer_code_in_the_documents_comes_from_the_examples(document: Path) -> None:
    sources = [path.read_text() for path in EXAMPLES]
    for code in read_code(document, "python"):
        compile(code, document.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for kind, most in LONGEST.items():
        for code in read_code(document, kind):
            if len([line for line in code.splitlines() if line.strip()]) > most:
                assert any(code in source for source in sources), code
