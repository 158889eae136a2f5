"""The pages of the demo: templates, headers, and answers to requests that cannot be fulfilled."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined

from examples.fastapi_app.excerpts import EXCERPTS
from examples.fastapi_app.push import ADMIN_TOKEN

HERE = Path(__file__).parent

HEADERS = {
    "Cache-Control": "no-store",  # each tab has a client process of its own
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}

templates = Jinja2Templates(HERE / "templates")
templates.env.undefined = StrictUndefined
templates.env.trim_blocks = templates.env.lstrip_blocks = True
templates.env.globals.update(excerpts=EXCERPTS, admin_token=ADMIN_TOKEN)


def add_pages(app: FastAPI) -> None:
    """Add what all pages need to an application."""
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_api_route("/2010", page_of_2010)
    app.add_api_route("/favicon.ico", favicon, include_in_schema=False)
    app.add_exception_handler(RequestValidationError, refuse)


async def page_of_2010(request: Request) -> HTMLResponse:
    """The page that speaks the registration protocol."""
    return render(request, "2010")


async def favicon() -> FileResponse:
    """The icon, for browsers that request this path despite the page."""
    return FileResponse(HERE / "static" / "comet.svg")


def render(request: Request, page: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page; `comet.script` is HTML, so Jinja does not escape it."""
    return templates.TemplateResponse(request, f"{page}.html", values, status, headers=HEADERS)


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Return the reason without the input, which may not be valid text."""
    assert isinstance(error, RequestValidationError)
    detail = [{"loc": item["loc"], "msg": item["msg"]} for item in error.errors()]
    return JSONResponse({"detail": detail}, 422)
