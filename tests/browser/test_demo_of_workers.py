"""`scripts/demo --workers 4`: the pages of channels for everyone, on several workers."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import run_demo
from tests.kit.programs import ROOT, find_program

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
    expect(page.locator("#wall-form")).to_have_count(0)


@pytest.mark.parametrize("path", ["/notifications", "/two", "/tab"])
def test_a_page_that_needs_client_processes_says_so(workers: str, page: Page, path: str) -> None:
    answer = page.goto(workers + path)
    assert answer is not None
    assert answer.status == 501
    expect(page.locator("main")).to_contain_text("which workers do not share yet")


def test_a_worker_that_stops_is_missed_by_no_page(workers: str, page: Page) -> None:
    """Whether the page is connected to it, or it reads the sources."""
    open_page(page, workers)
    wait_for_pulse(page)
    stopped: set[int] = set()
    while len(stopped) < 4:
        worker = read_worker(workers)
        if worker not in stopped:
            stopped.add(worker)
            os.kill(worker, signal.SIGTERM)
            wait_for_pulse(page)


def read_worker(url: str) -> int:
    """Ask which worker serves a page."""
    with httpx.Client(timeout=30) as client:
        (found,) = re.findall(r"Worker (\d+) ", client.get(url).text)
    return int(found)
