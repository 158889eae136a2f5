"""What has been published after `login`, `logout` and `revoke` reaches no client that it must not.

`python -m tests.nemesis.rights` has a thousand trials; here are fewer of them.
"""

from __future__ import annotations

import faulthandler

import pytest

from tests.kit.programs import find_program
from tests.nemesis.rights import attempt

TRIALS = 30
LEAST = 500  # deliveries: fewer are no test
HANGS = 400.0  # seconds, after which the test shows where it hangs


@pytest.mark.long(1)
@pytest.mark.slow
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "redis"])
def test_nothing_comes_after_a_right_was_taken_away(memory: bool) -> None:
    find_program("redis-server")
    faulthandler.dump_traceback_later(HANGS, exit=True)
    report = attempt(TRIALS, memory=memory, hurries=True)
    print(report)
    assert report.counts["acted"] >= TRIALS
    assert report.counts["recv"] >= LEAST
    found = [one for one in report.violations if " late, " not in one.text]
    assert found == [], str(report)
