"""The sign-in of an operator, in a browser: the form, the cookie, and other sites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from asgi_comet import Comet
from tests.kit.operating import TOKEN_OF, TOKENS
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, application

pytestmark = pytest.mark.browser

STATUS = "fetch('status').then(answer => answer.status)"


@pytest.fixture
def server() -> Iterator[Address]:
    with serve(application(Comet(KEY, admin=TOKENS))) as address:
        yield address


@pytest.mark.firefox
def test_an_operator_signs_in_and_out(page: Page, server: Address) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{server.url}/comet/admin")
    assert page.url == f"{server.url}/comet/admin/"
    token = page.get_by_label("Admin token")
    expect(token).to_be_focused()
    assert page.evaluate("getComputedStyle(document.querySelector('label')).display") == "block"
    token.fill("x" * 32)
    token.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("wrong credential")
    page.get_by_label("Admin token").fill(TOKEN_OF["look"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert page.url == f"{server.url}/comet/admin/"
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate(STATUS) == 200
    assert [cookie["name"] for cookie in page.context.cookies()] == ["comet-admin"]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Admin token")).to_be_visible()
    assert page.context.cookies() == []
    assert not [one for one in said if "Security Policy" in one]


def test_a_link_from_another_site_leads_on_from_the_sign_in_page(
    page: Page, server: Address
) -> None:
    page.goto(f"{server.url}/comet/admin/")
    page.get_by_label("Admin token").fill(TOKEN_OF["look"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    other = server.url.replace("127.0.0.1", "localhost")
    page.goto(f"{other}/elsewhere")
    page.evaluate(
        """url => {
            const link = document.createElement("a")
            link.href = url
            link.textContent = "dashboard"
            document.body.append(link)
        }""",
        f"{server.url}/comet/admin/",
    )
    page.get_by_role("link", name="dashboard").click()
    expect(page.get_by_label("Admin token")).to_be_visible()  # Strict: no cookie came along
    page.get_by_role("link", name="Open the dashboard").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
