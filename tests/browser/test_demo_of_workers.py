"""`scripts/demo --workers 4`: the demo on several workers.

With `--workers 3` all other tests of the demo run on several workers, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import run_demo
from tests.kit.programs import ROOT, find_program
from tests.kit.visitors import browser_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def workers() -> Iterator[str]:
    """Run `scripts/demo` on four workers."""
    find_program("redis-server")
    yield from run_demo(ROOT / "scripts" / "demo", "--workers", "4")


def open_page(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#state")).to_have_attribute("data-state", "online")


def wait_for_pulse(page: Page, more: int = 20) -> None:
    """Return once so many more messages have come, of which none was missed."""
    pulse = page.locator("#pulse")
    seen = int(pulse.get_attribute("data-received") or "0")
    while int(pulse.get_attribute("data-received") or "0") < seen + more:
        pass
    expect(pulse).to_have_attribute("data-missing", "0")


def test_figures_and_the_pulse_move(workers: str, page: Page) -> None:
    open_page(page, workers)
    wait_for_pulse(page)
    for figure in ("#cpu-value", "#memory-value", "#network-value", "#gauge-value"):
        expect(page.locator(figure)).not_to_have_text("–")
    count = int(page.locator("#cpu-value").get_attribute("data-count") or "0")
    expect(page.locator("#cpu-value")).not_to_have_attribute("data-count", str(count))


def test_a_figure_is_published_once_for_all_workers(workers: str) -> None:
    times: list[float] = []
    while len(times) < 4:
        body = {"channels": {"cpu": "last:60"}}
        events = httpx.post(f"{workers}/comet/poll", json=body, timeout=30).json()["events"]
        times = [event["data"]["at"] for event in events if "data" in event]
    assert all(later - before >= 0.9 for before, later in pairwise(times))


def test_a_post_reaches_the_pages_of_all_workers(workers: str, page: Page) -> None:
    pages = [page, *(page.context.new_page() for _ in range(3))]
    for one in pages:
        open_page(one, workers)
    page.fill("#wall-text", "to all of them")
    page.press("#wall-text", "Enter")
    for one in pages:
        expect(one.locator("#wall-list").get_by_text("to all of them")).to_have_count(1)


def test_the_page_of_2010_shows_figures(workers: str, page: Page) -> None:
    open_page(page, f"{workers}/2010")
    expect(page.locator("#cpu-value")).not_to_have_attribute("data-count", "0")
    page.fill("#wall-text", "from 2010")
    page.press("#wall-text", "Enter")
    expect(page.locator("#wall-list").get_by_text("from 2010")).to_have_count(1)


def test_a_tab_is_cut_off_whichever_worker_is_asked(workers: str, page: Page) -> None:
    open_page(page, workers)
    wait_for_pulse(page)
    page.click("text=Cut the line for 5 seconds")
    expect(page.locator("#pulse")).to_have_attribute("data-round", "1", timeout=60_000)
    expect(page.locator("#pulse-says")).to_contain_text("and none are missing")


def test_a_tab_has_its_own_job_and_knows_how_many_tabs_there_are(workers: str, page: Page) -> None:
    pages = [page, page.context.new_page()]
    for one in pages:
        open_page(one, f"{workers}/")
    for one in pages:
        expect(one.locator("#me")).to_have_attribute("data-tabs", "2")
    page.click("#job-start")
    expect(page.locator("#job-progress")).to_have_attribute("data-value", "100", timeout=60_000)
    expect(pages[1].locator("#job-progress")).to_have_attribute("data-value", "0")
    pages[1].close()
    expect(page.locator("#me")).to_have_attribute("data-tabs", "1")


def test_alice_is_told_that_bob_has_seen_her_note(workers: str, browser: Browser) -> None:
    with browser_of(browser, "alice", workers) as alice, browser_of(browser, "bob", workers) as bob:
        for one in (alice, bob):
            one.expect_room("open")
        alice.write("lunch", "to Bob")
        bob.expect_note("to Bob")
        alice.expect_seen("to Bob", "seen by Bob")
        alice.page.click("#right")
        bob.expect_room("forbidden")
        alice.page.click("text=Give it back")
        bob.expect_room("open")


def test_a_worker_that_stops_is_missed_by_no_page(workers: str, page: Page) -> None:
    """Whether the page is connected to it, or it reads the sources."""
    open_page(page, workers)
    wait_for_pulse(page)
    for worker in read_workers(page):
        os.kill(worker, signal.SIGTERM)
        wait_for_pulse(page)


def read_workers(page: Page) -> list[int]:
    """Ask for the processes of all workers."""
    token = page.locator("meta[name=admin-token]").get_attribute("content")
    headers = {"Authorization": f"Bearer {token}"}
    status = httpx.get(f"{page.url}comet/admin/status", headers=headers, timeout=30).json()
    assert len(status["workers"]) == 4
    return [int(one["worker"].rpartition(":")[2]) for one in status["workers"]]
