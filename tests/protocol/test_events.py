from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_comet.core.messages import Last, Message, Notice, Now, Start
from asgi_comet.errors import BadRequest
from asgi_comet.position import Position
from asgi_comet.protocol.events import (
    CONTENT_TYPES,
    PROCESS_CLOSED,
    REPLACED,
    SHORT,
    Poll,
    decode_ack,
    decode_poll,
    encode_answer,
    encode_messages,
    encode_notice,
    encode_sole,
)

LIMIT = 128
NAMES = st.text(max_size=63)  # 4 bytes each at most
EPOCHS = st.text("ABCxyz019_-", min_size=1, max_size=32)
POSITIONS = st.builds(Position, EPOCHS, st.integers(0, 10**16 - 1))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def strict(data: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(data.decode(), parse_constant=refuse)


def test_the_content_types_are_those_of_the_poll() -> None:
    assert CONTENT_TYPES == (b"application/json", b"application/x-ocsigen-comet+json")


# Requests


def test_a_poll_names_its_channels_and_where_each_begins() -> None:
    body = b'{"channels": {"ticker": "k3x9Qp.57", "news": "last:10", "~inbox": "now"}}'
    starts: dict[str, Start] = {
        "ticker": Position("k3x9Qp", 57),
        "news": Last(10),
        "~inbox": Now(),
    }
    assert decode_poll(body, LIMIT) == Poll(starts, idle=False, own=True)


@pytest.mark.parametrize("idle", [True, False])
def test_a_poll_may_be_idle(idle: bool) -> None:
    body = json.dumps({"idle": idle, "channels": {"a": "now"}}).encode()
    assert decode_poll(body, LIMIT).idle is idle


@pytest.mark.parametrize(
    ("names", "own"),
    [(["a"], False), (["a~", "b"], False), (["~a"], True), (["a", "~b"], True), (["~", "a"], True)],
)
def test_a_poll_tells_whether_it_asks_for_channels_of_the_client_process(
    names: list[str], own: bool
) -> None:
    body = json.dumps({"channels": dict.fromkeys(names, "now")}).encode()
    assert decode_poll(body, LIMIT).own is own


@pytest.mark.parametrize("size", [SHORT, SHORT + 1])
def test_a_request_is_read_the_same_whether_or_not_it_was_read_before(size: int) -> None:
    def body(start: str) -> bytes:
        return json.dumps({"channels": {"a": start}}).encode().ljust(size)

    starts: list[tuple[str, Start]] = [("now", Now()), ("e.1", Position("e", 1))]
    for start, expected in starts * 2:
        assert decode_poll(body(start), LIMIT) == Poll({"a": expected}, idle=False, own=False)
    for limit in (1, 0, 1):
        if limit:
            decode_poll(body("now"), limit)
        else:
            with pytest.raises(BadRequest, match="expected at most 0 channels, got 1"):
                decode_poll(body("now"), limit)
    for _ in range(2):
        with pytest.raises(BadRequest, match="got 'never'"):
            decode_poll(body("never"), LIMIT)


def test_an_acknowledgement_names_positions() -> None:
    body = b'{"~inbox": "k3x9Qp.3", "ticker": "e.0"}'
    assert decode_ack(body, LIMIT) == {
        "~inbox": Position("k3x9Qp", 3),
        "ticker": Position("e", 0),
    }


LIKE = r'expected JSON like \{"channels": \{"ticker": "now"\}, "idle": false\}, got something else'
AN_OBJECT = r'expected an object like \{"channels": .*\}, got '

WRONG_POLLS: list[tuple[bytes, str]] = [
    (b"", LIKE),
    (b" ", LIKE),
    (b"ticker", LIKE),
    (b'{"channels": {"a": "now"}', LIKE),
    (b'{"channels": {"a": "now"}} x', LIKE),
    (b'{"channels": {"a": "now",}}', LIKE),
    (b"{'channels': {'a': 'now'}}", LIKE),
    (b'{"channels": {"a": NaN}}', LIKE),
    (b'{"channels": {"a": "now"}, "idle": Infinity}', LIKE),
    (b"\xff", LIKE),
    (b'{"channels": {"\xff": "now"}}', LIKE),
    (b"\xef\xbb\xbf{}", LIKE),
    ("{}".encode("utf-16"), LIKE),
    (b"[", LIKE),
    (b"[" * 60_000, LIKE),
    (b'{"channels":' * 5_000, LIKE),
    (b'{"channels": {"\\ud800": "now"}}', LIKE),
    (b'{"channels": {"a": "\\udfff"}}', LIKE),
    (b"null", AN_OBJECT + "NoneType"),
    (b"[]", AN_OBJECT + "list"),
    (b'"now"', AN_OBJECT + "str"),
    (b"1", AN_OBJECT + "int"),
    (b"true", AN_OBJECT + "bool"),
    (b"{}", "an object with at least one channel, like .*, got none"),
    (b'{"idle": true}', "an object with at least one channel, like .*, got none"),
    (b'{"channels": {}}', "an object with at least one channel, like .*, got none"),
    (b'{"channels": null}', "expected an object with at least one channel"),
    (b'{"channels": []}', "expected an object with at least one channel"),
    (b'{"channels": ["a"]}', "expected an object with at least one channel"),
    (b'{"channels": "a"}', "expected an object with at least one channel"),
    (b'{"channels": 7}', "expected an object with at least one channel"),
    (b'{"channels": {"a": null}}', "expected a position for channel 'a', got None"),
    (b'{"channels": {"a": 7}}', "expected a position for channel 'a', got 7"),
    (b'{"channels": {"a": true}}', "expected a position for channel 'a', got True"),
    (b'{"channels": {"a": ["now"]}}', r"expected a position for channel 'a', got \['now'\]"),
    (b'{"channels": {"a": {"b": "now"}}}', "expected a position for channel 'a', got {'b'"),
    (b'{"channels": {"a": 1e999}}', "expected a position for channel 'a', got inf"),
    (b'{"channels": {"a": ""}}', "expected 'now', 'first', 'last:10' or a position .* got ''"),
    (
        b'{"channels": {"a": "Now"}}',
        "expected 'now', 'first', 'last:10' or a position .* got 'Now'",
    ),
    (b'{"channels": {"a": "last:-1"}}', "expected 'now', .* got 'last:-1'"),
    (b'{"channels": {"a": "last:01"}}', "expected 'now', .* got 'last:01'"),
    (b'{"channels": {"a": "e.1", "b": "e"}}', "expected 'now', .* got 'e'"),
    (b'{"channels": {"a": "now"}, "idle": 1}', "'idle' to be true or false, got 1"),
    (b'{"channels": {"a": "now"}, "idle": null}', "'idle' to be true or false, got None"),
    (b'{"channels": {"a": "now"}, "idle": "false"}', "'idle' to be true or false, got 'false'"),
    (b'{"channels": {"a": "now"}, "Idle": true}', "only 'channels' and 'idle', got 'Idle' too"),
    (b'{"channel": {"a": "now"}}', "only 'channels' and 'idle', got 'channel' too"),
]


@pytest.mark.parametrize(("body", "text"), WRONG_POLLS, ids=lambda value: str(value)[:40])
def test_a_wrong_poll_is_told_what_was_expected_and_what_came(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text) as caught:
        decode_poll(body, LIMIT)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("came", "type_"), [("[]", "list"), ('["a"]', "list"), ('"a"', "str"), ("7", "int")]
)
def test_channels_of_another_type_are_told_that_type(came: str, type_: str) -> None:
    with pytest.raises(BadRequest, match=rf"expected .*, got .*{type_}"):
        decode_poll(b'{"channels": ' + came.encode() + b"}", LIMIT)


WRONG_ACKS: list[tuple[bytes, str]] = [
    (b"", r'expected JSON like \{"~inbox": "k3x9Qp.3"\}, got something else'),
    (b"[" * 60_000, r'expected JSON like \{"~inbox": "k3x9Qp.3"\}, got something else'),
    (b"[]", r'expected an object like \{"~inbox": "k3x9Qp.3"\}, got list'),
    (b"null", r'expected an object like \{"~inbox": "k3x9Qp.3"\}, got NoneType'),
    (b"{}", "an object with at least one channel, like .*, got none"),
    (b'{"a": 7}', "expected a position for channel 'a', got 7"),
    (b'{"a": null}', "expected a position for channel 'a', got None"),
    (b'{"a": {"b": "e.1"}}', "expected a position for channel 'a', got {'b'"),
    (b'{"a": "now"}', "expected a position like 'k3x9Qp.57', got 'now'"),
    (b'{"a": "last:1"}', "expected a position like 'k3x9Qp.57', got 'last:1'"),
    (b'{"a": "e.01"}', "expected a position like 'k3x9Qp.57', got 'e.01'"),
]


@pytest.mark.parametrize(("body", "text"), WRONG_ACKS, ids=lambda value: str(value)[:40])
def test_a_wrong_acknowledgement_is_told_what_was_expected_and_what_came(
    body: bytes, text: str
) -> None:
    with pytest.raises(BadRequest, match=text) as caught:
        decode_ack(body, LIMIT)
    assert len(str(caught.value)) < 300


def test_what_came_is_told_in_short() -> None:
    long = "x" * 10_000
    for body in (
        {long: 1},
        {"channels": {long: 1}},
        {"channels": {"a": long}},
        {"channels": {"a": [long]}},
        {"channels": {"a": "now"}, "idle": long},
    ):
        with pytest.raises(BadRequest) as caught:
            decode_poll(json.dumps(body).encode(), LIMIT)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("digits", [4300, 4301, 60_000])
def test_a_number_of_any_length_is_a_bad_request(digits: int) -> None:
    for body in (b'{"channels": {"a": %s}}', b'{"channels": {"a": "now"}, "idle": %s}'):
        with pytest.raises(BadRequest, match=r"expected .* got"):
            decode_poll(body % (b"1" * digits), LIMIT)


@pytest.mark.parametrize("decode", [decode_poll, decode_ack])
def test_channels_of_one_request_at_n_and_n_plus_one(decode: Any) -> None:
    def body(count: int) -> bytes:
        channels = {str(number): "e.1" for number in range(count)}
        return json.dumps({"channels": channels} if decode is decode_poll else channels).encode()

    found = decode(body(128), 128)
    assert len(found.channels if decode is decode_poll else found) == 128
    with pytest.raises(BadRequest, match="expected at most 128 channels, got 129"):
        decode(body(129), 128)


def test_of_a_key_said_twice_the_last_counts() -> None:
    body = b'{"idle": true, "channels": {"b": "now"}, "channels": {"a": "now", "a": "e.1"}}'
    assert decode_poll(body, LIMIT) == Poll({"a": Position("e", 1)}, idle=True, own=False)
    assert decode_ack(b'{"a": "e.1", "a": "e.2"}', 1) == {"a": Position("e", 2)}


@given(st.dictionaries(NAMES, POSITIONS, min_size=1, max_size=10), st.booleans())
def test_any_name_and_position_is_read_as_it_was_written(
    channels: dict[str, Position], idle: bool
) -> None:
    texts = {name: str(position) for name, position in channels.items()}
    for ascii_only in (True, False):
        body = json.dumps({"channels": texts, "idle": idle}, ensure_ascii=ascii_only).encode()
        own = any(name.startswith("~") for name in channels)
        assert decode_poll(body, LIMIT) == Poll({**channels}, idle, own)
        assert decode_ack(json.dumps(texts, ensure_ascii=ascii_only).encode(), LIMIT) == channels


def decode_or_refuse(body: bytes) -> None:
    for decode in (decode_poll, decode_ack):
        try:
            decode(body, LIMIT)
        except BadRequest as error:
            assert str(error).startswith("expected ")  # noqa: PT017 - it may also decode


@given(st.binary())
def test_any_bytes_decode_or_are_a_bad_request(body: bytes) -> None:
    decode_or_refuse(body)


@given(JSON)
@example({"channels": {"\ud800": "now"}})
@example({"channels": {"a": "\udfff"}})
@example({"\ud800": "e.1"})
def test_any_json_decodes_or_is_a_bad_request(value: Any) -> None:
    decode_or_refuse(json.dumps(value).encode())
    decode_or_refuse(json.dumps({"channels": value}).encode())
    decode_or_refuse(json.dumps({"channels": {"a": value}}).encode())
    decode_or_refuse(json.dumps({"channels": {"a": "now"}, "idle": value}).encode())


# Events

HERE = Position("k3x9Qp", 57)


def test_the_events_are_those_of_wire_md() -> None:
    messages = [Message(58, b'{"price": 1.5}'), Message(59, b"null")]
    assert encode_messages("ticker", "k3x9Qp", messages) == (
        b'{"channel":"ticker","position":"k3x9Qp.58","data":{"price": 1.5}},'
        b'{"channel":"ticker","position":"k3x9Qp.59","data":null}'
    )


@pytest.mark.parametrize(
    ("notice", "event"),
    [
        (Notice("ticker", position=HERE), b'{"channel":"ticker","position":"k3x9Qp.57"}'),
        (
            Notice("ticker", "full", HERE),
            b'{"channel":"ticker","error":"full","position":"k3x9Qp.57"}',
        ),
        (Notice("~inbox", "full"), b'{"channel":"~inbox","error":"full"}'),
        (
            Notice("ticker", "closed", reason="ended"),
            b'{"channel":"ticker","error":"closed","reason":"ended"}',
        ),
        (Notice("ticker", "forbidden"), b'{"channel":"ticker","error":"forbidden"}'),
    ],
)
def test_notices_are_those_of_wire_md(notice: Notice, event: bytes) -> None:
    assert encode_notice(notice) == event


def test_the_answers_are_those_of_wire_md() -> None:
    assert strict(PROCESS_CLOSED) == {"events": [{"error": "process-closed"}]}
    assert strict(REPLACED) == {"events": [], "replaced": True}
    assert encode_answer([]) == b'{"events":[]}'
    assert encode_answer([b'{"a":1}', b'{"b":2}']) == b'{"events":[{"a":1},{"b":2}]}'


@given(NAMES, EPOCHS, st.lists(JSON, max_size=4), st.integers(1, 10**16 - 9))
def test_messages_of_any_name_and_value_are_strict_json(
    name: str, epoch: str, values: list[Any], first: int
) -> None:
    texts = [json.dumps(value).replace("NaN", "null") for value in values]
    data = [text.replace("-Infinity", "null").replace("Infinity", "null") for text in texts]
    messages = [Message(first + n, text.encode()) for n, text in enumerate(data)]
    events = [encode_messages(name, epoch, messages)] if messages else []
    assert not messages or encode_sole(name, epoch, messages) == encode_answer(events)
    assert strict(encode_answer(events)) == {
        "events": [
            {"channel": name, "position": f"{epoch}.{first + n}", "data": json.loads(text)}
            for n, text in enumerate(data)
        ]
    }


@given(NAMES, POSITIONS, st.sampled_from(["ended", "failed", "unknown"]))
@example('"\\/\x00\x1f\x7f\u2028\u2029</script>\U0001f600', Position("e", 0), "ended")
def test_all_other_events_of_any_name_are_strict_json(
    name: str, position: Position, reason: str
) -> None:
    events = [
        encode_notice(Notice(name, position=position)),
        encode_notice(Notice(name, "full", position)),
        encode_notice(Notice(name, "full")),
        encode_notice(Notice(name, "closed", reason=reason)),
        encode_notice(Notice(name, "forbidden")),
    ]
    assert strict(encode_answer(events))["events"] == [
        {"channel": name, "position": str(position)},
        {"channel": name, "error": "full", "position": str(position)},
        {"channel": name, "error": "full"},
        {"channel": name, "error": "closed", "reason": reason},
        {"channel": name, "error": "forbidden"},
    ]


@given(POSITIONS, NAMES)
def test_the_position_of_an_event_can_be_sent_back(position: Position, name: str) -> None:
    event = strict(encode_notice(Notice(name, position=position)))
    body = json.dumps({"channels": {event["channel"]: event["position"]}}).encode()
    assert decode_poll(body, LIMIT).channels == {name: position}
