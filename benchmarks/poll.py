"""What a delivery costs the server: `python -m benchmarks.poll [--quick] [--profile PEER]`.

Clients hold one long poll each and poll again at once; a message is published when all of them are
held. What counts is the CPU time of the server's process, from all held to all held again, so
everything is in it: reading requests, waking, answering, and what the kernel does for it. The peers
run on the same server software and are measured in turn, a few rounds each, and compared with what
the first of them took in the same turn: these machines are noisy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from .dialects import DIALECTS
from .load import Load
from .report import Sample, make_burst_table, make_table, write_results
from .servers import raise_open_files, server


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


QUICK = Plan(repetitions=1, turns=3, burst_turns=1)


@contextmanager
def loaded(name: str, clients: int) -> Iterator[Load]:
    """Start a server and its clients."""
    dialect = DIALECTS[name]
    with server(dialect.app, {}, grace=1) as port:
        load = Load(dialect, port, clients)
        try:
            yield load
        finally:
            load.close()


def measure(plan: Plan, repetition: int) -> Iterator[Sample]:
    """Start all peers and measure them in turn."""
    with ExitStack() as stack:
        loads = {name: stack.enter_context(loaded(name, plan.clients)) for name in DIALECTS}
        for messages, turns, rounds, warm_up in (
            (1, plan.turns, plan.rounds, plan.warm_up),
            (plan.burst, plan.burst_turns, 1, 1),
        ):
            for load in loads.values():
                load.run(warm_up, messages)
            for turn in range(turns):
                for name, load in loads.items():
                    block = load.run(rounds, messages)
                    yield Sample(name, messages, repetition, turn, block)


def run(plan: Plan) -> list[Sample]:
    """Measure all repetitions, with as many clients as open files permit."""
    clients = raise_open_files(plan.clients * len(DIALECTS)) // len(DIALECTS)
    plan = replace(plan, clients=min(plan.clients, clients))
    return [sample for n in range(plan.repetitions) for sample in measure(plan, n)]


def profile(name: str, plan: Plan, messages: int) -> None:
    """Print where a peer's server spends its time, most expensive function first."""
    rounds = plan.rounds * plan.turns if messages == 1 else plan.burst_turns
    with loaded(name, raise_open_files(plan.clients)) as load:
        load.run(plan.warm_up, 1)
        load.control("profile/start")
        block = load.run(rounds, messages)
        found = load.control("profile/stop")["functions"]
    print(f"{name}: {block.answers} answers; µs and calls per answer, under cProfile")
    print(f"{block.cpu / block.answers * 1e6:.1f} µs in all, with what no function shows\n")
    print("  own  total  calls  function")
    for function, calls, own, total in found[:40]:
        print(
            f"{own / block.answers * 1e6:5.2f}  {total / block.answers * 1e6:5.1f}  "
            f"{calls / block.answers:5.2f}  {function}"
        )


def main() -> None:
    """Print the tables, or a profile."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poll")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a noisier number")
    parser.add_argument("--profile", choices=list(DIALECTS), help="tell where a peer spends time")
    parser.add_argument("--burst", action="store_true", help="profile messages published at once")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    if arguments.profile:
        profile(arguments.profile, plan, plan.burst if arguments.burst else 1)
        return
    samples = run(plan)
    print(make_table(samples))
    print()
    print(make_burst_table(samples))
    print(f"\nwritten to {write_results(samples)}")


if __name__ == "__main__":
    main()
