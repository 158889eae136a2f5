"""The faults: lines of our code that a test suite may miss. Owns where each one is planted."""

from __future__ import annotations

from tests.mutations.planting import Mutation

__all__ = ["MUTATIONS"]

MUTATIONS = (
    Mutation(
        "a poll with `now` reads the source on demand",
        "transports/subscribing.py",
        "        feed.acknowledge(offset)\n    if listener.stays or not relative:",
        "        feed.acknowledge(offset)\n    if True:",
        "read_on_demand",
    ),
    Mutation(
        "the same with several workers",
        "transports/subscribing.py",
        "so they may go\n    if listener.stays or not relative:",
        "so they may go\n    if True:",
        "read_on_demand_at_workers",
    ),
    Mutation(
        "a full channel is forgotten",
        "channels/ending.py",
        '            elif reason != "full":',
        "            else:",
        "come_back_to_a_full_channel",
    ),
    Mutation(
        "the end of a channel is not kept",
        "transports/registered.py",
        "    kept.lost |= {f.name: None for f in others if f.closed is not None "
        "and f.name not in named}\n",
        "",
        "come_back_to_an_ended_channel",
    ),
    Mutation(
        "a reader that has a message decides its fate",
        "channels/delivery.py",
        "if x.cursors[feed] < offset}",
        "if x.cursors[feed] <= offset}",
        "wait_for_an_outcome",
    ),
    Mutation(
        "a poll replaced at its time-out is not told",
        "transports/held.py",
        "why in (Wake.MESSAGE, Wake.TIMEOUT)",
        "why in (Wake.MESSAGE,)",
        "replace_a_poll_at_its_timeout",
    ),
    Mutation(
        "a process that closes is served",
        "transports/access.py",
        "    if process is None or process.closed:\n        node.siblings",
        "    if process is None:\n        node.siblings",
        "acknowledge_while_the_process_closes",
    ),
    Mutation(
        "the client leaves out `ack`",
        "protocol/following.py",
        "        before.update(acks)\n        return acks",
        "        before.update(acks)\n        return {}",
        "read_own_channel",
    ),
    Mutation(
        "the server leaves out `ack`",
        "transports/subscribing.py",
        "                feed.acknowledge(offset)\n                if feed.listeners:",
        "                if feed.listeners:",
        "read_own_channel",
    ),
    Mutation(
        "a lock is removed",
        "channels/log.py",
        "        with self.lock:\n            if self.closed is not None:\n"
        "                raise self._refusal(self.closed)\n            self.chunks",
        "        if True:\n            if self.closed is not None:\n"
        "                raise self._refusal(self.closed)\n            self.chunks",
        "publish_from_threads",
    ),
    Mutation(
        "the epoch is not raised",
        "brokers/memory.py",
        "self.host.moved(log, secrets.token_urlsafe(6), 1, 0)",
        "self.host.moved(log, log.epoch, 1, 0)",
        "restart_a_source",
    ),
    Mutation(
        "a listener is not removed",
        "channels/fanout.py",
        "        for feed in listener.cursors:\n            feed.remove(listener)\n",
        "",
        "leave_a_channel",
    ),
    Mutation(
        "a fence is ignored",
        "testing/joined.py",
        "        if sourced and self.store.owner(key_of(log)) is not self:\n"
        "            raise Fenced(log.name)\n",
        "",
        "lose_a_source",
    ),
)
