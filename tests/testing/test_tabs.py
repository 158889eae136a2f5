"""Browsers and tabs: requests, cookies, users, and what a tab reads."""

from __future__ import annotations

from typing import get_args

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_comet import ChannelClosed, ChannelFull, ProcessClosed
from asgi_comet.testing import CometApp
from asgi_comet.testing.reading import Transport

pytestmark = pytest.mark.anyio

transports = pytest.mark.parametrize("transport", get_args(Transport))


# Pages


async def test_a_page_brings_its_channels_and_their_positions(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    assert set(tab.page["channels"]) == {"news", "inbox"}
    assert tab.process == tab.page["process"]
    inbox = tab.channel("inbox")
    assert await inbox.next() == "Welcome"
    assert repr(inbox) == "<ChannelReader '~inbox', 1 messages>"
    await comet_app.check()


async def test_a_page_without_a_script_of_comet_has_no_client_process(
    app: FastAPI, comet_app: CometApp
) -> None:
    app.get("/plain", response_class=PlainTextResponse)(lambda: "<script>1</script>")
    tab = await comet_app.browser().open("/plain")
    assert (tab.page, tab.process, tab.closed) == ({}, "", False)
    await tab.close()  # there is nothing to close
    news = tab.channel("news")
    await tab.post("/news", json="Hello")
    assert await news.next() == "Hello"


async def test_a_page_that_is_an_error_is_no_page(comet_app: CometApp) -> None:
    with pytest.raises(AssertionError, match="expected a page at /none, got 404"):
        await comet_app.browser().open("/none")


async def test_requests_of_a_tab_name_its_client_process(comet_app: CometApp) -> None:
    browser = comet_app.browser()
    first, second = await browser.open("/"), await browser.open("/")
    assert (await first.get("/me")).json()["process"] != (await second.get("/me")).json()["process"]
    assert [tab.process for tab in browser.tabs] == [first.process, second.process]
    assert comet_app.tabs == browser.tabs


async def test_requests_of_each_method(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    for send in (tab.post, tab.put, tab.patch):
        await send("/news", json="Hello", headers={"X-More": "1"})
        assert await news.next() == "Hello"
    await tab.delete("/news")
    await tab.request("DELETE", "/news")
    assert [await news.next(), await news.next()] == ["nothing", "nothing"]


async def test_headers_of_a_browser_come_with_each_request(comet_app: CometApp) -> None:
    browser = comet_app.browser(headers={"X-User": "ada"})
    assert (await (await browser.open("/")).get("/me")).json()["user"] == "ada"


async def test_a_browser_may_be_of_a_user(comet_app: CometApp) -> None:
    asked = await comet_app.browser(headers={"X-User": "eve"}).open("/")
    for user in ("ada", "bob", None):
        tab = await comet_app.browser(user).open("/")
        assert (await tab.get("/me")).json()["user"] == user
    assert (await asked.get("/me")).json()["user"] == "eve"  # no user was given: the app is asked


async def test_what_an_endpoint_raises_comes_to_the_test(comet_app: CometApp) -> None:
    with pytest.raises(LookupError, match="no such thing"):
        await comet_app.browser().tab().get("/fails")
    await comet_app.check()


async def test_what_the_application_raises_after_its_answer_is_found_by_check(
    app: FastAPI, comet_app: CometApp
) -> None:
    assert (await comet_app.browser().tab().get("/fails-later")).json() == "ok"
    app.state.late.set()
    with pytest.raises(AssertionError, match=r"has raised LookupError\('too late'\)"):
        await comet_app.check()


@pytest.mark.parametrize("sent", [0, 1])
async def test_an_application_that_returns_amid_its_answer(
    app: FastAPI, comet_app: CometApp, sent: int
) -> None:
    async def raw(scope: Scope, receive: Receive, send: Send) -> None:
        if sent:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})

    app.mount("/raw", raw)
    tab = comet_app.browser().tab()
    if sent:
        assert (await tab.get("/raw/")).text == "begun"
    else:
        with pytest.raises(RuntimeError, match="expected an answer to GET /raw/, the application"):
            await tab.get("/raw/")


# Channels


@transports
async def test_a_tab_reads_channels_of_the_site_and_its_own(
    comet_app: CometApp, transport: Transport
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox", transport=transport)
    news = tab.channel("news", transport=transport)
    other = (await comet_app.browser().open("/")).channel("inbox", transport=transport)
    assert await inbox.next() == await other.next() == "Welcome"
    await tab.post("/news", json="for all")
    await tab.post("/inbox", json="for one")
    assert await news.next() == "for all"
    assert await inbox.next() == "for one"
    for reader in (news, inbox, other):
        await reader.expect_silence()
    assert tab.channels == [inbox, news]
    assert inbox.messages == ["Welcome", "for one"]
    assert len(inbox.positions) == 2
    await comet_app.check()


@transports
async def test_a_text_that_is_json_is_read_as_the_transport_tells(
    comet_app: CometApp, transport: Transport
) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news", transport=transport)
    await tab.post("/news", json="7")
    assert await news.next() == (7 if transport == "registration" else "7")
    await comet_app.check()


@transports
async def test_the_end_of_a_channel_is_raised(comet_app: CometApp, transport: Transport) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news", transport=transport)
    await tab.post("/news", json="the last one")
    await tab.post("/end")
    assert await news.next() == "the last one"
    with pytest.raises(ChannelClosed, match="news"):
        await news.next()
    with pytest.raises(AssertionError, match="expected silence on 'news', got the end"):
        await news.expect_silence()
    await comet_app.check()


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_a_reader_that_missed_messages_is_told(
    comet_app: CometApp, transport: Transport
) -> None:
    tab = await comet_app.browser().open("/")
    for n in range(5):  # of which the channel holds three
        await tab.post("/news", json=str(n))
    news = tab.channel("news", transport=transport)  # from where the page says
    with pytest.raises(ChannelFull):
        await news.next()
    assert isinstance(news.error, ChannelFull)
    again = tab.channel("news", start=news.error.position, transport=transport)
    await again.expect_silence()
    await comet_app.check()


async def test_a_registration_that_is_answered_without_a_message_goes_on(
    comet_app: CometApp,
) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news", transport="registration")
    await news.expect_silence()
    comet_app.clock.advance(60)
    await news.expect_silence()
    await tab.post("/news", json="Hello")
    assert await news.next() == "Hello"


async def test_a_channel_is_read_from_a_start(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    for text in ("first", "second", "third"):
        await tab.post("/news", json=text)
    assert await tab.channel("news", start="last:1").next() == "third"
    assert await tab.channel("news", start="first").next() == "first"
    assert await tab.channel("news").next() == "first"  # that of the page
    await tab.channel("other", start="now").expect_silence()


async def test_an_unknown_transport_is_refused(comet_app: CometApp) -> None:
    expected = "expected 'websocket', 'sse', 'poll' or 'registration' as transport, got 'pigeon'"
    with pytest.raises(ValueError, match=expected):
        comet_app.browser().tab().channel("news", transport="pigeon")  # type: ignore[arg-type]


async def test_a_message_that_does_not_come_is_known_at_once(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    await tab.post("/news", json="Hello")
    await news.next()
    expected = r"expected a message on 'news', but nothing comes: 1 came before, .*'Hello'"
    with pytest.raises(AssertionError, match=expected):
        await news.next()


async def test_an_unexpected_message_breaks_the_silence(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    await tab.post("/news", json="Hello")
    with pytest.raises(AssertionError, match=r"expected silence on 'news', got \['Hello'\]"):
        await news.expect_silence()


# Tabs that come and go


async def test_a_tab_without_a_page_has_a_client_process_when_it_needs_one(
    comet_app: CometApp,
) -> None:
    tab = comet_app.browser().tab()
    assert tab.process == ""
    inbox = tab.channel("~inbox", start="first")
    await comet_app.settle()
    assert tab.process
    await tab.post("/inbox", json="Hello")
    assert await inbox.next() == "Hello"


async def test_of_two_tabs_with_one_client_process_one_reads(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox")
    assert await inbox.next() == "Welcome"
    copy = tab.duplicate()
    assert (copy.page, copy.process) == (tab.page, tab.process)
    again = copy.channel("inbox", start=inbox.positions[-1])
    await comet_app.settle()
    assert inbox.error is not None  # replaced
    await copy.post("/inbox", json="for the copy")
    assert await again.next() == "for the copy"
    await comet_app.check()


async def test_own_channels_of_a_tab_are_read_over_one_connection(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox")
    assert await inbox.next() == "Welcome"
    alerts = tab.channel("~alerts")
    await tab.post("/alert", json="fire")
    await tab.post("/inbox", json="again")
    assert (await alerts.next())["value"] == "fire"
    assert await inbox.next() == "again"
    assert len(tab.traffic.readings) == 1
    await comet_app.check()


async def test_a_tab_that_is_closed_closes_its_client_process(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox")
    await inbox.next()
    assert not tab.closed
    await tab.close()
    assert tab.closed
    await comet_app.check()


async def test_a_tab_that_leaves_without_a_word_is_closed_by_time(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    tab.channel("inbox")
    await comet_app.settle()
    tab.leave()
    await comet_app.settle()
    assert not tab.closed
    comet_app.clock.advance(600)
    assert tab.closed


async def test_a_duplicate_of_a_closed_tab_is_told(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    await tab.close()
    with pytest.raises(ProcessClosed):
        await tab.duplicate().channel("inbox").next()


async def test_a_tab_comes_back_once_push_is_switched_on_again(comet_app: CometApp) -> None:
    comet_app.comet.activation.deactivate()
    tab = comet_app.browser().tab()
    inbox = tab.channel("~inbox", start="first")
    await inbox.expect_silence()
    comet_app.comet.activation.activate()
    comet_app.clock.advance(60)
    await tab.post("/inbox", json="Hello")
    assert await inbox.next() == "Hello"
    await comet_app.check()


# The last request, once more


async def test_a_repeated_request_is_served_again(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    await tab.post("/news", json="Hello")
    answer = await tab.repeat()
    assert answer is not None
    assert answer.json() is None
    assert [await news.next(), await news.next()] == ["Hello", "Hello"]


async def test_a_repeated_request_that_the_server_holds_has_no_answer(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news", transport="poll")
    await news.expect_silence()
    assert await tab.repeat() is None
    await tab.post("/news", json="Hello")
    assert await news.next() == "Hello"
    await news.expect_silence()
    await comet_app.check()


async def test_a_tab_that_has_sent_nothing_repeats_nothing(comet_app: CometApp) -> None:
    with pytest.raises(RuntimeError, match="expected a tab that has sent a request"):
        await comet_app.browser().tab().repeat()
