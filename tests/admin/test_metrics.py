"""`GET PREFIX/admin/metrics`, `comet.metrics()` and `CometCollector`, for one worker."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from starlette.requests import HTTPConnection

from asgi_comet import CLIENT_PROCESS, SITE, ClientProcess, Comet, Settings, observe
from asgi_comet.observe import exposition
from asgi_comet.prometheus import CometCollector
from asgi_comet.testing import join, wait_for_listeners
from tests.figures import FILE, describe_figures
from tests.kit.scraping import OPENMETRICS, get, scrape, scrape_until, understand
from tests.kit.serving import Address, Tab, hold_registration
from tests.kit.stage import KEY, TOKEN
from tests.kit.streams import Sse

MakeServer = Callable[..., tuple[Comet, Address]]
Missing = Callable[[], None]

HINT = r"pip install 'asgi_comet\[metrics\]'"


def whose(connection: HTTPConnection) -> str | None:
    return connection.headers.get("user")


# The list


def test_the_figures_are_those_of_the_list() -> None:
    assert describe_figures() == FILE.read_text(), "python -m tests.figures > tests/figures.txt"


def test_without_a_shared_broker_no_figure_has_a_worker(comet: Comet, server: Address) -> None:
    alone = understand(Comet(KEY).metrics())
    assert "worker" not in {label for sample in alone.samples for label in sample.labels}
    assert not [family.name for family in alone.families if "broker" in family.name]
    shared = understand(Comet(KEY, broker=join(1)[0]).metrics())
    assert all("worker" in sample.labels for sample in shared.samples)


def test_each_declared_channel_has_its_series_from_the_start() -> None:
    comet = Comet(KEY)
    comet.family("room:{room}", type=int)
    comet.notifier("inbox")

    @comet.channel("clock")
    async def clock() -> AsyncIterator[int]:
        yield 0

    @comet.channel("job", scope=CLIENT_PROCESS)
    async def job(process: ClientProcess) -> AsyncIterator[int]:
        yield 0

    found = understand(comet.metrics())
    assert found.values("channel") == {"(created)", "room:{room}", "clock", "~job", "~inbox"}
    families = {sample.labels["channel"] for sample in found.find("comet_family_members")}
    assert families == {"room:{room}"}
    for name in ("published", "gaps", "source_restarts", "authorisations"):
        channels = {sample.labels["channel"] for sample in found.find(f"comet_{name}_total")}
        assert channels == found.values("channel")


# The forms


def test_the_text_is_what_was_asked_for(server: Address) -> None:
    plain = get(server)
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.headers["cache-control"] == "no-store"
    asked = get(server, **OPENMETRICS)
    expected = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert asked.headers["content-type"] == expected
    assert asked.body.endswith(b"# EOF\n")
    assert scrape(server).series == scrape(server, **OPENMETRICS).series


@pytest.mark.parametrize("query", ["?workers=one", "?workers=all&workers=all"])
def test_another_query_is_refused(server: Address, query: str) -> None:
    assert (get(server, query).status, get(server, "?other=1").status) == (400, 200)


def test_a_credential_is_needed_and_push_may_be_off(comet: Comet, server: Address) -> None:
    assert server.request("GET", "/comet/admin/metrics").status == 401
    assert get(server, Authorization="Bearer wrong").status == 403
    comet.activation.deactivate()
    scrape_until(server, lambda found: not found.total("comet_active"))


# The values


def test_the_gauges_are_what_there_is(make_server: MakeServer) -> None:
    settings = Settings(max_processes=4, max_virtual_channels=10, max_family_channels=5, timeout=7)
    comet, server = make_server(admin=TOKEN, settings=settings)
    comet.identify(whose)
    rooms = comet.family("room:{room}", type=str)
    news = comet.create(scope=SITE, name="news")
    comet.create_newest(name="price").publish(1)
    gone = comet.create(scope=SITE, name="gone")
    gone.publish("e")
    gone.close()  # its message can still be read
    tab = Tab(server)
    own = comet.create(scope=comet_process(comet), name="own")
    for text in ("a", "bc"):
        news.publish(text)
        rooms.publish(text, room="kitchen")
    rooms.publish("d", room="hall")
    with Sse.open(server, ["news", "~own"], tab.url, Cookie=tab.cookie, User="ada") as stream:
        assert stream.next().name == ":open"
        wait_for_listeners(own, 1)
        found = scrape_until(server, lambda found: found.total("comet_users"))
    one = {name: found.total(f"comet_{name}") for name in ("processes", "sessions", "users")}
    assert one == {"processes": 1, "sessions": 1, "users": 1}
    assert found.total("comet_timeout_seconds") == 7
    kinds = ("site", "newest", "process", "unlimited")
    assert [found.total("comet_channels", kind=kind) for kind in kinds] == [3, 1, 1, 0]
    by_channel = {
        name: [
            found.total(f"comet_{name}", channel=channel)
            for channel in ("room:{room}", "(created)")
        ]
        for name in ("history_messages", "history_bytes")
    }
    assert by_channel == {"history_messages": [3, 4], "history_bytes": [10, 11]}
    assert found.total("comet_family_members", channel="room:{room}") == 2
    limits = ("max_processes", "max_virtual_channels", "max_family_channels")
    ratios = [found.total("comet_limit_used_ratio", limit=limit) for limit in limits]
    assert ratios == [0.25, 0.5, 0.4]
    (info,) = found.find("comet_info")
    assert info.labels["version"]
    assert (info.labels["python"], info.labels["broker"]) == (
        sys.version.partition(" ")[0],
        "MemoryBroker",
    )


def comet_process(comet: Comet) -> Any:
    (process,) = comet.processes()
    return process


def test_a_reader_that_does_not_read_is_behind(comet: Comet, server: Address) -> None:
    news = comet.create(scope=SITE, name="news")
    price = comet.create_newest(name="price")
    with Sse.open(server, ["news", "price"]) as stream:
        assert stream.next().name == ":open"
        wait_for_listeners(news, 1)
        text = "x" * 500_000
        while not scrape(server).total("comet_stalled_writes"):
            news.publish(text)
        for _ in range(3):
            price.publish(text)
        for _ in range(3):
            news.publish("y")
        found = scrape_until(server, lambda found: found.total("comet_lag_messages") >= 3)
        assert found.total("comet_lag_messages", channel="(created)") >= 3


def test_a_reader_of_the_newest_message_misses_one_at_most(comet: Comet, server: Address) -> None:
    price = comet.create_newest(name="price")
    with Sse.open(server, ["price"]) as stream:
        assert stream.next().name == ":open"
        wait_for_listeners(price, 1)
        text = "x" * 500_000
        while not scrape(server).total("comet_lag_messages"):
            price.publish(text)
        for _ in range(3):
            price.publish(text)
        assert scrape(server).total("comet_lag_messages") == 1


def test_ten_thousand_members_of_a_family_make_no_series(make_server: MakeServer) -> None:
    comet, server = make_server(admin=TOKEN)
    rooms = comet.family("room:{room}", type=int, linger=600)
    before = scrape(server)
    for room in range(10_000):
        rooms.publish(room, room=room)
    found = scrape(server)
    assert found.total("comet_family_members") == 10_000
    assert found.total("comet_published_total", channel="room:{room}") == 10_000
    assert found.series == before.series


# From Python


def test_the_application_can_serve_the_text(comet: Comet, server: Address) -> None:
    comet.create(scope=SITE, name="news").publish("x")
    assert understand(comet.metrics()).series == scrape(server, "").series
    assert understand(comet.metrics()).total("comet_published_total") == 1


def test_a_registry_of_the_application_collects_in_any_thread() -> None:
    comet = Comet(KEY)
    registry = CollectorRegistry(auto_describe=True)
    Counter("orders", "Of the application.", registry=registry).inc()
    registry.register(CometCollector(comet))
    comet.create(scope=SITE, name="news").publish("x")
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(generate_latest(registry).decode()))
    thread.start()
    thread.join()
    found = understand(texts[0])
    assert (found.total("orders_total"), found.total("comet_published_total")) == (1, 1)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(CometCollector(comet))


def test_a_registry_collects_while_the_loop_is_busy(comet: Comet, server: Address) -> None:
    rooms = comet.family("room:{room}", type=int, linger=600)
    registry = CollectorRegistry()
    registry.register(CometCollector(comet))
    done = threading.Event()

    def publish() -> None:
        for room in range(2_000):
            rooms.publish(room, room=room)
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    while not done.is_set():
        generate_latest(registry)
        hold_registration(server, "registration=none").answer()
    thread.join()
    assert understand(generate_latest(registry).decode()).total("comet_family_members") == 2_000


# Without the extra


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the library not be found."""
    monkeypatch.delattr(observe, "exposition")
    monkeypatch.delitem(sys.modules, exposition.__name__)
    monkeypatch.delitem(sys.modules, "asgi_comet.prometheus")
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("missing")
def test_without_the_library_each_way_says_what_to_install(comet: Comet, server: Address) -> None:
    with pytest.raises(ImportError, match=HINT):
        comet.metrics()
    with pytest.raises(ImportError, match=HINT):
        import_module("asgi_comet.prometheus")
    answer = get(server)
    assert answer.status == 501
    assert (
        answer.body
        == b"metrics need the library prometheus-client: pip install 'asgi_comet[metrics]'"
    )
