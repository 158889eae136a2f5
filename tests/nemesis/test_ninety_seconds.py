"""Ninety seconds of faults over three workers, by a fixed seed, without a violation.

How late a message may be is not judged here, where other tests run as well, but by
`python -m tests.nemesis`. A message that never comes, and a source that stays silent, are
violations here too.
"""

from __future__ import annotations

import faulthandler

import pytest

from tests.kit.programs import find_program
from tests.nemesis.run import run
from tests.nemesis.stage import Options

SEED = 14
LEAST = 2_000  # deliveries: fewer are no test
CLIENTS = 30
HANGS = 500.0  # seconds, after which the test shows where it hangs; longer than for other tests
WITHIN = 8.0  # seconds in which messages arrive on a machine that does other things as well


@pytest.mark.long(0)
@pytest.mark.slow
def test_ninety_seconds_of_faults_have_no_violation() -> None:
    find_program("redis-server")
    faulthandler.dump_traceback_later(HANGS, exit=True)
    options = Options(minutes=1.5, seed=SEED, pause=2, within=WITHIN, clients=CLIENTS, hurries=True)
    report = run(options)
    print(report)
    assert report.counts["recv"] >= LEAST
    found = [one for one in report.violations if " late, " not in one.text]
    assert found == [], str(report)
