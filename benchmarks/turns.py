"""The cost of a delivery for the servers of one subject: all in turn, a few rounds each.

Machines are noisy, so what counts is how a peer compares with another in the same turn. Every other
turn goes through the peers backwards, so that none is always measured after the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from .peers import get_peers, loaded
from .samples import Sample


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        clients: Connections to each peer.
        repetitions: How often the servers are started anew.
        warm_up: Rounds before those that count.
        turns: How often each peer has its turn, per repetition.
        rounds: Messages that are published one at a time in a turn.
        burst: How many messages are published at once, in a round after those.
        burst_turns: How often each peer has its turn with those.
    """

    clients: int = 1000
    repetitions: int = 3
    warm_up: int = 5
    turns: int = 6
    rounds: int = 5
    burst: int = 100
    burst_turns: int = 3


def measure(subject: str, plan: Plan) -> Iterator[Sample]:
    """Measure all repetitions."""
    for repetition in range(plan.repetitions):
        yield from _repeat(subject, plan, repetition)


def _repeat(subject: str, plan: Plan, repetition: int) -> Iterator[Sample]:
    with ExitStack() as stack:
        loads = [
            (name, stack.enter_context(loaded(peer, plan.clients)))
            for name, peer in get_peers(subject).items()
        ]
        for messages, turns, rounds, warm_up in (
            (1, plan.turns, plan.rounds, plan.warm_up),
            (plan.burst, plan.burst_turns, 1, 1),
        ):
            for _, load in loads if turns else ():
                load.run(warm_up, messages)
            for turn in range(turns):
                for name, load in loads if turn % 2 == 0 else reversed(loads):
                    block = load.run(rounds, messages)
                    yield Sample(subject, plan.clients, name, messages, repetition, turn, block)
