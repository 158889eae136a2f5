"""Cut, stalled and lost connections: nothing is lost silently."""

from __future__ import annotations

from typing import get_args

import pytest

from asgi_comet import ProcessClosed
from asgi_comet.testing import CometApp
from asgi_comet.testing.lines import Cutting
from asgi_comet.testing.reading import Transport

pytestmark = pytest.mark.anyio

transports = pytest.mark.parametrize("transport", get_args(Transport))
cuttings = pytest.mark.parametrize("where", get_args(Cutting))


@transports
@cuttings
async def test_what_is_published_during_a_cut_comes_afterwards(
    comet_app: CometApp, transport: Transport, where: Cutting
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox", transport=transport)
    news = tab.channel("news", transport=transport)
    assert await inbox.next() == "Welcome"
    async with tab.cut(where):
        await tab.post("/inbox", json="mine")
        await tab.post("/news", json="everyone's")
        assert (await tab.get("/me")).is_success  # requests of the page are not concerned
    assert await inbox.next() == "mine"
    assert await news.next() == "everyone's"
    await inbox.expect_silence()
    await news.expect_silence()
    await comet_app.check()


@transports
@cuttings
async def test_a_tab_that_begins_to_read_during_a_cut_reads_afterwards(
    comet_app: CometApp, transport: Transport, where: Cutting
) -> None:
    tab = await comet_app.browser().open("/")
    async with tab.cut(where):
        inbox = tab.channel("inbox", transport=transport)
    assert await inbox.next() == "Welcome"
    await comet_app.check()


@transports
async def test_nothing_comes_while_a_connection_is_cut(
    comet_app: CometApp, transport: Transport
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox", transport=transport)
    assert await inbox.next() == "Welcome"
    async with tab.cut("before answer"):
        await tab.post("/inbox", json="Hello")
        await inbox.expect_silence()
    assert await inbox.next() == "Hello"


@transports
async def test_a_stalled_connection_stays_and_goes_on(
    comet_app: CometApp, transport: Transport
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox", transport=transport)
    assert await inbox.next() == "Welcome"
    async with tab.stall():
        for n in range(3):
            await tab.post("/inbox", json=f"message {n}")
        await inbox.expect_silence()
    assert [await inbox.next() for _ in range(3)] == [f"message {n}" for n in range(3)]
    await comet_app.check()


@transports
async def test_a_tab_may_leave_while_it_is_stalled(
    comet_app: CometApp, transport: Transport
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox", transport=transport)
    assert await inbox.next() == "Welcome"
    async with tab.stall():
        await tab.post("/inbox", json="Hello")
        await tab.close()
    await comet_app.check()


async def test_a_reader_that_is_away_for_too_long_has_no_client_process_any_more(
    comet_app: CometApp,
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox")
    assert await inbox.next() == "Welcome"
    async with tab.cut("before answer"):
        comet_app.clock.advance(600)
    assert tab.closed
    with pytest.raises(ProcessClosed):
        await inbox.next()
    await comet_app.check()


async def test_a_place_that_does_not_exist_is_refused(comet_app: CometApp) -> None:
    tab = comet_app.browser().tab()
    expected = "expected one of 'before answer', 'after answer', 'inside a frame', got 'later'"
    with pytest.raises(ValueError, match=expected):
        async with tab.cut("later"):  # type: ignore[arg-type]
            pytest.fail("the cut began")


async def test_a_fault_ends_with_its_context_also_if_the_test_fails_there(
    comet_app: CometApp,
) -> None:
    tab = await comet_app.browser().open("/")
    inbox = tab.channel("inbox")
    with pytest.raises(LookupError):
        async with tab.cut("before answer"):
            raise LookupError
    assert await inbox.next() == "Welcome"
