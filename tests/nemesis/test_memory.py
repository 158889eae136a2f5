"""The nemesis with one worker and the broker in memory: the promise is the same there."""

from __future__ import annotations

import faulthandler

import pytest

from tests.nemesis.run import run
from tests.nemesis.stage import Options

LEAST = 2_000  # deliveries: fewer are no test
HANGS = 400.0  # seconds, after which the test shows where it hangs
WITHIN = 8.0  # seconds in which messages arrive on a machine that does other things as well


@pytest.mark.long(1)
@pytest.mark.slow
def test_the_broker_in_memory_keeps_the_promise() -> None:
    faulthandler.dump_traceback_later(HANGS, exit=True)
    options = Options(minutes=0.2, seed=15, memory=True, pause=2, within=WITHIN, clients=24)
    report = run(options)
    print(report)
    assert report.counts["recv"] >= LEAST
    assert report.counts["acted"]
    found = [one for one in report.violations if " late, " not in one.text]
    assert found == [], str(report)
