"""The pages of admin: the sign-in page, and the page of the dashboard.

Owns their HTML, and the headers that bound what a browser does with them. Must not know requests.
"""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib.resources import files

from asgi_comet.admin.tokens import Role

__all__ = ["HTML", "dashboard_headers", "dashboard_page", "sign_in_headers", "sign_in_page"]

HTML = b"text/html; charset=utf-8"

Headers = tuple[tuple[bytes, bytes], ...]

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 10vh auto; max-width: 24rem; padding: 0 1rem; }
label { display: block; }
input, button { box-sizing: border-box; font: inherit; margin: .25rem 0 1rem; padding: .5rem;
  width: 100%; }
[role=alert] { border-left: .25rem solid; padding-left: .75rem; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>Sign in</h1>
{fault}{body}
</main>
</body>
</html>
"""

_FORM = """<form method="post" action="session">
<label for="token">Admin token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button>
</form>
<p>Signed in already, and here by a link? <a href="./">Open the dashboard</a>.</p>"""

_ELSEWHERE = "<p>Sign in to the application as an operator, then load this page again.</p>"


@cache
def dashboard_page(role: Role, *, form: bool) -> bytes:
    """Return the page of the dashboard, which has no data in it.

    Args:
        role: The role of the operator, who is shown nothing that needs more.
        form: Whether the operator has signed in with a token, and so may sign out.
    """
    page = files("asgi_comet").joinpath("static", "admin.html").read_text()
    page = page.replace('data-role="look"', f'data-role="{role}"')
    return page.replace('"sign-out"', '"sign-out"' + " hidden" * (not form)).encode()


def sign_in_page(fault: str = "", *, form: bool = True) -> bytes:
    """Return the sign-in page, which needs no script.

    Args:
        fault: Why the request was refused; `""` for a first visit.
        form: Whether there is a form for a token; otherwise the application has the login.
    """
    alert = f'<p role="alert">{html.escape(fault)}</p>\n' if fault else ""
    return _PAGE.format(style=_STYLE, fault=alert, body=_FORM if form else _ELSEWHERE).encode()


def _headers(policy: str) -> Headers:
    return (
        (b"content-security-policy", f"{policy}; frame-ancestors 'none'".encode()),
        (b"cross-origin-resource-policy", b"same-origin"),
        # Not `no-referrer`, with which a browser sends `Origin: null` for a form.
        (b"referrer-policy", b"same-origin"),
    )


def sign_in_headers() -> Headers:
    """Return the headers of the sign-in page."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return _headers(
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'"
    )


def dashboard_headers() -> Headers:
    """Return the headers of the page of the dashboard."""
    return _headers(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'"
    )
