"""Where a peer in Python spends its time."""

from __future__ import annotations

from .peers import NCHAN, SUBJECTS, loaded
from .turns import Plan


def profile(subject: str, name: str, plan: Plan, messages: int) -> None:
    """Print functions of a peer's server, most expensive first.

    Args:
        subject: `poll`, `sse` or `websocket`.
        name: The peer.
        plan: How many clients and rounds.
        messages: How many messages are published at once.
    """
    peer = SUBJECTS[subject].get(name)
    if peer is None or name == NCHAN:
        known = ", ".join(n for n in SUBJECTS[subject] if n != NCHAN)
        raise SystemExit(f"expected one of {known} to profile for {subject}, got {name}")
    rounds = plan.rounds * plan.turns if messages == 1 else plan.burst_turns
    with loaded(peer, plan.clients) as load:
        load.run(plan.warm_up, 1)
        load.control("profile/start")
        block = load.run(rounds, messages)
        found = load.control("profile/stop")["functions"]
    count = block.deliveries
    print(f"{subject}, {name}: {count} deliveries; µs and calls per delivery, under cProfile")
    print(f"{block.cpu / count * 1e6:.1f} µs in all, with what no function shows\n")
    print("   own   total   calls  function")
    for function, calls, own, total in found[:40]:
        own_cost, total_cost = own / count * 1e6, total / count * 1e6
        print(f"{own_cost:6.2f}  {total_cost:6.2f}  {calls / count:6.2f}  {function}")
