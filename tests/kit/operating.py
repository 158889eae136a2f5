"""An operator: the tokens of each role, and a browser that has signed in."""

from __future__ import annotations

from urllib.parse import urlencode

from asgi_comet.admin.tokens import Role
from tests.kit.serving import Address, Answer

TOKENS: dict[str, Role] = {"l" * 32: "look", "o" * 32: "operate", "c" * 32: "contents"}
TOKEN_OF = {role: token for token, role in TOKENS.items()}
FORM = "application/x-www-form-urlencoded"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sign_in(server: Address, token: str, **headers: str) -> Answer:
    """Post the form of the sign-in page."""
    sent = {"Content-Type": FORM, "Origin": server.url}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = urlencode({"token": token})
    return server.request("POST", "/comet/admin/session", body, sent)


def cookie_of(answer: Answer) -> str:
    """Return what a browser sends back."""
    return answer.headers["set-cookie"].partition(";")[0]


def signed_in(server: Address, token: str) -> dict[str, str]:
    """Return the headers of a page of the server after the sign-in."""
    return {"Cookie": cookie_of(sign_in(server, token)), "Origin": server.url}
