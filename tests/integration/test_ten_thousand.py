"""Ten thousand held requests, the server in a process of its own."""

from __future__ import annotations

import pytest

from benchmarks.held import run

COUNT = 10_000


@pytest.mark.slow
def test_ten_thousand_held_requests_one_write_and_nothing_is_left() -> None:
    _, found = run(COUNT, rounds=2)  # the first round fills caches and pools
    assert (found.held, found.answered, found.left) == (COUNT, COUNT, 0)
    assert 0 < found.blocks_after <= found.blocks_before * 1.01  # live blocks of Python


@pytest.mark.slow
def test_the_memory_of_ten_thousand_held_requests_is_given_back() -> None:
    # Python's own allocator keeps arenas that a single long-lived object sits in, so freed memory
    # shows in the process' size only with the system's.
    _, found = run(COUNT, rounds=2, PYTHONMALLOC="malloc")
    assert (found.answered, found.left) == (COUNT, 0)
    assert found.memory_held > found.memory_before * 1.5
    assert found.memory_after <= found.memory_before * 1.1
