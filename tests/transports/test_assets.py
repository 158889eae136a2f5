"""The client and its types as files, and pages that `comet.script` is in.

Source: docs/wire.md#scripts.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from asgi_comet import SITE, Comet, CometMiddleware, Settings
from tests.kit.html import read
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, TOKEN, Made, application

LIMIT = 8192  # bytes, as `gzip -9c` makes them
LIMIT_OF_HTMX = 3072
ALLOWED = "https://app.example.com"
FOREIGN = "https://evil.example.com"
PATH = "/comet/comet.js"


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Comet, Address]]:
    comet = Comet(KEY, admin=TOKEN, settings=Settings(jitter=0), allowed_origins=[ALLOWED])
    with serve(application(comet)) as address:
        yield comet, address


@pytest.fixture
def address(site: tuple[Comet, Address]) -> Address:
    return site[1]


def client() -> bytes:
    return files("asgi_comet").joinpath("static", "comet.js").read_bytes()


def types() -> bytes:
    return files("asgi_comet").joinpath("static", "comet.d.ts").read_bytes()


def test_it_is_small() -> None:
    assert len(gzip.compress(client(), 9, mtime=0)) <= LIMIT


def test_it_is_served_as_a_module_that_is_asked_for_again(address: Address) -> None:
    answer = address.request("GET", PATH)
    assert (answer.status, answer.body) == (200, client())
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["content-length"] == str(len(client()))
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"].strip('"')
    assert "set-cookie" not in answer.headers


def test_its_types_are_served_beside_it(address: Address) -> None:
    answer = address.request("GET", "/comet/comet.d.ts")
    assert (answer.status, answer.body) == (200, types())
    assert answer.headers["content-type"] == "application/typescript; charset=utf-8"
    assert answer.headers["etag"] != address.request("GET", PATH).headers["etag"]


def test_the_extension_of_htmx_is_served_beside_it_and_is_small(address: Address) -> None:
    plain = address.request("GET", "/comet/htmx.js")
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert plain.body == files("asgi_comet").joinpath("static", "htmx.js").read_bytes()
    answer = address.request("GET", "/comet/htmx.js", headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(answer.body) == plain.body
    assert len(answer.body) <= LIMIT_OF_HTMX


GZIP = ["gzip", "br, gzip", "GZIP;q=0.5", "gzip; q=1.0", "*", "x-gzip", "identity, *;q=0.1"]
NO_GZIP = ["", "br", "identity", "gzip;q=0", "gzip; q=0.000", "*;q=0", "gzipped"]


@pytest.mark.parametrize("accepted", GZIP)
def test_it_is_compressed_for_a_client_that_takes_gzip(address: Address, accepted: str) -> None:
    headers = {"Accept-Encoding": accepted}
    answer = address.request("GET", PATH, headers=headers)
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == client()
    assert len(answer.body) == int(answer.headers["content-length"]) <= LIMIT
    assert "accept-encoding" in answer.headers["vary"].lower()
    plain = address.request("GET", PATH).headers["etag"]
    etag = answer.headers["etag"]
    assert etag != plain
    again = address.request("GET", PATH, headers=headers | {"If-None-Match": etag})
    assert (again.status, again.body) == (304, b"")
    other = address.request("GET", PATH, headers=headers | {"If-None-Match": plain})
    assert other.status == 200


@pytest.mark.parametrize("accepted", NO_GZIP)
def test_it_is_not_compressed_for_another(address: Address, accepted: str) -> None:
    answer = address.request("GET", PATH, headers={"Accept-Encoding": accepted})
    assert answer.body == client()
    assert "content-encoding" not in answer.headers
    assert "accept-encoding" in answer.headers["vary"].lower()


def test_head_has_the_same_headers_and_no_body(address: Address) -> None:
    get, head = (address.request(method, PATH) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    del get.headers["date"], head.headers["date"]
    assert head.headers == get.headers


@pytest.mark.parametrize("form", ["{}", "W/{}", '"another", {}', '"another",W/{} , "third"'])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_it_is_told_so(address: Address, method: str, form: str) -> None:
    etag = address.request("GET", PATH).headers["etag"]
    answer = address.request(method, PATH, headers={"If-None-Match": form.format(etag)})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("form", ['"another"', "", "{}x", "x{}"])
def test_who_has_another_gets_it(address: Address, form: str) -> None:
    etag = address.request("GET", PATH).headers["etag"]
    answer = address.request("GET", PATH, headers={"If-None-Match": form.format(etag)})
    assert (answer.status, answer.body) == (200, client())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_else_can_be_done_with_it(address: Address, method: str) -> None:
    answer = address.request(method, PATH, b"")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("path", [f"{PATH}/more", f"{PATH}x", "/comet/comet.mjs", "/comet/x.js"])
def test_only_it_is_there(address: Address, path: str) -> None:
    assert address.request("GET", path).status == 404


@pytest.mark.parametrize("same", [False, True])
def test_a_page_of_an_allowed_origin_may_read_it(address: Address, same: bool) -> None:
    """A module of another origin is asked for with CORS."""
    etag = address.request("GET", PATH).headers["etag"]
    headers = {"Origin": ALLOWED, "Sec-Fetch-Site": "cross-site"}
    headers |= {"If-None-Match": etag} if same else {}
    answer = address.request("GET", PATH, headers=headers)
    assert answer.status == (304 if same else 200)
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origin", [FOREIGN, "null", f"{ALLOWED}:8443", ""])
def test_a_page_of_another_origin_may_not(address: Address, origin: str) -> None:
    answer = address.request("GET", PATH, headers={"Origin": origin})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_of_our_own_needs_nothing(address: Address) -> None:
    headers = {"Origin": address.url, "Sec-Fetch-Site": "same-origin"}
    answer = address.request("GET", PATH, headers=headers)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_it_is_there_while_deactivated(make_server: Callable[..., Made]) -> None:
    comet, address = make_server()
    comet.activation.deactivate()
    answer = address.request("GET", PATH)
    assert (answer.status, answer.body) == (200, client())
    etag = answer.headers["etag"]
    assert address.request("GET", PATH, headers={"If-None-Match": etag}).status == 304
    assert address.request("POST", "/comet/open").status == 503


def test_it_is_where_comet_is_mounted() -> None:
    comet = Comet(KEY)
    app = Starlette(routes=[Mount("/push", comet.app)], lifespan=comet.lifespan)
    with serve(app) as address:
        assert address.request("GET", "/push/comet.js").body == client()
        assert address.request("GET", PATH).status == 404


# Pages


def test_a_page_is_given_its_process_and_its_channels(comet: Comet) -> None:
    news = comet.create(scope=SITE, name="news")

    async def page(request: Request) -> HTMLResponse:
        process = comet.open_process()
        inbox = comet.create(scope=process, name="inbox")
        return HTMLResponse(comet.script(process, news=news, mine=inbox))

    middleware = [Middleware(CometMiddleware, comet=comet)]
    with serve(Starlette(routes=[Route("/", page)], middleware=middleware)) as address:
        answer = address.request("GET", "/")
        given = read(answer.body.decode())
        assert given["url"] == f"/comet/p/{given['process']}"
        assert given["processTimeout"] == 600
        assert given["channels"]["news"] == news.reference()
        mine = given["channels"]["mine"]
        assert (mine["url"], mine["channel"]) == (given["url"], "~inbox")

        cookie = answer.headers["set-cookie"].partition(";")[0]
        headers = {"Cookie": cookie, "Content-Type": "application/json"}
        asked = {"channels": {"~inbox": mine["position"]}, "idle": True}
        polled = address.request("POST", f"{given['url']}/poll", json.dumps(asked), headers)
        assert (polled.status, json.loads(polled.body)) == (200, {"events": []})
