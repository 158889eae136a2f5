"""The client's half of event streams reads as the standard says, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_comet.errors import BadRequest
from asgi_comet.protocol.events import NO_DATA, Event
from asgi_comet.protocol.sse import Decoder, Dispatched, read_events
from tests.kit.sse_parser import Reader

LINES = st.sampled_from(
    [
        *(
            "data",
            "data: a",
            "data:b: ä",
            "data:  y",
            "\ufeffdata: x",
            "event: c",
            "",
            ":",
            "field",
        ),
        *("id: e.1", "id: \0", "retry: 7", "retry: ٣", "ahead: 3", "ahead: x"),
    ]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"]))).map(
    lambda lines: "".join(line + end for line, end in lines)
)


@given(text=STREAMS, cuts=st.lists(st.integers(0, 200)))
def test_events_are_those_of_the_standard_however_the_stream_is_cut(
    text: str, cuts: list[int]
) -> None:
    stream = (text + "\n").encode()  # what a lone \r ends is read once the next byte is there
    decoder, found = Decoder(), []
    places = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(places):
        found += decoder.feed(stream[start:end])
    reader = Reader().read(stream)
    assert [one[:3] for one in found] == [tuple(event) for event in reader.events]
    assert decoder.retry == reader.retry
    assert decoder.comments == len(reader.comments)
    assert decoder.last_id == reader.last_event_id


def test_a_stream_is_whole_between_events() -> None:
    decoder = Decoder()
    for piece, whole in (
        *((b"", True), (b"da", False), (b"ta: 1\n", False), (b"\n", True)),
        *((b"event: c\n", False), (b"\n", True), (b":\n", True), (b"retry: 1\n", True)),
    ):
        decoder.feed(piece)
        assert decoder.whole == whole


def test_the_window_of_an_on_demand_channel_is_told_with_each_message() -> None:
    (dispatched,) = Decoder().feed(b"event: c\ndata: 1\nahead: 5\nid: -,e.2\n\n")
    assert [*read_events(dispatched, ["b", "c"])] == [Event("c", "e.2", 1, ahead=5)]


def test_a_channel_of_the_dashboard_is_no_event_of_the_protocol() -> None:
    sample = Dispatched(":admin/events", "5", "e.2")
    assert [*read_events(sample, [":admin/events"])] == [Event(":admin/events", "e.2", 5)]


def test_errors_have_a_position_only_if_there_is_one() -> None:
    full = Dispatched(":full", '{"channel": "c"}', "-,e.2")
    assert [*read_events(full, ["b", "c"])] == [Event("c", "e.2", error="full")]
    assert [*read_events(full, ["c", "b"])] == [Event("c", "", NO_DATA, error="full")]
    (event,) = read_events(Dispatched(*full[:2], "-45zc-l4.0"), ["c"])  # an epoch may begin so
    assert event.position == "-45zc-l4.0"


@pytest.mark.parametrize(("name", "data"), [("c", "<html>"), (":full", "1"), (":open", "[]")])
def test_what_is_none_of_our_events_is_refused(name: str, data: str) -> None:
    with pytest.raises(BadRequest, match=f"as the data of '{name}', got"):
        [*read_events(Dispatched(name, data, ""), ["c"])]
