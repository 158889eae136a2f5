"""Each invariant about people, with a history that is whole and the same with a violation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nemesis.names import NEVER_CONNECTED, PROCESS_TIMEOUT
from tests.nemesis.story import Story

OWN = "P~own"
NOTES = "P~notes"
DECLARED = "P~steps"


class PageStory(Story):
    """A history of the page `P` of the browser `b`, which a client reads."""

    def __init__(self, readers: int = 1) -> None:
        super().__init__()
        self.events[0]["channels"] |= {"guarded": {"kind": "guarded", "size": 3}}
        made = {
            OWN: {"kind": "own", "size": 3},
            NOTES: {"kind": "notes", "size": 3},
            DECLARED: {"kind": "declared", "size": 3},
        }
        self.tell("page", process="P", channels=made)
        self.tell("opened", process="P", browser="b", readers=readers)

    def connect(self, client: str = "c", user: str = "", generation: int = 0) -> None:
        fields: dict[str, Any] = {"browser": "b", "user": user, "process": "P"}
        fields["generation"] = generation
        self.tell("connect", client=client, **fields)
        self.tell("answered", client=client)

    def disconnect(self, client: str = "c") -> None:
        self.tell("disconnect", client=client, process="P")

    def act(self, name: str, user: str = "", *, done: bool = True, generation: int = 1) -> None:
        fields: dict[str, Any] = {"act": "1", "name": name, "browser": "b", "user": user}
        self.tell("act", **fields)
        self.tell("acted", **fields, generation=generation, done=done, status=200)

    def gone(self, how: str = "closed", wait: float = 0.1) -> None:
        self.tell("gone", wait=wait, process="P", how=how)


def reading_a_page(channel: str = OWN, **more: Any) -> PageStory:
    """Begin a story in which a client has two messages of a page, and has acknowledged one."""
    story = PageStory()
    story.connect(**more)
    story.begin("e.0", channel=channel)
    for number in (1, 2):
        story.stored(number, f"e.{number}", channel)
        story.recv(number, f"e.{number}", channel=channel)
    story.tell("ack", client="c", channel=channel, position="e.1")
    return story


def test_a_whole_history_of_a_page_has_no_violation() -> None:
    story = reading_a_page()
    story.tell("final", client="c", channel=OWN, position="e.2")
    story.tell("closing", process="P")
    story.gone()
    story.tell("on_close", process="P", run="w")
    story.tell("left", keys=[], topics=[], tables={"w": {}})
    assert story.found == []


# I1 to I8 on channels of a page


def test_a_gap_on_a_channel_of_a_page_is_found() -> None:
    story = reading_a_page()
    story.recv(4, "e.4", channel=OWN)
    assert story.found == ["I1"]


def test_the_first_message_of_a_channel_that_was_expected_is_no_gap() -> None:
    story = PageStory()
    story.connect()
    story.begin("new.0", channel=DECLARED)
    story.recv(1, "e.1", channel=DECLARED)
    assert story.found == []
    story.begin("new.0", channel=DECLARED)
    story.recv(2, "e.2", channel=DECLARED)
    assert story.found == ["I1"]


def test_a_reader_that_goes_on_from_where_the_page_is_may_get_a_message_again() -> None:
    story = reading_a_page()
    story.tell("resume", client="c", channel=OWN, position="e.1")
    story.recv(2, "e.2", channel=OWN)
    assert story.found == []
    story.recv(2, "e.2", channel=OWN)
    assert story.found == ["I2"]


def test_a_page_that_misses_what_was_stored_is_found_at_the_end() -> None:
    story = reading_a_page()
    story.stored(3, "e.3", OWN)
    story.tell("final", client="c", channel=OWN, position="e.2")
    assert story.found == ["I4"]


@pytest.mark.parametrize(
    ("offset", "loses", "found"), [(2, False, []), (1, False, ["I4"]), (0, True, [])]
)
def test_a_page_may_end_in_an_epoch_that_began_after_the_last_message(
    offset: int, loses: bool, found: list[str]
) -> None:
    story = reading_a_page()
    story.fault(renews=["*"], loses=loses)
    story.full(f"f.{offset}", channel=OWN)
    story.tell("final", client="c", channel=OWN, position=f"f.{offset}")
    assert [one for one in story.found if one == "I4"] == found


def test_a_page_that_was_never_told_where_it_is_is_found_at_the_end() -> None:
    story = reading_a_page()
    story.tell("final", client="c", channel=OWN, position="first")
    assert story.found == ["I4"]


def test_a_notifier_that_changes_the_order_is_found() -> None:
    story = PageStory()
    story.connect()
    story.begin("e.0", channel=NOTES)
    story.recv(2, "e.1", channel=NOTES)
    story.recv(1, "e.2", channel=NOTES)
    assert story.found == ["I8"]


# I9


def test_a_page_that_closes_without_reason_is_found() -> None:
    story = reading_a_page()
    story.gone()
    assert story.found == ["I9"]


def test_a_page_whose_callback_runs_without_reason_is_found_once() -> None:
    story = reading_a_page()
    story.tell("on_close", process="P", run="w")
    story.gone()
    assert story.found == ["I9"]


def test_a_callback_that_runs_twice_in_a_worker_is_found() -> None:
    story = reading_a_page()
    story.tell("closing", process="P")
    for run in ("w", "other", "w"):
        story.tell("on_close", process="P", run=run)
    assert story.found == ["I9"]


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (("login", "ada"), ("logout", ""), []),
        (("login", "ada"), ("login", "eve"), []),
        (("login", "ada"), ("login", "ada"), ["I9"]),
        (None, ("login", "ada"), ["I9"]),
        (None, ("logout", ""), []),
    ],
)
def test_a_page_closes_when_its_user_leaves(
    first: tuple[str, str] | None, second: tuple[str, str], found: list[str]
) -> None:
    story = reading_a_page()
    if first is not None:
        story.act(*first)
        story.connect(user=first[1], generation=1)
    story.now += 5
    story.connect(generation=1)
    story.act(*second, generation=2)
    story.gone()
    assert story.found == found


def test_a_page_may_close_as_long_as_a_logout_is_under_way() -> None:
    story = reading_a_page()
    story.tell("act", act="1", name="logout", browser="b", user="")
    for number in range(3, 50):
        story.stored(number, f"e.{number}", OWN)
        story.recv(number, f"e.{number}", channel=OWN)
    story.gone()
    assert story.found == []


@pytest.mark.parametrize(("seconds", "found"), [(4, []), (6, ["I9"])])
def test_a_logout_without_an_answer_may_be_made_a_little_later(
    seconds: float, found: list[str]
) -> None:
    story = reading_a_page()
    story.act("logout", done=False)
    story.now += seconds
    story.connect(generation=1)
    story.gone()
    assert story.found == found


def test_a_page_that_closes_long_after_a_logout_is_found() -> None:
    story = reading_a_page()
    story.act("logout")
    story.now += 5
    story.connect(generation=1)
    story.gone(wait=5)
    assert story.found == ["I9"]


@pytest.mark.parametrize(("seconds", "found"), [(-3, ["I9"]), (0, [])])
def test_a_page_without_a_connection_expires(seconds: float, found: list[str]) -> None:
    story = reading_a_page()
    story.disconnect()
    story.gone(wait=PROCESS_TIMEOUT + seconds)
    assert story.found == found


def test_a_page_with_a_connection_that_expires_is_found() -> None:
    story = reading_a_page()
    story.gone(wait=2 * PROCESS_TIMEOUT)
    assert story.found == ["I9"]


@pytest.mark.parametrize(("seconds", "found"), [(-3, ["I9"]), (0, [])])
def test_a_page_that_was_never_connected_expires_sooner(seconds: float, found: list[str]) -> None:
    story = PageStory()
    story.tell("on_close", wait=NEVER_CONNECTED + seconds, process="P", run="w")
    assert story.found == found


def test_a_store_that_loses_everything_may_lose_a_page() -> None:
    story = reading_a_page()
    story.fault(renews=["*"], loses=True)
    story.gone()
    assert story.found == []


def test_a_page_that_the_store_knows_after_a_loss_stays() -> None:
    story = reading_a_page()
    story.fault(renews=["*"], loses=True)
    story.now += 20
    story.connect()
    story.gone()
    assert story.found == ["I9"]


@pytest.mark.parametrize(("done", "found"), [(True, ["I9"]), (False, [])])
def test_a_cookie_that_is_not_of_the_page_is_found_unless_a_login_was_lost(
    done: bool, found: list[str]
) -> None:
    story = reading_a_page()
    story.now += 5
    story.tell("opened", process="P", browser="b", readers=1)
    if not done:
        story.act("login", "ada", done=False)
    story.gone("forbidden")
    assert story.found == found


def test_pages_close_when_the_workers_stop() -> None:
    story = reading_a_page()
    story.tell("over")
    story.tell("on_close", process="P", run="w")
    assert story.found == []


def test_a_closed_channel_of_a_living_page_is_found() -> None:
    story = reading_a_page()
    story.tell("closed", client="c", channel=OWN, reason="ended")
    assert story.found == ["I9"]


@pytest.mark.parametrize(("died", "found"), [(True, []), (False, ["I9"])])
def test_a_source_of_a_page_may_end_with_its_worker(died: bool, found: list[str]) -> None:
    story = reading_a_page(DECLARED)
    if died:
        story.tell("died", run="w")
    story.tell("closed", client="c", channel=DECLARED, reason="failed")
    assert story.found == found


def test_a_full_for_what_another_reader_of_the_page_has_acknowledged_is_right() -> None:
    story = reading_a_page()
    story.stored(3, "e.3", OWN)
    story.tell("ack", client="other", channel=OWN, position="e.3")
    story.full("e.3", channel=OWN)
    assert story.found == []


def test_a_needless_full_on_a_channel_of_a_page_is_found() -> None:
    story = reading_a_page()
    story.tell("ack", client="other", channel=OWN, position="e.2")
    story.full("e.2", channel=OWN)
    assert story.found == ["I9"]


def test_a_fault_explains_the_epoch_of_a_channel_that_is_made_meanwhile() -> None:
    story = Story()
    story.tell("fault", name="f", phase="begin", renews=["*"])
    made = {OWN: {"kind": "own", "size": 3}}
    story.tell("page", process="P", channels=made)
    story.begin("e.0", channel=OWN)
    story.tell("fault", name="f", phase="end")
    story.full("x.0", channel=OWN)
    assert story.found == []
    story.tell("page", process="P", channels=made)
    story.begin("e.0", channel=OWN)
    story.full("x.0", channel=OWN)
    assert story.found == ["I9"]


def reading_the_guarded(user: str = "ada") -> PageStory:
    story = PageStory()
    story.act("login", user)
    story.connect(user=user, generation=1)
    story.begin("e.0", channel="guarded")
    return story


def test_a_right_that_is_refused_without_reason_is_found() -> None:
    story = reading_the_guarded()
    story.tell("forbidden", client="c", channel="guarded")
    assert story.found == ["I9"]


def test_a_right_that_was_taken_away_is_refused() -> None:
    story = reading_the_guarded()
    story.act("revoke", "ada")
    story.tell("forbidden", client="c", channel="guarded")
    assert story.found == []


@pytest.mark.parametrize(("done", "found"), [(True, ["I9"]), (False, [])])
def test_a_right_that_was_given_back_and_is_refused_is_found(done: bool, found: list[str]) -> None:
    story = reading_the_guarded()
    story.act("revoke", "ada", done=done)
    story.act("grant", "ada")
    story.now += 5
    story.connect(user="ada", generation=1)
    story.tell("forbidden", client="c", channel="guarded")
    assert story.found == found


# I10


def read_by_two() -> PageStory:
    """Begin a story in which one client reads, and then another one."""
    story = PageStory(readers=2)
    for client in ("c", "d"):
        story.connect(client)
        story.begin("e.0", client, OWN)
    return story


def test_a_former_reader_that_gets_a_new_message_is_found() -> None:
    story = read_by_two()
    story.recv(1, "e.1", "c", OWN)
    assert story.found == ["I10"]


def test_a_former_reader_may_get_what_was_published_before() -> None:
    story = read_by_two()
    story.recv(1, "e.1", "c", OWN, sent=story.events[-3]["at"] - 0.05)
    story.begin("e.0", "c")
    story.recv(2, "e.1", "c")
    assert story.found == []


def test_a_reader_that_takes_a_page_back_may_read() -> None:
    story = read_by_two()
    story.connect("c")
    story.recv(1, "e.1", "c", OWN)
    assert story.found == []


@pytest.mark.parametrize(("seconds", "found"), [(3.0, []), (9.0, ["I10"])])
def test_a_worker_without_a_beat_may_deliver_for_a_while(seconds: float, found: list[str]) -> None:
    story = read_by_two()
    story.tell("fault", name="f", phase="begin")
    story.now += seconds
    story.recv(1, "e.1", "c", OWN)
    story.tell("fault", name="f", phase="end")
    assert story.found == found


# I11


def overflowing(unsent: int) -> PageStory:
    story = reading_a_page()
    for number in range(3, 3 + unsent):
        story.stored(number, f"e.{number}", OWN)
    story.full(None, channel=OWN)
    return story


def test_a_channel_of_a_page_is_full_when_too_much_was_not_sent() -> None:
    assert overflowing(3).found == []


def test_a_healthy_reader_that_is_told_full_is_found() -> None:
    assert overflowing(2).found == ["I11"]


def test_a_publish_that_is_refused_as_full_needlessly_is_found() -> None:
    story = reading_a_page()
    story.fault(lasts=5)
    story.call(3, OWN)
    story.tell("fail", id="p:3", maybe=False, error="ChannelFull: no room")
    assert story.found == ["I11"]


# Failed publishes


@pytest.mark.parametrize("error", ["ChannelClosed: it is over", "ProcessClosed: it is over"])
@pytest.mark.parametrize("closes", [True, False])
def test_a_publish_on_a_living_page_that_fails_is_found(error: str, closes: bool) -> None:
    story = reading_a_page()
    if closes:
        story.tell("closing", process="P")
    story.call(3, OWN)
    story.tell("fail", id="p:3", maybe=False, error=error)
    assert story.found == ([] if closes else ["I16"])


def test_only_the_worker_that_opened_a_page_can_publish_on_it() -> None:
    story = reading_a_page()
    story.call(3, OWN)
    story.tell("fail", id="p:3", maybe=False, error="KeyError: 'P~own'")
    assert story.found == []


# I12


@pytest.mark.parametrize(("reason", "found"), [("failed", []), ("ended", ["I12"])])
def test_an_iterator_that_was_cut_off_has_failed(reason: str, found: list[str]) -> None:
    story = Story()
    story.tell("closed", client="the run", channel="runtime-1", reason=reason)
    assert story.found == found


# I13


def test_a_message_for_the_former_session_is_found() -> None:
    story = reading_a_page()
    story.act("login", "ada")
    story.recv(3, "e.3", channel=OWN, sent=story.now - 1)
    assert story.found == []
    story.recv(4, "e.4", channel=OWN)
    assert story.found == ["I13"]


def test_a_message_for_the_present_session_is_right() -> None:
    story = reading_a_page()
    story.act("login", "ada")
    story.connect(user="ada", generation=1)
    story.recv(3, "e.3", channel=OWN)
    assert story.found == []


def test_a_login_that_did_not_return_takes_nothing_away() -> None:
    story = reading_a_page()
    story.act("login", "ada", done=False)
    story.recv(3, "e.3", channel=OWN)
    assert story.found == []


def test_a_message_after_a_right_was_taken_away_is_found() -> None:
    story = reading_the_guarded()
    story.recv(1, "e.1", channel="guarded")
    story.act("revoke", "ada")
    story.recv(2, "e.2", channel="guarded", sent=story.now - 1)
    assert story.found == []
    story.recv(3, "e.3", channel="guarded")
    assert story.found == ["I13"]


@pytest.mark.parametrize(("user", "channel"), [("eve", "guarded"), ("ada", "site")])
def test_a_right_that_is_taken_from_one_user_is_of_one_channel(user: str, channel: str) -> None:
    story = reading_the_guarded(user)
    story.begin("e.0", channel=channel)
    story.act("revoke", "ada")
    story.recv(1, "e.1", channel=channel)
    assert story.found == []


def test_a_right_that_is_given_back_holds() -> None:
    story = reading_the_guarded()
    story.act("revoke", "ada")
    story.act("grant", "ada")
    story.recv(1, "e.1", channel="guarded")
    assert story.found == []


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("connects", [False, True])
def test_a_store_that_was_emptied_knows_no_users(again: bool, connects: bool) -> None:
    story = reading_the_guarded()
    story.tell("emptied")
    if again:
        story.act("login", "ada", generation=2)
    if connects:
        story.connect(user="ada", generation=2)
    story.act("revoke", "ada")
    story.now += 1
    story.recv(1, "e.1", channel="guarded")
    assert ("I13" in story.found) == again


@pytest.mark.parametrize(("on", "found"), [(True, []), (False, ["I13"])])
def test_a_message_while_push_is_off_is_found(on: bool, found: list[str]) -> None:
    story = reading_a_page()
    story.tell("deactivated")
    if on:
        story.tell("activated")
    story.now += 1
    story.recv(3, "e.3", channel=OWN)
    assert story.found == found


# I14


@pytest.mark.parametrize(("id_", "found"), [("p:1", []), ("p:2", ["I14"])])
def test_a_success_on_a_page_needs_an_acknowledgement(id_: str, found: list[str]) -> None:
    story = reading_a_page()
    story.tell("outcome", id=id_, success=True)
    assert story.found == found


@pytest.mark.parametrize(("success", "found"), [(True, ["I14"]), (False, [])])
def test_a_success_on_the_site_needs_a_reader(success: bool, found: list[str]) -> None:
    story = Story()
    story.begin("e.0")
    story.stored(1, "e.1")
    story.tell("outcome", id="p:1", success=success)
    assert story.found == found


def test_a_success_on_the_site_with_a_reader_is_right() -> None:
    story = Story()
    story.begin("e.0")
    story.stored(1, "e.1")
    story.recv(1, "e.1")
    story.tell("outcome", id="p:1", success=True)
    assert story.found == []


@pytest.mark.parametrize(("number", "found"), [(1, []), (2, ["I14"]), (3, ["I14"])])
def test_a_receipt_needs_acknowledgements(number: int, found: list[str]) -> None:
    story = reading_a_page(NOTES)
    story.tell("receipt", id=f"p:{number}", acknowledged=[NOTES])
    assert story.found == found


# I15 and I16


def test_what_is_left_in_a_table_is_found() -> None:
    story = Story()
    story.tell("left", keys=[], topics=[], tables={"w": {"processes": 2}, "v": {}})
    assert story.found == ["I15"]


@pytest.mark.parametrize("key", ["c:{3}p:PID", "c:{3}s:SID", "c:{3}pc:PID", "c:{3}c:~PID~own0"])
def test_a_key_of_a_page_that_is_left_is_found(key: str) -> None:
    story = Story()
    story.tell("left", keys=[key], topics=[])
    assert story.found == ["I15"]


def test_a_late_message_on_a_channel_of_a_page_is_found() -> None:
    story = reading_a_page()
    story.now += 6
    story.recv(3, "e.3", channel=OWN, sent=story.now - 5.5)
    assert story.found == ["I16"]


@pytest.mark.parametrize(("done", "found"), [(True, []), (False, ["I16"])])
def test_what_must_be_done_while_redis_is_full_is_done(done: bool, found: list[str]) -> None:
    story = Story()
    story.tell("must", what="close P", done=done)
    assert story.found == found


@pytest.mark.parametrize(("leaves", "found"), [(True, []), (False, ["I16"])])
def test_a_client_is_owed_nothing_on_a_page_that_it_has_left(
    leaves: bool, found: list[str]
) -> None:
    story = reading_a_page()
    story.fault(renews=["*"])
    story.tell("owed", within=5)
    if leaves:
        story.tell("page", process="Q", channels={})
        story.tell("opened", process="Q", browser="b", readers=1)
        story.tell("connect", client="c", browser="b", user="", generation=0, process="Q")
    story.now += 6
    assert [one for one in story.found if one == "I16"] == found


def owing_two_readers() -> PageStory:
    """Tell that both readers of a page must soon be told `full`."""
    story = PageStory(readers=2)
    for client in ("d", "c"):
        story.connect(client)
        story.begin("e.0", client, OWN)
        story.begin("e.0", client)
    story.tell("replaced", client="d")
    story.disconnect("d")
    story.fault(renews=["*"])
    story.tell("owed", within=5)
    return story


@pytest.mark.parametrize(("told", "found"), [(0.1, []), (6, ["I16"])])
def test_a_page_of_two_readers_is_owed_one_full(told: float, found: list[str]) -> None:
    """The other reader goes on from where the first one was told to."""
    story = owing_two_readers()
    for channel in (OWN, "site"):
        story.now += told
        story.full("x.0", channel=channel)
    story.now += 6
    story.connect("d")
    story.full("x.0", "d")
    story.tell("resume", client="d", channel=OWN, position="x.0")
    assert story.found == found * 2


def test_a_reader_that_goes_on_from_the_former_epoch_is_still_owed_full() -> None:
    story = owing_two_readers()
    for channel in (OWN, "site"):
        story.full("x.0", channel=channel)
    story.connect("d")
    story.full("x.0", "d")
    story.tell("resume", client="d", channel=OWN, position="e.0")
    assert story.found == ["I16"]


@pytest.mark.parametrize(("wait", "found"), [(4, []), (6, ["I16"])])
def test_a_client_that_rests_is_owed_full_once_it_is_back(wait: float, found: list[str]) -> None:
    story = owing_two_readers()
    for channel in (OWN, "site"):
        story.full("x.0", channel=channel)
    story.now += 3
    story.connect("d")
    story.tell("resume", client="d", channel=OWN, position="x.0")
    story.now += wait
    story.full("x.0", "d")
    assert story.found == found
