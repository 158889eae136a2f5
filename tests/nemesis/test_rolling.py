"""A rolling restart of three workers under load, with fewer clients than the command has.

`python -m tests.nemesis.rolling` has 300 clients.
"""

from __future__ import annotations

import faulthandler

import pytest

from tests.kit.programs import find_program
from tests.nemesis.rolling import noticed, restart

CLIENTS = 30
LEAST = 500  # deliveries: fewer are no test
HANGS = 400.0  # seconds, after which the test shows where it hangs
WITHIN = 8.0  # seconds in which messages arrive on a machine that does other things as well


@pytest.mark.long(1)
@pytest.mark.slow
def test_no_client_notices_a_rolling_restart() -> None:
    find_program("redis-server")
    faulthandler.dump_traceback_later(HANGS, exit=True)
    report = restart(CLIENTS, within=WITHIN, hurries=True)
    print(report)
    assert report.faults["restart"] == 3
    assert report.counts["recv"] >= LEAST
    assert noticed(report) == [], str(report)
