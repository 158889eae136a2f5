"""The examples about rights, users, notifications and models do what the documents say."""

from __future__ import annotations

import itertools
import json
import queue
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import inside
from examples import (
    fastapi_models,
    leaving,
    manual_notifications,
    members,
    notifications,
    own_cookie,
    rooms,
    users,
)
from tests.kit.serving import Held, serve
from tests.kit.streams import PATIENCE
from tests.kit.tabs import Browser, Page

# rooms.py


MakeBrowser = Callable[..., Browser]


@pytest.fixture
def make_browser() -> Iterator[MakeBrowser]:
    with ExitStack() as stack:

        def make(url: str, other: Browser | None = None) -> Browser:
            browser = Browser(url, other)
            stack.callback(browser.client.close)
            return browser

        yield make


@pytest.fixture
def house() -> Iterator[str]:
    members = {room: set(people) for room, people in rooms.MEMBERS.items()}
    with serve(rooms.app) as address:
        yield address.url
    rooms.MEMBERS.update(members)


def test_a_room_is_read_by_its_members_until_they_are_shown_out(
    house: str, make_browser: MakeBrowser, capsys: pytest.CaptureFixture[str]
) -> None:
    ada, bob, eve = (make_browser(house) for _ in range(3))
    for browser, user in ((ada, "ada"), (bob, "bob"), (eve, "eve")):
        assert browser.send("POST", f"/login/{user}").status_code == 200
    assert eve.next("room:kitchen") == eve.next("room:attic") == "forbidden"
    assert eve.send("POST", "/rooms/kitchen", "let me in").status_code == 403
    assert eve.send("DELETE", "/rooms/kitchen/members/ada").status_code == 403
    assert capsys.readouterr().out == ""  # a refusal starts nothing
    for one in (ada, bob):
        one.positions["room:kitchen"] = "last:1"
        assert one.next("room:kitchen").startswith("It is ")
    assert capsys.readouterr().out == "kitchen is lit\n"
    assert bob.send("POST", "/rooms/kitchen", "hello").status_code == 200
    assert ada.next("room:kitchen") == bob.next("room:kitchen") == "hello"
    told = queue.SimpleQueue[str]()
    threading.Thread(target=lambda: told.put(bob.next("room:kitchen"))).start()
    wait_for_listeners(rooms.talk.channel(room="kitchen"), 1)
    assert ada.send("DELETE", "/rooms/kitchen/members/bob").status_code == 200
    assert told.get(timeout=PATIENCE) == "forbidden"
    assert bob.next("room:kitchen") == "forbidden"
    assert ada.send("POST", "/rooms/kitchen", "he is gone").status_code == 200
    assert ada.next("room:kitchen") == "he is gone"


# members.py


PAGE = (Path(__file__).parent.parent / "docs" / "authorisation.md").read_text()


def test_the_page_about_rights_begins_with_the_whole_program() -> None:
    (shown, *_) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert Path(members.__file__).read_text().endswith(f'"""\n\n{shown}')


def test_curl_listens_as_a_member_and_is_refused_otherwise_as_shown(tmp_path: Path) -> None:
    _, log_in, publish, hello, follow, refusal = re.findall(
        r"```(?:sh|text)\n(.*?)```", PAGE, re.DOTALL
    )
    *log_in, follow_as_member = log_in.splitlines()
    with serve(members.app) as address:

        def start(line: str) -> subprocess.Popen[str]:
            command = shlex.split(line.replace("http://127.0.0.1:8000", address.url))
            return subprocess.Popen(
                [*command, "-s"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
            )

        def run(line: str) -> None:
            with start(line) as curl:
                assert curl.wait(PATIENCE) == 0

        for line in log_in:
            run(line)
        with start(follow_as_member) as ada:
            wait_for_listeners(members.rooms.channel(room="kitchen"), 1)
            run(publish)
            assert read_events(ada, hello.count("\n")) == without_epochs(hello)
            ada.kill()
        with start(follow) as eve:
            assert read_events(eve, refusal.count("\n")) == without_epochs(refusal)
            assert eve.wait(PATIENCE) == 0
        with httpx.Client(base_url=address.url) as stranger:
            assert stranger.post("/rooms/kitchen?text=Hello").status_code == 403


def without_epochs(text: str) -> str:
    return re.sub(r"[\w-]+\.(?=\d)", "", text)


def read_events(curl: subprocess.Popen[str], lines: int) -> str:
    """Read as many lines as a page shows, which leaves out when to come back."""
    assert curl.stdout is not None
    said = (line for line in curl.stdout if not line.startswith("retry:"))
    return without_epochs("".join(itertools.islice(said, lines)))


# own_cookie.py


def test_a_cookie_of_the_application_names_the_user(make_browser: MakeBrowser) -> None:
    with serve(own_cookie.app) as address:
        ada, forger = make_browser(address.url), make_browser(address.url)
        assert ada.send("POST", "/login/ada").status_code == 200
        forger.client.cookies.set("login", ada.client.cookies["login"][:-1] + "~")
        assert forger.poll("news").status_code == 200
        (process,) = own_cookie.comet.processes(user="ada")
        assert process.url == ada.tab["url"]
        late = httpx.Client(base_url=address.url)  # a browser that has kept that cookie alone
        late.cookies.set("login", ada.client.cookies["login"])
        with late:
            late.post("/comet/open").raise_for_status()
        assert len(own_cookie.comet.processes(user="ada")) == 2
        assert ada.send("POST", "/logout").status_code == 200
        assert "login" not in ada.client.cookies
        assert [p.url for p in own_cookie.comet.processes(user="ada")] != [ada.tab["url"]]
        assert len(own_cookie.comet.processes()) == 2  # the tab of the forger, and the late one


# users.py


def test_tabs_learn_who_is_logged_in_and_who_is_no_more(make_browser: MakeBrowser) -> None:
    with serve(users.app) as address:
        tab = make_browser(address.url)
        other, elsewhere = make_browser(address.url, tab), make_browser(address.url)
        assert other.poll("~comet").json()["events"][0]["position"] == "new.0"
        other.positions["~comet"] = "new.0"
        assert "You are a visitor." in tab.client.get("/").text
        before = dict(tab.client.cookies)
        assert tab.send("POST", "/login/ada").status_code == 200
        assert tab.client.cookies["comet"] != before["comet"]
        assert other.next("~comet") == {"event": "user-changed"}
        page = tab.client.get("/").text
        assert "You are ada." in page
        assert 'id="comet"' in page
        tabs = {"browsers": 1, "tabs": 4}  # with the two that `GET /` opened
        assert elsewhere.client.get("/online/ada").json() == tabs
        assert elsewhere.client.get("/online/bob").json() == {"browsers": 0, "tabs": 0}

        assert tab.send("POST", "/login/bob").status_code == 200  # one user for another
        assert other.poll("~comet").status_code == 410
        anew = make_browser(address.url, tab)
        assert elsewhere.client.get("/online/bob").json() == {"browsers": 1, "tabs": 1}
        assert anew.send("POST", "/logout").status_code == 200
        assert anew.poll("~comet").status_code == 410
        assert elsewhere.client.get("/online/bob").json() == {"browsers": 0, "tabs": 0}


# notifications.py


def test_who_is_there_is_told_and_who_is_not_is_written_an_email(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = queue.SimpleQueue[tuple[str, str]]()
    monkeypatch.setattr(notifications, "PATIENCE", 0.5)
    monkeypatch.setattr(notifications, "send_mail", lambda user, m: sent.put((user, m.text)))
    with serve(notifications.app) as address:
        ada, bob, visitor = Page(address, "ada"), Page(address, "bob"), Page(address)
        for page in (ada, bob, visitor):
            reference = json.loads(page.say("/threads/1/listen").body)
            assert reference["channel"] == "~messages"
            page.positions["~messages"] = reference["position"]
        assert bob.say("/threads/1", "hello").status == 200
        assert ada.take("~messages", 1) == [{"key": 1, "value": {"author": "bob", "text": "hello"}}]
        (hidden,) = visitor.take("~messages", 1)
        assert hidden["value"]["text"] == "(log in to read it)"

        assert visitor.say("/threads/1", "who are you?").status == 200
        for page in (ada, bob):
            (told,) = page.take("~messages", 1)
            assert told["value"] == {"author": "a visitor", "text": "who are you?"}
        # Of the first nobody got one: bob wrote it, and eve wants nothing of him.
        assert sent.get(timeout=PATIENCE) == ("eve", "who are you?")

        assert ada.say("/threads/1/unlisten").status == 204
        assert bob.say("/threads/1/close").status == 200
        (told,) = bob.take("~messages", 1)
        assert told["value"]["text"] == "This thread is closed, bob."
        assert notifications.messages.listeners(1)[0].user == "bob"
        assert len(notifications.messages.listeners(1)) == 2
        assert sent.empty()
    assert len(notifications.messages) == 0


def test_a_tab_of_which_nothing_is_known_is_told_so() -> None:
    with serve(notifications.app) as address:
        answer = address.request("POST", "/threads/1", '"hello"')
        assert answer.status == 403
        assert "expected a current client process" in answer.body.decode()


# manual_notifications.py


def test_all_tabs_of_a_user_are_told_by_hand() -> None:
    with serve(manual_notifications.app) as address:
        ada = Page(address, "ada")
        tab, browser = Page(address, browser=ada), Page(address, "ada")
        late, bob = Page(address, browser=ada), Page(address, "bob")
        for page in (ada, tab, browser, bob):
            reference = json.loads(page.say("/start").body)
            assert (reference["channel"], reference["url"]) == ("~inbox", page.url)
            page.positions["~inbox"] = reference["position"]
        assert bob.say("/notify/ada", "hello").status == 200
        for page in (ada, tab, browser, late):  # the last has not asked for it yet
            assert page.take("~inbox", 1) == ["hello"]
        assert ada.say("/notify/bob", "good evening").status == 200
        assert bob.take("~inbox", 1) == ["good evening"]
    assert len(inside(manual_notifications.comet).channels) == 0


# fastapi_models.py


def test_a_model_tells_a_page_where_its_channels_are() -> None:
    with serve(fastapi_models.app) as address:
        page = Page(address)
        answer = page.say("/desk")
        desk = json.loads(answer.body)
        assert desk["notes"]["url"] == page.url
        assert desk["temperature"]["url"] == "/comet"
        page.positions["~notes"] = desk["notes"]["position"]
        page.positions["temperature"] = "last:1"
        assert page.take("temperature", 1) == [20.5]
        assert page.say("/notes", "Buy milk").status == 200
        assert page.take("~notes", 2) == [f"This is tab {desk['tab'][:6]}.", "Buy milk"]

        page.post(f"{page.url}/close")
        assert page.say("/desk").status == 410
        assert address.request("POST", "/desk").status == 403

        schema = json.loads(address.request("GET", "/openapi.json").body)["components"]["schemas"]
        assert schema["Desk"]["properties"]["notes"]["$ref"].endswith("/ChannelReference")
        assert set(schema["ChannelReference"]["required"]) == {"url", "channel", "position"}


# leaving.py


def test_who_comes_is_away_and_leaves_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "AWAY", 0.2)
    with serve(leaving.app) as address:
        one, other = Page(address), Page(address)
        one.positions["log"] = "last:10"
        (process,) = (p for p in leaving.comet.processes() if p.url == other.url)
        assert other.say("/here").status == 200
        assert one.take("log", 2) == [f"{process.id[:6]} is here", f"{process.id[:6]} is away"]
        other.post(f"{other.url}/close")
        assert one.take("log", 1) == [f"{process.id[:6]} has left; 1 remain"]
        waving = Held(lambda: address.request("POST", "/wave"))
        assert one.take("log", 1) == ["somebody waves"]
        assert waving.answer().body == b'"seen"'
