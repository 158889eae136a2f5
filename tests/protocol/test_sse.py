from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_comet.channels.encoding import make_encode
from asgi_comet.core.messages import Last, Message, Now, Start
from asgi_comet.core.names import check_name
from asgi_comet.errors import BadRequest, InvalidName
from asgi_comet.position import Position
from asgi_comet.protocol.sse import (
    COMMENT,
    CONTENT_TYPE,
    ENDED,
    SPARE_FIELDS,
    Request,
    decode_request,
    encode_event,
    encode_retry,
    join_id,
    make_framing,
)
from tests.kit.sse_parser import Event, Reader, read_sse, read_with_httpx, read_with_node

LIMIT = 128

# Requests


def ask(query: str | bytes, last_event_id: bytes | None = None, limit: int = LIMIT) -> Request:
    return decode_request(query.encode() if isinstance(query, str) else query, last_event_id, limit)


def starts(query: str | bytes, last_event_id: bytes | None = None) -> dict[str, Start | None]:
    return ask(query, last_event_id).starts


def test_a_stream_begins_now_unless_positions_say_otherwise() -> None:
    assert ask("channel=ticker&channel=news") == Request(
        {"ticker": Now(), "news": Now()}, as_text=False
    )
    assert starts("channel=a&channel=b&channel=c&position=e.5&position=last:3&position=now") == {
        "a": Position("e", 5),
        "b": Last(3),
        "c": Now(),
    }


def test_positions_belong_to_channels_in_the_order_of_each_not_in_pairs() -> None:
    query = "position=e.1&channel=b&position=e.2&channel=a"
    assert list(starts(query).items()) == [("b", Position("e", 1)), ("a", Position("e", 2))]


def test_the_last_event_id_wins_over_positions_right_or_wrong() -> None:
    here = {"a": Position("e", 7), "b": Position("f", 0)}
    for positions in ("", "&position=e.1&position=f.9", "&position=e.1", "&position=x&position=y"):
        assert starts("channel=a&channel=b" + positions, b"e.7,f.0") == here


@pytest.mark.parametrize("nothing", [None, b""])
def test_an_empty_last_event_id_is_none(nothing: bytes | None) -> None:
    assert starts("channel=a&position=e.1", nothing) == {"a": Position("e", 1)}
    assert starts("channel=a", nothing) == {"a": Now()}


@pytest.mark.parametrize(
    ("last_event_id", "over", "own"),
    [
        (b"e.1,e.2,e.3", False, True),
        (b"-,e.2,e.3", False, True),
        (b"e.1,e.2,-", False, False),
        (b"-,-,e.3", False, True),
        (b"-,-,-", True, False),
    ],
)
def test_channels_that_are_over_are_not_asked_for_again(
    last_event_id: bytes, over: bool, own: bool
) -> None:
    asked = ask("channel=a&channel=b&channel=~c", last_event_id)
    ended = [part == b"-" for part in last_event_id.split(b",")]
    assert [start is None for start in asked.starts.values()] == ended
    assert (asked.finished, asked.own) == (over, own)


@pytest.mark.parametrize(
    ("query", "own"),
    [("channel=a", False), ("channel=a~", False), ("channel=~a", True), ("channel=%7Ea", True),
     ("channel=a&channel=~b", True), ("channel=a&x=~b", False)],
)  # fmt: skip
def test_a_request_tells_whether_it_asks_for_channels_of_the_client_process(
    query: str, own: bool
) -> None:
    assert ask(query).own is own
    assert not ask(query).finished


@pytest.mark.parametrize(
    ("query", "as_text"),
    [("", False), ("&format=json", False), ("&format=text", True),
     ("&format=json&format=text", True), ("&format=text&format=json", False)],
)  # fmt: skip
def test_the_format_is_json_unless_text_is_asked_for(query: str, as_text: bool) -> None:
    assert ask("channel=a" + query).as_text is as_text
    assert ask("channel=a" + query, b"-").as_text is as_text


@pytest.mark.parametrize(
    "query",
    ["x=1&channel=a", "channel=a&_=1699999999", "channel=a&Channel=b", "channel=a&channel%20=b",
     "channel=a&position%00=x", "&&channel=a&&", "channel=a&token", "channel=a&=b",
     "channel=a&channels=b&pos=1&Format=xml&last-event-id=e.1", "chann%65l=a"],
)  # fmt: skip
def test_parameters_that_are_not_ours_are_ignored(query: str) -> None:
    assert ask(query) == Request({"a": Now()}, as_text=False)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("channel=%C3%A9t%C3%A9", "été"),
        ("channel=été".encode(), "été"),
        ("channel=🎈", "🎈"),
        ("channel=%F0%9F%8E%88", "🎈"),
        ("channel=a+b%20c%2Bd", "a b c+d"),
        ("channel=a%26channel%3Db", "a&channel=b"),
        ("channel=a=b", "a=b"),
        ("channel=a;channel=b", "a;channel=b"),
        ("channel=a%2Cb", "a,b"),
        ("channel=100%&x=%zz", "100%"),
        ("channel=%2541", "%41"),
        ("channel=a%0Adata:%20x%0D", "a\ndata: x\r"),
        ("channel=%00", "\0"),
        ("channel=%E2%80%A8%EF%BB%BF", "\u2028\ufeff"),
        ("channel=", ""),
    ],
)
def test_a_name_is_read_as_forms_and_pages_write_it(query: str | bytes, name: str) -> None:
    assert starts(query) == {name: Now()}


NO_UTF_8 = "expected a query in UTF-8, got something else"
NO_START = r"expected 'now', 'first', 'last:10' or a position like 'k3x9Qp\.57', got "
NO_POSITION = r"expected a position like 'k3x9Qp\.57', got "
TWO = "channel=a&channel=b"
LAST_ID = r"expected a Last-Event-ID with a position for each channel \(2\), "

WRONG: list[tuple[str | bytes, bytes | None, str]] = [
    ("", None, r"expected at least one channel, like \?channel=ticker"),
    ("", b"e.1", r"expected at least one channel, like \?channel=ticker"),
    ("channels=a", None, r"expected at least one channel"),
    ("position=e.1", None, r"expected at least one channel"),
    ("CHANNEL=a", None, r"expected at least one channel"),
    ("a", None, r"expected at least one channel"),
    ("channel=a&channel=a", None, "expected every channel once, got 'a' twice"),
    ("channel=a&channel=%61", None, "expected every channel once, got 'a' twice"),
    ("channel=a&channel=b&channel=a", b"e.1,e.2,e.3", "expected every channel once, got 'a' twice"),
    (b"channel=\xff", None, NO_UTF_8),
    (b"channel=a&x=\xff", None, NO_UTF_8),
    (b"channel=\xed\xa0\x80", None, NO_UTF_8),
    ("channel=%FF", None, NO_UTF_8),
    ("channel=%E9", None, NO_UTF_8),
    ("channel=%C3", None, NO_UTF_8),
    ("channel=%ED%A0%80", None, NO_UTF_8),
    ("channel=a&%FF=1", None, NO_UTF_8),
    (TWO + "&position=e.1", None, "expected a position for each of 2 channels, got 1"),
    (TWO + "&position=now" * 3, None, "expected a position for each of 2 channels, got 3"),
    ("channel=a&position=e.1,e.2", None, NO_START + "'e.1,e.2'"),
    ("channel=a&position=", None, NO_START + "''"),
    ("channel=a&position=-", None, NO_START + "'-'"),
    ("channel=a&position=Now", None, NO_START + "'Now'"),
    ("channel=a&position=last:-1", None, NO_START + "'last:-1'"),
    ("channel=a&position=last:1e3", None, NO_START + "'last:1e3'"),
    ("channel=a&position=e.01", None, NO_START + "'e.01'"),
    ("channel=a&position=e.1%0A", None, NO_START + r"'e\.1\\n'"),
    ("channel=a&position=%D9%A3.1", None, NO_START + "'٣.1'"),
    (TWO, b"e.1", LAST_ID + "got 1"),
    (TWO, b"-", LAST_ID + "got 1"),
    (TWO, b"e.1,e.2,e.3", LAST_ID + "got 3"),
    (TWO, b"e.1,-,", LAST_ID + "got 3"),
    (TWO, b",", NO_POSITION + "''"),
    (TWO, b"e.1, e.2", NO_POSITION + "' e.2'"),
    (TWO, b"e.1,--", NO_POSITION + "'--'"),
    (TWO, b"e.1,now", NO_POSITION + "'now'"),
    (TWO, b"last:1,-", NO_POSITION + "'last:1'"),
    ("channel=a", b" ", NO_POSITION + "' '"),
    ("channel=a", b"\xd9\xa3.1", NO_POSITION + "'Ù£.1'"),
    ("channel=a&format=html", None, "expected format=json or format=text, got 'html'"),
    ("channel=a&format=", None, "expected format=json or format=text, got ''"),
    ("channel=a&format=TEXT", b"e.1", "expected format=json or format=text, got 'TEXT'"),
    ("channel=a&format=text&format=x", None, "expected format=json or format=text, got 'x'"),
]


@pytest.mark.parametrize(
    ("query", "last_event_id", "text"), WRONG, ids=[f"{q!r:.40}-{i!r}" for q, i, _ in WRONG]
)
def test_a_wrong_request_is_told_what_was_expected_and_what_came(
    query: str | bytes, last_event_id: bytes | None, text: str
) -> None:
    with pytest.raises(BadRequest, match=f"^{text}"):
        ask(query, last_event_id)


def test_what_came_is_told_in_short() -> None:
    long = "x" * 10_000
    for query, last_event_id in (
        (f"channel=a&position={long}", None),
        (f"channel=a&format={long}", None),
        ("channel=a", long.encode()),
    ):
        with pytest.raises(BadRequest, match="xxxxxxxxxxxxxxxxxxxx") as caught:
            ask(query, last_event_id)
        assert len(str(caught.value)) < 200


def channels(count: int) -> str:
    return "&".join(f"channel={number}" for number in range(count))


@pytest.mark.parametrize("limit", [1, 2, 128])
def test_channels_of_one_request_at_n_and_n_plus_one(limit: int) -> None:
    assert len(ask(channels(limit), limit=limit).starts) == limit
    ids = ",".join(["e.1"] * limit).encode()
    assert len(ask(channels(limit), ids, limit).starts) == limit
    for last_event_id in (None, ids + b",e.1"):
        with pytest.raises(
            BadRequest, match=f"expected at most {limit} channels, got {limit + 1}$"
        ):
            ask(channels(limit + 1), last_event_id, limit)


def test_parameters_of_one_request_at_n_and_n_plus_one() -> None:
    full = channels(3) + "&position=now" * 3
    foreign = "&x=1" * SPARE_FIELDS
    assert len(ask(full + foreign, limit=3).starts) == 3
    most = 2 * 3 + SPARE_FIELDS
    with pytest.raises(
        BadRequest,
        match=f"expected at most 3 channels, and {most} parameters in all, got {most + 1}",
    ):
        ask(full + foreign + "&y", limit=3)


def test_a_name_with_a_newline_writes_no_line_of_its_own() -> None:
    (name,) = starts("channel=a%0Aid:%20x%0A%0Adata:%20y")
    written = encode_event(b":closed", {"channel": name, "reason": "unknown"}, ENDED)
    (event,) = read_sse(written)
    assert json.loads(event.data)["channel"] == name
    assert event.id == "-"


EPOCHS = st.text("ABCxyz019_-", min_size=1, max_size=32)
POSITIONS = st.builds(Position, EPOCHS, st.integers(0, 10**16 - 1))
ANY_NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=63)  # 4 bytes each at most


@given(st.dictionaries(ANY_NAME, POSITIONS, min_size=1, max_size=10), st.booleans())
def test_any_name_and_position_is_read_as_it_was_written(
    asked: dict[str, Position], as_text: bool
) -> None:
    pairs = [("channel", name) for name in asked]
    more = [("format", "text" if as_text else "json")]
    positions = [("position", str(position)) for position in asked.values()]
    id_ = join_id([str(position).encode() for position in asked.values()])
    expected = Request(dict(asked), as_text)
    for escape in (quote, quote_plus):
        query = urlencode([*pairs, *positions, *more], quote_via=escape)
        assert ask(query) == expected
        assert list(ask(query).starts) == list(asked)
        assert ask(urlencode([*more, *pairs], quote_via=escape), id_) == expected


@given(st.lists(st.none() | POSITIONS, min_size=1, max_size=10))
def test_any_id_of_ours_brings_a_client_back_to_where_it_was(
    positions: list[Position | None],
) -> None:
    id_ = join_id([ENDED if position is None else str(position).encode() for position in positions])
    (event,) = read_sse(encode_event(b":open", {}, id_))
    asked = ask(channels(len(positions)), event.id.encode())
    assert list(asked.starts.values()) == positions
    assert asked.finished is (not any(positions))


QUERIES = st.lists(
    st.sampled_from(["channel", "position", "format", "=", "&", "a", "~", "e.1", "last:2", "now",
                     "text", "%", "%41", "%C3%A9", "%FF", "+", ";", ",", "-", "é"])
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(st.binary() | QUERIES.map(str.encode), st.none() | st.binary())
@example(b"channel=a", b"\xff")
@example(b"channel=" + b"%" * 300, None)
def test_any_bytes_are_a_request_or_a_bad_one(query: bytes, last_event_id: bytes | None) -> None:
    for asked in (query, b"channel=a&" + query, b"channel=a&position=" + query):
        try:
            found = ask(asked, last_event_id)
        except BadRequest as error:
            assert re.match("expected .", str(error))  # noqa: PT017 - it may also decode
            assert len(str(error)) < 300  # noqa: PT017
            continue
        assert 1 <= len(found.starts) <= LIMIT
        for name in found.starts:
            name.encode()  # never a lone surrogate


# Events


def test_events_are_those_of_wire_md() -> None:
    framing = make_framing(behind=b",b7Ra1z.12")
    messages = [Message(58, b'{"price": 1.5}'), Message(59, b"null")]
    assert framing("ticker", "k3x9Qp", messages) == (
        b'event: ticker\ndata: {"price": 1.5}\nid: k3x9Qp.58,b7Ra1z.12\n\n'
        b"event: ticker\ndata: null\nid: k3x9Qp.59,b7Ra1z.12\n\n"
    )
    assert make_framing(b"-,", b",x.1")("a", "e", [Message(1, b"1")]) == (
        b"event: a\ndata: 1\nid: -,e.1,x.1\n\n"
    )
    assert make_framing()("a", "e", [Message(1, b"1")]) == b"event: a\ndata: 1\nid: e.1\n\n"
    assert make_framing()("a", "e", []) == b""


def test_events_of_ours_are_those_of_wire_md() -> None:
    assert encode_event(b":open", {"positions": {"a": "e.1"}}, b"e.1,-") == (
        b'event: :open\ndata: {"positions": {"a": "e.1"}}\nid: e.1,-\n\n'
    )
    assert encode_event(b":deactivated", {}) == b"event: :deactivated\ndata: {}\n\n"
    assert encode_retry(5000) == b"retry: 5000\n"
    assert join_id([b"e.1", ENDED, b"f.2"]) == b"e.1,-,f.2"
    assert CONTENT_TYPE.partition(b";")[0] == b"text/event-stream"


def test_an_event_without_an_id_leaves_the_client_where_it_was() -> None:
    stream = encode_event(b":open", {}, b"e.1") + encode_event(b":deactivated", {})
    assert [event.id for event in read_sse(stream)] == ["e.1", "e.1"]


def test_a_sign_of_life_and_a_retry_are_no_events() -> None:
    stream = COMMENT + encode_retry(1234) + b"\n" + COMMENT
    reader = Reader().read(stream)
    assert (reader.events, len(reader.comments), reader.retry) == ([], 2, 1234)
    assert read_with_node(stream) == [[]]


def test_a_sign_of_life_after_events_is_none() -> None:
    event = make_framing()("a", "e", [Message(1, b"1")])
    stream = event + COMMENT + event
    assert read_sse(stream) == [Event("a", "1", "e.1")] * 2
    assert read_with_node(stream) == [[Event("a", "1", "e.1")] * 2]


def test_a_retry_does_not_change_the_event_behind_it() -> None:
    stream = encode_retry(1000) + encode_event(b":open", {}, b"e.1")
    assert read_sse(stream) == read_with_httpx(stream) == [Event(":open", "{}", "e.1")]


def test_who_follows_the_same_channel_shares_what_is_written_whatever_else_they_follow() -> None:
    kinds = [(b"a,", b",b"), (b"a,", b""), (b"", b",b"), (b"c,", b"")]
    for as_text in (False, True):
        alone = make_framing(as_text=as_text)
        assert alone is alone.shared is make_framing(as_text=as_text)
        assert len({make_framing(*kind, as_text).shared for kind in kinds}) == 1
    assert make_framing(b"a,", as_text=False).shared is not make_framing(b"a,", as_text=True).shared


TEXTS_AS_LINES = [
    ("", ""),
    ("one", "one"),
    ("a\nb", "a\nb"),
    ("a\r\nb\rc", "a\nb\nc"),
    ("a\n\rb", "a\n\nb"),
    ("\n", "\n"),
    ("a\n", "a\n"),
    ("\r\n\r\n", "\n\n"),
    (" two spaces", " two spaces"),
    (":colon", ":colon"),
    ("data: x", "data: x"),
    ("\n\nevent: evil\ndata: x\n\n", "\n\nevent: evil\ndata: x\n\n"),
    ("a\nid: evil.1\nretry: 1", "a\nid: evil.1\nretry: 1"),
    ("\ufeff\0\x0b\x0c\x1c\x85\u2028\u2029é🎈", "\ufeff\0\x0b\x0c\x1c\x85\u2028\u2029é🎈"),
    ('"quoted" \\n', '"quoted" \\n'),
    ("<p>\n  html\n</p>", "<p>\n  html\n</p>"),
]


@pytest.mark.parametrize(("text", "read"), TEXTS_AS_LINES, ids=[repr(t) for t, _ in TEXTS_AS_LINES])
def test_a_text_is_written_as_it_is_line_by_line(text: str, read: str) -> None:
    data = encode("a", text)
    written = make_framing(as_text=True)("a", "e", [Message(1, data)])
    for parse in (read_sse, read_with_httpx):
        assert parse(written) == [Event("a", read, "e.1")]
    (event,) = read_sse(make_framing()("a", "e", [Message(1, data)]))
    assert json.loads(event.data) == text


@pytest.mark.parametrize("data", [b"17", b"null", b"true", b'["x"]', b'{"a":"b"}', b"-1.5e3"])
def test_with_format_text_what_is_no_text_is_json(data: bytes) -> None:
    message = [Message(1, data)]
    assert make_framing(as_text=True)("a", "e", message) == make_framing()("a", "e", message)


encode = make_encode(None)


def is_name(text: str) -> bool:
    try:
        check_name(text)
    except InvalidName:
        return False
    return True


NASTY_NAMES = [" ", " a", "a ", "a:b", "data: x", "id:", "a,b", "\u2028", "a\u2029", "\ufeff",
               "\ufeffdata", "\u200b", "🎈", "message", "-", "e.1", '"', "\\n", "é" * 127, "\ue000",
               "\ufffe", "a" * 255]  # fmt: skip
SITE_NAMES = (
    st.sampled_from(NASTY_NAMES)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
).filter(is_name)
NAMES = SITE_NAMES | SITE_NAMES.map("~{}".format)

PIECES = ["\r", "\n", "\r\n", "\0", "\x85", "\u2028", "\u2029", "\ufeff", "\x0b", "\x0c", "\x1c",
          ":", " ", "id:", "id: evil.1", "event: evil", "data: x", "data", "retry: 1", '"', "\\",
          "\\n", "é", "🎈", "</script>", "a"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
VALUES = TEXTS | JSON
IDS = st.lists(st.just(ENDED) | POSITIONS.map(lambda p: str(p).encode()), max_size=3)


def before_of(ids: list[bytes]) -> bytes:
    return b"".join(id_ + b"," for id_ in ids)


def behind_of(ids: list[bytes]) -> bytes:
    return b"".join(b"," + id_ for id_ in ids)


def as_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def messages(values: list[Any], first: int = 1) -> list[Message]:
    return [Message(first + n, encode("a", value)) for n, value in enumerate(values)]


def data_of(message: Message, as_text: bool) -> str:
    """What a client is to get for a message."""
    if as_text and message.data.startswith(b'"'):
        return as_lines(json.loads(message.data))
    return message.data.decode()


@st.composite
def runs(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A run of messages as it is written, and the events it is to be read as."""
    name, epoch, as_text = draw(NAMES), draw(EPOCHS), draw(st.booleans())
    before, behind = before_of(draw(IDS)), behind_of(draw(IDS))
    first = draw(st.integers(1, 10**16 - 9))
    run = messages(draw(st.lists(VALUES, max_size=5)), first)
    written = make_framing(before, behind, as_text)(name, epoch, run)
    expected = [
        Event(name, data_of(m, as_text), f"{before.decode()}{epoch}.{m.offset}{behind.decode()}")
        for m in run
    ]
    return written, expected


@st.composite
def errors(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """An event of ours, about a channel of any name a client may ask for."""
    type_ = draw(st.sampled_from([":open", ":full", ":closed", ":forbidden", ":replaced"]))
    data = {"channel": draw(ANY_NAME), "reason": draw(st.sampled_from(["ended", "unknown"]))}
    ids = join_id([b"e.0", *draw(IDS)])
    written = encode_event(type_.encode(), data, ids)
    return written, [Event(type_, json.dumps(data), ids.decode())]


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A whole stream, and the events it is to be read as."""
    parts = draw(st.lists(runs() | errors(), min_size=1, max_size=4))
    opening = encode_retry(draw(st.integers(1000, 15_000)))
    opening += encode_event(b":open", {"positions": {}}, b"e.0")
    stream = opening + b"".join(written for written, _ in parts)
    events = [event for _, expected in parts for event in expected]
    return stream, [Event(":open", '{"positions": {}}', "e.0"), *events]


@settings(max_examples=300)
@given(runs() | errors())
def test_one_message_in_is_one_event_out(case: tuple[bytes, list[Event]]) -> None:
    written, expected = case
    reader = Reader().read(written)
    assert reader.events == expected
    assert (reader.comments, reader.retry) == ([], None)
    assert reader.last_event_id == (expected[-1].id if expected else "")


@settings(max_examples=300)
@given(runs() | errors())
def test_no_value_adds_a_field(case: tuple[bytes, list[Event]]) -> None:
    written, expected = case
    blocks = re.split(rb"\r\n\r\n|\n\n|\r\r", written)
    assert blocks.pop() == b""
    assert len(blocks) == len(expected)
    for block in blocks:
        lines = re.split(rb"\r\n|\r|\n", block)
        fields = [line.partition(b": ")[0] for line in lines]
        assert fields[0] == b"event"
        assert set(fields[1:-1]) == {b"data"}
        assert fields[-1] == b"id"


@given(NAMES, VALUES)
def test_the_data_of_an_event_is_the_value(name: str, value: Any) -> None:
    (message,) = messages([value])
    (event,) = read_sse(make_framing()(name, "e", [message]))
    assert json.loads(event.data) == json.loads(message.data)
    if isinstance(value, str):
        assert json.loads(event.data) == value


@given(NAMES, TEXTS)
def test_with_format_text_the_data_is_the_text_up_to_newlines(name: str, text: str) -> None:
    (event,) = read_sse(make_framing(as_text=True)(name, "e", messages([text])))
    assert event == Event(name, as_lines(text), "e.1")


@given(JSON, st.sampled_from(["\n", "\r", "\r\n"]), st.booleans())
def test_json_that_was_written_on_several_lines_means_the_same(
    value: Any, newline: str, as_text: bool
) -> None:
    compact = json.loads(encode("a", value))
    spread = json.dumps([compact], indent=2).replace("\n", newline).encode()
    framing = make_framing(as_text=as_text)
    (event,) = read_sse(framing("a", "e", [Message(1, spread)]))
    assert json.loads(event.data) == [compact]
    assert (event.type, event.id) == ("a", "e.1")


@settings(max_examples=300)
@given(streams())
def test_another_reader_in_python_agrees(case: tuple[bytes, list[Event]]) -> None:
    stream, expected = case
    assert read_sse(stream) == expected
    assert read_with_httpx(stream) == expected


def test_the_event_source_of_javascript_agrees() -> None:
    cases: list[tuple[bytes, list[Event]]] = []

    @settings(max_examples=300)
    @given(streams())
    def collect(case: tuple[bytes, list[Event]]) -> None:
        cases.append(case)

    collect()
    assert len(cases) > 100
    found = read_with_node(*(stream for stream, _ in cases))  # one process for all
    for read, (stream, expected) in zip(found, cases, strict=True):
        assert read == expected, stream


def test_the_event_source_of_javascript_agrees_on_all_that_is_nasty() -> None:
    texts = [
        *PIECES,
        *(text for text, _ in TEXTS_AS_LINES),
        *(a + b for a in PIECES for b in PIECES),
    ]
    run = messages(texts)
    expected = [
        [Event("a", data_of(m, kind), f"e.{m.offset}") for m in run] for kind in (False, True)
    ]
    found = read_with_node(*(make_framing(as_text=kind)("a", "e", run) for kind in (False, True)))
    assert found == expected
    names = [name for name in NASTY_NAMES if is_name(name)]
    assert len(names) == len(NASTY_NAMES)
    stream = b"".join(make_framing()(name, "e", [Message(1, b"1")]) for name in names)
    assert read_with_node(stream) == [[Event(name, "1", "e.1") for name in names]]
