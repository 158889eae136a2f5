"""Ten thousand held requests, the server in a process of its own."""

from __future__ import annotations

import pytest

from benchmarks.held import run

COUNT = 10_000


@pytest.mark.slow
def test_ten_thousand_held_requests_one_write_and_nothing_is_left() -> None:
    # Python's own allocator keeps arenas that a single long-lived object sits in, so freed memory
    # shows in the process' size only with the system's; the first round fills caches and pools.
    _, found = run(COUNT, rounds=2, PYTHONMALLOC="malloc")
    assert found.held == COUNT
    assert found.answered == COUNT
    assert found.left == 0
    assert found.blocks_after <= found.blocks_before * 1.01
    assert found.memory_after <= found.memory_before * 1.1
