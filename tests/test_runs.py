"""A run is as long as what is written of it: names, positions and ids included."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.core.history import History
from asgi_comet.core.runs import Encoder
from asgi_comet.protocol import events, frames, registration, sse
from asgi_comet.testing._inspect import encoded

ENCODERS = {
    "poll": events.encode_messages,
    "held poll": events.encode_sole,
    "websocket": frames.encode_run,
    "websocket, one channel": frames.encode_frame,
    "registration": registration.encode_messages,
    "sse": sse.make_framing(),
    "sse, texts": sse.make_framing(as_text=True),
    "sse, several": sse.make_framing(b"b7Ra1z.12,", b",k3x9Qp.7"),
}
AROUND = {"poll": 13, "websocket": 13, "registration": 1}  # what is written around the run later

every_encoder = pytest.mark.parametrize("kind", ENCODERS)


def make(name: str, values: list[Any]) -> Feed:
    history = History(size=1000, max_bytes=1 << 20, epoch="k3x9Qp")
    feed = Feed(name, Kind.SITE, history, Directory(threading.Lock()))
    for value in values:
        feed.append(json.dumps(value, ensure_ascii=False).encode())
    return feed


def write(encode: Encoder, feed: Feed, after: int, max_bytes: int) -> tuple[bytes, int, int]:
    """What a listener is written, how many bytes are reckoned for it, and how far it reaches."""
    begun = feed.render(encode.shared, after, max_bytes)
    assert begun is not None
    data, size, chunk = encode.end(begun, feed.history.epoch, max_bytes)
    return data if isinstance(data, bytes) else data.encode(), size, chunk.upto


@every_encoder
@settings(deadline=None, max_examples=50)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=60),
    values=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=12),
    limit=st.integers(0, 2000),
)
def test_what_is_written_fits_or_is_one_message(
    kind: str, name: str, values: list[str], limit: int
) -> None:
    encode, feed, after = ENCODERS[kind], make(name, values), 0
    while after < feed.history.top:
        data, size, upto = write(encode, feed, after, limit)
        assert len(data) + AROUND.get(kind, 0) == size
        assert upto == after + 1 or (upto > after and size <= limit)
        run = feed.history.after(after)
        assert run is not None
        whole = encode(name, "k3x9Qp", run[: upto - after])
        assert data == (whole if isinstance(whole, bytes) else whole.encode())
        after = upto


@every_encoder
def test_a_run_is_cut_at_n_and_n_plus_one(kind: str) -> None:
    encode, feed = ENCODERS[kind], make("ticker", ["x"] * 9)
    run = feed.history.after(0)
    assert run is not None
    written = encode("ticker", "k3x9Qp", run[:2])
    two = len(written if isinstance(written, bytes) else written.encode()) + AROUND.get(kind, 0)
    if encode.shared is encode:
        assert encode.render("ticker", "k3x9Qp", run, two).size == two
        assert encode.render("ticker", "k3x9Qp", run, two).upto == 2
        assert encode.render("ticker", "k3x9Qp", run, two - 1).upto == 1
    else:  # what is shared is reckoned otherwise, and then cut
        begun = encode.shared.render("ticker", "k3x9Qp", run)
        assert encode.end(begun, "k3x9Qp", two)[2].upto == 2
        assert encode.end(begun, "k3x9Qp", two - 1)[2].upto == 1


def test_all_who_follow_a_channel_share_what_is_written_wherever_they_are_on_others() -> None:
    feed = make("ticker", ["x", "y"])
    for before in (b"a.1,", b"a.2,", b"b.7,c.9,"):
        encode = sse.make_framing(before)
        begun = feed.render(encode.shared, 0, 1000)
        assert begun is not None
        assert encode.end(begun, "k3x9Qp", 1000)[2] is begun
    assert len(encoded(feed)) == 1


@pytest.mark.parametrize("kind", [Kind.SITE, Kind.NEWEST])
def test_what_was_written_can_be_read_again_while_it_is_held(kind: Kind) -> None:
    size = 1 if kind is Kind.NEWEST else 3
    history = History(size=size, max_bytes=100)
    feed = Feed("f", kind, history, Directory(threading.Lock()))
    for value in (b"1", b"2", b"3", b"4"):
        feed.append(value)
    read = [feed.read(after, 3) for after in (0, 1, 2)]
    found = [None if run is None else [m.data for m in run] for run in read]
    newest = [b"4"]
    assert found == ([newest] * 3 if kind is Kind.NEWEST else [None, [b"2", b"3"], [b"3"]])
