"""What all pages of the demo have in common: the menu, the code they show, and no error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect

from examples.fastapi_app.excerpts import excerpt

PATHS = ("/", "/notifications", "/two", "/2010")
"""In the order of the menu."""

FOLDER = Path(__file__).parent.parent.parent / "examples" / "fastapi_app"

FIGURES = {"cpu-card", "memory-card", "network-card"}
"""Cards whose code is in the card of the machine below them."""


@pytest.fixture
def errors(page: Page) -> Iterator[list[str]]:
    """What went wrong in the page: on its console, and in what it loaded."""
    found: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            found.append(message.text)

    def look(response: Response) -> None:
        if response.status >= 400:
            found.append(f"{response.status} {response.url}")

    page.on("console", hear)
    page.on("response", look)
    yield found
    assert found == []


def open_page(page: Page, url: str) -> None:
    """Open a page, and wait until it, or what is in its frames, is online."""
    page.goto(url)
    for frame in page.frames[1:] or page.frames:
        expect(frame.locator("html")).to_have_attribute("data-state", "online")


@pytest.mark.browser
@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_the_demo_opens_without_an_error(
    demo: str, page: Page, errors: list[str], path: str
) -> None:
    open_page(page, demo + path)
    assert page.request.get(f"{demo}/favicon.ico").ok
    assert errors == []


@pytest.mark.browser
@pytest.mark.parametrize("path", PATHS)
def test_the_menu_is_at_the_top_of_every_page(demo: str, page: Page, path: str) -> None:
    page.goto(demo + path)
    links = page.locator("nav li a")
    assert [link.get_attribute("href") for link in links.all()] == list(PATHS)
    expect(page.locator("nav [aria-current=page]")).to_have_attribute("href", path)
    for width in (1180, 390):
        page.set_viewport_size({"width": width, "height": 800})
        box = page.locator("nav").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 100


@pytest.mark.browser
@pytest.mark.parametrize("path", [*PATHS, "/tab"])
def test_the_code_that_a_page_shows_is_that_of_the_application(
    demo: str, page: Page, path: str
) -> None:
    page.goto(demo + path)
    for shown in page.locator(".python code").all():
        source = (FOLDER / (shown.get_attribute("data-file") or "")).read_text()
        code = shown.text_content() or ""
        assert f"\n{code}\n" in source
        assert code == code.strip()
        assert len(code.splitlines()) < 15


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/", "/notifications", "/tab", "/2010"])
def test_every_card_shows_the_code_behind_it(demo: str, page: Page, path: str) -> None:
    page.goto(demo + path)
    cards = page.locator(".card").all()
    bare = [card for card in cards if not card.locator(".python code").count()]
    assert {card.get_attribute("id") for card in bare} <= FIGURES
    assert len(bare) < len(cards)


def test_an_excerpt_that_is_gone_stops_the_application_as_it_starts() -> None:
    assert excerpt("main.py", "app = FastAPI").code.startswith("app = FastAPI(")
    with pytest.raises(ValueError, match=r"expected one 'def gone' in main\.py, found 0"):
        excerpt("main.py", "def gone")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_a_narrow_screen_does_not_scroll_sideways(
    demo: str, page: Page, path: str, scheme: str
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 390, "height": 800})
    open_page(page, demo + path)
    for frame in page.frames:
        assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if target := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{target}/demo{path.replace('/', '-')}-{scheme}.png", full_page=True)


@pytest.mark.browser
def test_the_frames_of_two_tabs_begin_with_the_tab_and_show_all_of_it(
    demo: str, page: Page
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    open_page(page, f"{demo}/two")
    for frame in page.frames[1:]:
        assert frame.locator("header").count() == 0
        expect(frame.locator("h2").first).to_have_text("This tab")
        while not frame.evaluate("document.body.offsetHeight <= innerHeight"):
            pass  # the page's policy forbids what `wait_for_function` does


@pytest.mark.browser
def test_two_tabs_are_of_one_browser_that_has_no_cookie_yet(demo: str, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    open_page(page, f"{demo}/two")
    one, other = (frame.locator("#me-session") for frame in page.frames[1:])
    expect(one).not_to_have_text("–")
    expect(other).to_have_text(one.inner_text())
    context.close()
