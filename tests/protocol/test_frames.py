from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_comet.channels.encoding import make_encode
from asgi_comet.core.messages import Last, Message, Notice, Now, Start
from asgi_comet.errors import BadRequest
from asgi_comet.position import Position
from asgi_comet.protocol.events import encode_answer, encode_messages, encode_notice
from asgi_comet.protocol.frames import (
    HEARTBEAT,
    SUBPROTOCOL,
    CloseCode,
    Frame,
    decode_frame,
    encode_error,
    encode_frame,
    encode_note,
    encode_run,
    join_frame,
)

LIMIT = 128
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=63)
EPOCHS = st.text("ABCxyz019_-", min_size=1, max_size=32)
POSITIONS = st.builds(Position, EPOCHS, st.integers(0, 10**16 - 1))
STARTS = st.just(Now()) | st.builds(Last, st.integers(0, 10**16 - 1)) | POSITIONS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def text_of(start: Start) -> str:
    match start:
        case Now():
            return "now"
        case Last(count):
            return f"last:{count}"
        case _:
            return str(start)


# What a client says


def test_a_frame_subscribes() -> None:
    text = '{"subscribe": {"ticker": "now", "news": "last:10", "~inbox": "k3x9Qp.3"}}'
    starts: dict[str, Start] = {
        "ticker": Now(),
        "news": Last(10),
        "~inbox": Position("k3x9Qp", 3),
    }
    assert decode_frame(text, LIMIT) == Frame([], starts, {})


def test_a_frame_unsubscribes() -> None:
    assert decode_frame('{"unsubscribe": ["ticker", "~inbox"]}', LIMIT) == Frame(
        ["ticker", "~inbox"], {}, {}
    )
    assert decode_frame('{"unsubscribe": []}', LIMIT) == Frame([], {}, {})


def test_a_frame_acknowledges() -> None:
    text = '{"ack": {"~inbox": "k3x9Qp.3", "ticker": "e.0"}}'
    expected = {"~inbox": Position("k3x9Qp", 3), "ticker": Position("e", 0)}
    assert decode_frame(text, LIMIT) == Frame([], {}, expected)


def test_a_frame_may_do_all_three() -> None:
    text = '{"ack": {"a": "e.1"}, "subscribe": {"b": "now"}, "unsubscribe": ["a"]}'
    assert decode_frame(text, LIMIT) == Frame(["a"], {"b": Now()}, {"a": Position("e", 1)})


LIKE = r'expected JSON like \{"subscribe": \{"ticker": "now"\}\}, got something else: '
AN_OBJECT = r'expected an object like \{"subscribe": \{"ticker": "now"\}\}, got '
VERBS = "expected 'subscribe', 'unsubscribe' or 'ack', got "
NAMES_EXPECTED = "expected 'unsubscribe' to be a list of channels, got "
ONE_CHANNEL = r'expected an object with at least one channel, like \{"ticker": "now"\}, got '
NO_POSITION = "expected a position for channel 'a', got "
NO_START = r"expected 'now', 'first', 'last:10' or a position like 'k3x9Qp\.57', got "
NOT_EXPLICIT = r"expected a position like 'k3x9Qp\.57', got "

WRONG: list[tuple[str, str]] = [
    ("", LIKE),
    (" ", LIKE),
    ("subscribe", LIKE),
    ('{"subscribe": {"a": "now"}', LIKE),
    ('{"subscribe": {"a": "now"}} x', LIKE),
    ('{"subscribe": {"a": "now"}}{"unsubscribe": ["a"]}', LIKE),
    ('{"subscribe": {"a": "now",}}', LIKE),
    ("{'subscribe': {'a': 'now'}}", LIKE),
    ('{"subscribe": {"a": NaN}}', LIKE),
    ('{"unsubscribe": [Infinity]}', LIKE),
    ("\ufeff{}", LIKE),
    ("\0", LIKE),
    ("\ud800", LIKE),
    ("[" * 60_000, LIKE),
    ('{"subscribe":' * 5_000, LIKE),
    ('{"subscribe": {"\\ud800": "now"}}', LIKE),
    ('{"unsubscribe": ["\\udfff"]}', LIKE),
    ("null", AN_OBJECT + "NoneType$"),
    ("[]", AN_OBJECT + "list$"),
    ('"subscribe"', AN_OBJECT + "str$"),
    ("1", AN_OBJECT + "int$"),
    ("1.5", AN_OBJECT + "float$"),
    ("true", AN_OBJECT + "bool$"),
    ("{}", VERBS + "nothing$"),
    ('{"Subscribe": {"a": "now"}}', VERBS + "'Subscribe'$"),
    ('{"channels": {"a": "now"}}', VERBS + "'channels'$"),
    ('{"subscribe": {"a": "now"}, "idle": true}', VERBS + "'subscribe', 'idle'$"),
    ('{"": 1}', VERBS + "''$"),
    ('{"subscribe": {}}', ONE_CHANNEL + "none$"),
    ('{"subscribe": null}', ONE_CHANNEL + "none$"),
    ('{"subscribe": []}', ONE_CHANNEL + "list$"),
    ('{"subscribe": ["a"]}', ONE_CHANNEL + "list$"),
    ('{"subscribe": "a"}', ONE_CHANNEL + "str$"),
    ('{"subscribe": false}', ONE_CHANNEL + "bool$"),
    ('{"ack": {}}', ONE_CHANNEL + "none$"),
    ('{"ack": null, "unsubscribe": ["a"]}', ONE_CHANNEL + "none$"),
    ('{"ack": ["a"]}', ONE_CHANNEL + "list$"),
    ('{"ack": 7}', ONE_CHANNEL + "int$"),
    ('{"subscribe": {"a": null}}', NO_POSITION + "None$"),
    ('{"subscribe": {"a": 7}}', NO_POSITION + "7$"),
    ('{"subscribe": {"a": true}}', NO_POSITION + "True$"),
    ('{"subscribe": {"a": ["now"]}}', NO_POSITION + r"\['now'\]$"),
    ('{"subscribe": {"a": 1e999}}', NO_POSITION + "inf$"),
    ('{"ack": {"a": 3}}', NO_POSITION + "3$"),
    ('{"ack": {"a": {"b": "e.1"}}}', NO_POSITION + "{'b': 'e.1'}$"),
    ('{"subscribe": {"a": ""}}', NO_START + "''$"),
    ('{"subscribe": {"a": "Now"}}', NO_START + "'Now'$"),
    ('{"subscribe": {"a": "-"}}', NO_START + "'-'$"),
    ('{"subscribe": {"a": "last:-1"}}', NO_START + "'last:-1'$"),
    ('{"subscribe": {"a": "last:01"}}', NO_START + "'last:01'$"),
    ('{"subscribe": {"a": "e.1", "b": "e"}}', NO_START + "'e'$"),
    ('{"ack": {"a": "now"}}', NOT_EXPLICIT + "'now'$"),
    ('{"ack": {"a": "last:1"}}', NOT_EXPLICIT + "'last:1'$"),
    ('{"ack": {"a": "e.01"}}', NOT_EXPLICIT + "'e.01'$"),
    ('{"unsubscribe": null}', NAMES_EXPECTED + "None$"),
    ('{"unsubscribe": "a"}', NAMES_EXPECTED + "'a'$"),
    ('{"unsubscribe": {}}', NAMES_EXPECTED + "{}$"),
    ('{"unsubscribe": {"a": "now"}}', NAMES_EXPECTED + "{'a': 'now'}$"),
    ('{"unsubscribe": 7}', NAMES_EXPECTED + "7$"),
    ('{"unsubscribe": ["a", 7]}', NAMES_EXPECTED + r"\['a', 7\]$"),
    ('{"unsubscribe": [null]}', NAMES_EXPECTED + r"\[None\]$"),
    ('{"unsubscribe": [["a"]]}', NAMES_EXPECTED + r"\[\['a'\]\]$"),
    ('{"subscribe": {"a": "now"}, "unsubscribe": 7}', NAMES_EXPECTED + "7$"),
    ('{"subscribe": {"a": "now"}, "ack": {"a": "now"}}', NOT_EXPLICIT + "'now'$"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[ascii(text)[:50] for text, _ in WRONG])
def test_a_wrong_frame_is_told_what_was_expected_and_what_came(text: str, told: str) -> None:
    with pytest.raises(BadRequest, match=f"^{told}") as caught:
        decode_frame(text, LIMIT)
    assert len(str(caught.value)) < 300


def test_what_came_is_told_in_short() -> None:
    long = "x" * 10_000
    for frame in (
        {long: 1},
        {"subscribe": {long: 1}},
        {"subscribe": {"a": long}},
        {"subscribe": {"a": [long]}},
        {"ack": {"a": long}},
        {"unsubscribe": long},
        {"unsubscribe": [long, 1]},
        {"unsubscribe": dict.fromkeys(map(str, range(1000)))},
        dict.fromkeys(map(str, range(1000)), 1),
    ):
        with pytest.raises(BadRequest) as caught:
            decode_frame(json.dumps(frame), LIMIT)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("digits", [4300, 4301, 60_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_any_length_is_a_bad_frame(digits: int, sign: str) -> None:
    number = sign + "1" * digits
    for frame in ('{"subscribe": {"a": %s}}', '{"ack": %s}', '{"unsubscribe": [%s]}'):
        with pytest.raises(BadRequest, match=r"^expected .* got"):
            decode_frame(frame % number, LIMIT)


@pytest.mark.parametrize("verb", ["subscribe", "ack", "unsubscribe"])
@pytest.mark.parametrize("limit", [1, 128])
def test_channels_of_each_part_at_n_and_n_plus_one(verb: str, limit: int) -> None:
    def frame(count: int) -> str:
        names = list(map(str, range(count)))
        return json.dumps({verb: names if verb == "unsubscribe" else dict.fromkeys(names, "e.1")})

    assert len(getattr(decode_frame(frame(limit), limit), verb)) == limit
    told = f"^expected at most {limit} channels( to unsubscribe)?, got {limit + 1}$"
    with pytest.raises(BadRequest, match=told):
        decode_frame(frame(limit + 1), limit)


def test_each_part_has_a_limit_of_its_own() -> None:
    text = '{"subscribe": {"a": "now"}, "ack": {"b": "e.1"}, "unsubscribe": ["c"]}'
    assert decode_frame(text, 1) == Frame(["c"], {"a": Now()}, {"b": Position("e", 1)})


def test_of_a_key_said_twice_the_last_counts() -> None:
    text = '{"subscribe": {"b": "now"}, "subscribe": {"a": "now", "a": "e.1"}}'
    assert decode_frame(text, LIMIT) == Frame([], {"a": Position("e", 1)}, {})


def test_a_lone_surrogate_in_a_name_is_replaced() -> None:
    assert decode_frame('{"unsubscribe": ["a\ud800"]}', LIMIT).unsubscribe == ["a?"]


@given(
    st.dictionaries(NAMES, STARTS, max_size=5),
    st.dictionaries(NAMES, POSITIONS, max_size=5),
    st.lists(NAMES, min_size=1, max_size=5),
    st.booleans(),
)
def test_any_frame_is_read_as_it_was_written(
    subscribe: dict[str, Start],
    ack: dict[str, Position],
    unsubscribe: list[str],
    ascii_only: bool,
) -> None:
    parts = {
        "subscribe": {name: text_of(start) for name, start in subscribe.items()},
        "ack": {name: str(position) for name, position in ack.items()},
        "unsubscribe": unsubscribe,
    }
    said = {verb: part for verb, part in parts.items() if part}
    found = decode_frame(json.dumps(said, ensure_ascii=ascii_only), LIMIT)
    assert found == Frame(unsubscribe, subscribe, ack)
    assert list(found.subscribe) == list(subscribe)


def decode_or_refuse(text: str) -> None:
    try:
        decode_frame(text, LIMIT)
    except BadRequest as error:
        assert str(error).startswith("expected ")  # noqa: PT017 - it may also decode
        encode_error(str(error)).encode()


@given(st.text(st.characters()))
@example("\ud800")
@example('{"unsubscribe": ["\udfff"]}')
def test_any_text_decodes_or_is_a_bad_frame(text: str) -> None:
    decode_or_refuse(text)


@settings(max_examples=200)
@given(JSON, st.sampled_from(["subscribe", "ack", "unsubscribe"]))
@example({"\ud800": "now"}, "subscribe")
@example(["\udfff"], "unsubscribe")
def test_any_json_decodes_or_is_a_bad_frame(value: Any, verb: str) -> None:
    for frame in (
        value,
        {verb: value},
        {verb: {"a": value}},
        {verb: [value]},
        {verb: {"a": "e.1"}, "ack": value},
    ):
        for ascii_only in (True, False):
            decode_or_refuse(json.dumps(frame, ensure_ascii=ascii_only))


# What the server says


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_frames_are_those_of_wire_md() -> None:
    messages = [Message(58, b'{"price": 1.5}'), Message(59, b"null")]
    assert encode_frame("ticker", "k3x9Qp", messages) == (
        '{"events":[{"channel":"ticker","position":"k3x9Qp.58","data":{"price": 1.5}},'
        '{"channel":"ticker","position":"k3x9Qp.59","data":null}]}'
    )
    closed = encode_note(Notice("b", "closed", reason="ended"))
    run = encode_run("a", "e", [Message(1, b"1")])
    assert join_frame([run, closed]) == (
        '{"events":[{"channel":"a","position":"e.1","data":1},'
        '{"channel":"b","error":"closed","reason":"ended"}]}'
    )
    assert join_frame([]) == HEARTBEAT == '{"events":[]}'
    assert encode_error("what is wrong") == '{"error": "what is wrong"}'
    assert SUBPROTOCOL == "comet.v1"


def test_the_close_codes_are_those_of_wire_md() -> None:
    assert {code.name: int(code) for code in CloseCode} == {
        "TOO_BIG": 1009,
        "RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "REPLACED": 4000,
        "PROCESS_CLOSED": 4001,
        "BAD_MESSAGE": 4400,
    }


encode = make_encode(None)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


@given(NAMES, EPOCHS, st.lists(VALUES, min_size=1, max_size=4), st.integers(1, 10**16 - 9))
@example('"\\/\0\x1f\x7f\x85\u2028\u2029</script>\U0001f600', "e", ['"}]}', "\r\n\0"], 1)
def test_a_frame_of_any_name_and_value_is_strict_json(
    name: str, epoch: str, values: list[Any], first: int
) -> None:
    messages = [Message(first + n, encode("a", value)) for n, value in enumerate(values)]
    expected = [
        {"channel": name, "position": f"{epoch}.{m.offset}", "data": json.loads(m.data)}
        for m in messages
    ]
    assert strict(encode_frame(name, epoch, messages)) == {"events": expected}
    for value, event in zip(values, expected, strict=True):
        assert not isinstance(value, str) or event["data"] == value


NOTICES = st.one_of(
    st.builds(Notice, NAMES, st.none(), POSITIONS, st.none()),
    st.builds(Notice, NAMES, st.just("full"), st.none() | POSITIONS, st.none()),
    st.builds(
        Notice, NAMES, st.just("closed"), st.none(), st.sampled_from(["ended", "failed", "unknown"])
    ),
    st.builds(Notice, NAMES, st.just("forbidden"), st.none(), st.none()),
)


@given(NAMES, st.lists(VALUES, min_size=1, max_size=4), st.lists(NOTICES, max_size=4))
def test_a_frame_says_what_the_answer_to_a_poll_says(
    name: str, values: list[Any], notices: list[Notice]
) -> None:
    messages = [Message(n, encode("a", value)) for n, value in enumerate(values, 1)]
    frame = join_frame([encode_run(name, "e", messages), *map(encode_note, notices)])
    answer = encode_answer([encode_messages(name, "e", messages), *map(encode_notice, notices)])
    assert frame.encode() == answer
    events = strict(frame)["events"]
    assert len(events) == len(messages) + len(notices)
    for event, notice in zip(events[len(messages) :], notices, strict=True):
        assert event["channel"] == notice.channel
        assert event.get("error") == notice.error
        assert event.get("reason") == notice.reason
        assert event.get("position") == (notice.position and str(notice.position))


@given(POSITIONS, NAMES)
def test_the_position_of_an_event_can_be_sent_back(position: Position, name: str) -> None:
    event = strict(encode_note(Notice(name, position=position)))
    for verb in ("subscribe", "ack"):
        said = json.dumps({verb: {event["channel"]: event["position"]}})
        assert getattr(decode_frame(said, LIMIT), verb) == {name: position}


@given(st.text(st.characters()))
def test_any_reason_is_told_as_json_in_one_frame(reason: str) -> None:
    told = encode_error(reason)
    told.encode()  # a lone surrogate is escaped, so the frame can be sent
    assert strict(told) == {"error": reason}
