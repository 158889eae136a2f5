"""Each invariant of the checker, with a history that is whole and the same with a violation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nemesis.checker import check
from tests.nemesis.history import Journal, read_history
from tests.nemesis.known import Calm
from tests.nemesis.story import Story, following, reading_a_source


def test_a_whole_history_has_no_violation() -> None:
    story = following()
    story.stored(3, "e.3")
    story.recv(3, "e.3")
    story.tell("top", channel="site", worker="w1", position="e.3")
    story.tell("top", channel="site", worker="w2", position="e.3")
    story.tell("final", client="c", channel="site", position="e.3")
    story.tell("left", keys=["comet:{3}lin", "comet:{3}c:site", "comet:{3}h:site"], topics=[])
    assert story.found == []


def test_a_dropped_message_is_a_gap() -> None:
    story = following()
    story.recv(4, "e.4")
    assert story.found == ["I1"]


def test_a_message_before_the_client_knows_where_it_is_is_found() -> None:
    story = Story()
    story.tell("begin", client="c", channel="site")
    story.recv(1, "e.1")
    assert story.found == ["I1"]


def test_another_epoch_without_full_is_a_gap() -> None:
    story = following()
    story.fault(renews=["*"])
    story.recv(3, "x.3")
    assert story.found == ["I1"]


def test_a_doubled_message_is_found() -> None:
    story = following()
    story.recv(2, "e.2")
    assert story.found == ["I2"]


def test_a_client_that_begins_anew_may_get_a_message_again() -> None:
    story = following()
    story.begin("e.1")
    story.recv(2, "e.2")
    assert story.found == []


def test_two_swapped_messages_are_found() -> None:
    story = following()
    story.recv(4, "e.4")
    story.recv(3, "e.3")
    assert story.found == ["I1", "I2"]


def test_an_offset_with_two_contents_is_found() -> None:
    story = following()
    story.begin("e.1", client="d")
    story.recv(9, "e.2", client="d")
    assert story.found == ["I3"]


def test_a_reused_offset_is_found_across_epochs_of_one_age() -> None:
    story = following()
    story.begin("e.1", client="d")
    story.fault(renews=["site"])
    story.full("x.1", client="d")
    story.recv(9, "x.2", client="d")
    assert story.found == ["I3"]


def test_a_reused_offset_is_right_after_a_loss() -> None:
    story = following()
    story.fault(renews=["site"], loses=True)
    story.full("x.1")
    story.recv(9, "x.2")
    assert story.found == []


def test_an_epoch_on_a_primary_that_is_given_up_is_of_an_age_of_its_own() -> None:
    story = following()
    story.begin("e.1", client="d")
    story.tell("fault", name="f", phase="begin", renews=["site"], loses=True)
    story.fault("g", renews=["site"])
    story.full("x.1", client="d")
    story.recv(8, "x.2", client="d")
    story.tell("lost")
    story.full("y.1", client="d")
    story.recv(9, "y.2", client="d")
    story.tell("fault", name="f", phase="end")
    assert story.found == []


def test_a_client_that_ends_behind_is_found() -> None:
    story = following()
    story.tell("top", channel="site", worker="w1", position="e.3")
    story.tell("final", client="c", channel="site", position="e.2")
    assert story.found == ["I4"]


def test_workers_that_disagree_are_found() -> None:
    story = following()
    story.tell("top", channel="site", worker="w1", position="e.2")
    story.tell("top", channel="site", worker="w2", position="e.1")
    assert story.found == ["I4"]


def test_a_lost_stored_message_at_the_end_is_found() -> None:
    story = following()
    story.stored(3, "e.3")
    story.tell("top", channel="site", worker="w1", position="e.2")
    assert story.found == ["I5"]


def test_a_stored_message_that_another_one_replaced_is_found() -> None:
    story = following()
    story.stored(3, "e.3")
    story.recv(4, "e.3")
    assert story.found == ["I3"]


def test_a_lost_stored_message_is_found_in_the_log_at_the_end() -> None:
    story = following()
    story.tell("held", channel="site", position="e.2", id="p:7", sent=1.0)
    assert story.found == ["I3"]


def test_an_id_at_two_positions_is_found() -> None:
    story = following()
    story.recv(2, "e.3")
    assert story.found == ["I6"]


def test_an_id_may_stand_in_the_epochs_before_and_after_a_loss() -> None:
    story = following()
    story.fault(renews=["site"], loses=True)
    story.full("x.0")
    story.recv(2, "x.1")
    assert story.found == []


def test_a_certain_failure_that_stands_is_found() -> None:
    story = following()
    story.fault(lasts=5)
    story.call(3)
    story.tell("fail", id="p:3", maybe=False, error="x")
    story.recv(3, "e.3")
    assert story.found == ["I7"]


@pytest.mark.parametrize("times", [0, 1])
def test_a_message_that_may_be_stored_may_stand_once(times: int) -> None:
    story = following()
    story.fault(lasts=5)
    story.call(3)
    story.tell("fail", id="p:3", maybe=True, error="x")
    for _ in range(times):
        story.recv(3, "e.3")
    assert story.found == []


def test_calls_of_one_run_keep_their_order() -> None:
    story = following()
    story.call(4)
    story.call(3)
    story.recv(3, "e.3")
    story.recv(4, "e.4")
    story.tell("died", run="r")
    assert story.found == ["I8"]


def test_a_message_stands_behind_what_was_stored_before_its_call() -> None:
    story = following()
    story.stored(3, "e.4", run="one")
    story.stored(4, "e.3", run="other")
    assert story.found == ["I8"]


def test_calls_that_overlap_may_be_stored_in_any_order() -> None:
    story = following()
    story.call(3, run="one")
    story.call(4, run="other")
    story.tell("ok", id="p:3", position="e.4")
    story.tell("ok", id="p:4", position="e.3")
    assert story.found == []


def test_a_needless_full_is_found() -> None:
    story = following()
    story.full("e.2")
    assert story.found == ["I9"]


def test_a_trimmed_position_is_told_full() -> None:
    story = following()
    for number in range(3, 7):
        story.stored(number, f"e.{number}")
    story.full("e.3")
    assert story.found == []


def test_a_full_of_what_was_just_not_trimmed_is_found() -> None:
    story = following()
    for number in range(3, 6):
        story.stored(number, f"e.{number}")
    story.full("e.2")
    assert story.found == ["I9"]


def test_a_full_for_held_messages_that_were_lost_is_told_once() -> None:
    story = following()
    story.fault(cuts=["site"])
    story.full("e.2")
    assert story.found == []
    story.full("e.2")
    assert story.found == ["I9"]


def test_a_new_epoch_without_a_fault_is_found() -> None:
    story = following()
    story.full("x.2")
    assert story.found == ["I9"]


def test_a_fault_explains_one_epoch_of_its_channels() -> None:
    story = following()
    story.fault(renews=["kind:site"])
    story.begin("e.0", channel="room:a")
    story.full("x.2")
    assert story.found == []
    story.full("y.2")
    story.full("x.0", channel="room:a")
    assert story.found == ["I9", "I9"]


@pytest.mark.parametrize(("later", "found"), [(2.0, ["I9"]), (0.0, [])])
def test_a_full_back_to_an_older_epoch_is_found(later: float, found: list[str]) -> None:
    story = following()
    story.fault(renews=["site"])
    story.full("x.2")
    story.now += later  # else one answer told of both epochs
    story.full("e.2")
    assert story.found == found


def test_a_server_that_always_says_full_does_not_pass() -> None:
    story = following()
    for offset in (3, 4, 5):
        story.stored(offset, f"e.{offset}")
        story.full(f"e.{offset}")
    assert story.found == ["I9", "I9", "I9"]


def test_a_full_that_repeats_what_the_client_has_is_found() -> None:
    story = following()
    story.fault(renews=["site"])
    story.full("x.1")
    assert story.found == ["I2"]


def test_an_epoch_of_before_a_loss_may_be_seen_after_it() -> None:
    story = following()
    story.fault(renews=["*"], loses=True)
    story.begin("x.9", client="d")
    story.tell("full", client="d", channel="site", position="y.1")
    assert "I2" not in story.found


def test_a_full_without_a_position_is_found() -> None:
    story = following()
    story.full(None)
    assert story.found == ["I9"]


def test_a_closed_channel_is_found() -> None:
    story = following()
    story.tell("closed", client="c", channel="site", reason="unknown")
    assert story.found == ["I9"]


def test_a_newest_channel_may_skip_and_change_its_epoch_but_not_go_back() -> None:
    story = Story()
    story.begin("e.0", channel="last")
    story.recv(5, "e.5", channel="last")
    story.fault(renews=["last"])
    story.recv(6, "x.6", channel="last")
    assert story.found == []
    story.recv(5, "e.5", channel="last")
    assert story.found == ["I1"]


def test_a_newest_channel_gives_each_message_once_and_is_never_full() -> None:
    story = Story()
    story.begin("e.0", channel="last")
    story.recv(5, "e.5", channel="last")
    story.recv(5, "e.5", channel="last")
    story.full("e.5", channel="last")
    assert story.found == ["I2", "I9"]


def test_a_replaced_source_that_comes_again_is_found() -> None:
    story = reading_a_source()
    story.value(1, 3, fence="w:2")
    assert story.found == []
    story.value(3, 4)
    assert story.found == ["I12"]


def test_a_lost_value_of_a_source_is_found() -> None:
    story = reading_a_source()
    story.value(4, 3)
    assert story.found == ["I5"]


def test_a_value_in_what_the_store_lost_is_no_violation() -> None:
    story = reading_a_source()
    story.fault(renews=["tick"], loses=True)
    story.full("x.1", channel="tick")
    story.value(2, 2, position="x.2", sent=story.events[-4]["at"] - 0.1)
    story.value(4, 3, position="x.3")
    assert story.found == []


def test_a_silent_source_is_found() -> None:
    story = reading_a_source()
    story.now += 5.1
    story.value(3, 3)
    assert story.found == ["I16"]


def test_a_source_that_is_not_taken_over_is_found() -> None:
    story = reading_a_source()
    story.fault()
    story.tell("begin", wait=12, client="d", channel="site")
    assert story.found == ["I16"]


def test_a_late_message_is_found() -> None:
    story = following()
    story.recv(3, "e.3", sent=story.now - 5)
    assert story.found == []
    story.recv(4, "e.4", sent=story.now - 5)
    assert story.found == []
    story.begin("e.4")
    story.now += 6
    story.recv(5, "e.5", sent=story.now - 5.5)
    assert story.found == ["I16"]


def test_a_fault_explains_a_late_message() -> None:
    story = following()
    story.fault(lasts=5)
    story.recv(3, "e.3", sent=story.now - 5.5)
    assert story.found == []


def test_a_call_that_never_returns_is_found() -> None:
    story = following()
    story.call(3)
    story.tell("died", wait=20, run="another")
    assert story.found == ["I16"]


def test_a_failure_without_a_fault_is_found() -> None:
    story = following()
    story.call(3)
    story.tell("fail", id="p:3", maybe=True, error="x")
    assert story.found == ["I16"]


def owing() -> Story:
    """Tell that the readers must soon be told `full`."""
    story = following()
    story.fault(renews=["*"])
    story.tell("owed", within=5)
    return story


def test_readers_that_are_told_of_a_promotion_in_time_are_right() -> None:
    story = owing()
    story.full("x.2")
    assert story.found == []


@pytest.mark.parametrize("told", [True, False])
def test_readers_that_are_not_told_of_a_promotion_are_found(told: bool) -> None:
    story = owing()
    story.now += 6
    if told:
        story.full("x.2")
    assert story.found == ["I16"]


@pytest.mark.parametrize("key", ["comet:{3}c:room:a", "comet:{3}own:w", "comet:{3}workers"])
def test_a_key_that_is_left_is_found(key: str) -> None:
    story = following()
    story.tell("left", keys=[key], topics=[])
    assert story.found == ["I15"]


def test_a_subscription_that_is_left_is_found() -> None:
    story = following()
    story.tell("left", keys=[], topics=["comet:{3}t:site"])
    assert story.found == ["I15"]


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(AssertionError, match="expected an event of the history, got 'x'"):
        check([{"at": 0.0, "event": "x"}])


def test_calm_leaves_out_what_faults_cover_once() -> None:
    calm = Calm([(5, 7), (1, 3), (2, 4)])
    assert calm.between(0, 10) == 5
    assert calm.between(2, 6) == 1
    assert calm.between(6, 6.5) == 0
    assert calm.between(8, 9) == 1
    assert Calm([]).between(1, 2) == 1


def test_a_history_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "one.jsonl"), Journal(tmp_path / "other.jsonl")
    one.write("died", run="1")
    other.write("died", run="2")
    one.write("died", run="3")
    one.close()
    other.close()
    with (tmp_path / "other.jsonl").open("ab") as torn:
        torn.write(b'{"at": 3')
    assert [event["run"] for event in read_history(tmp_path)] == ["1", "2", "3"]
