"""`check()` of the test kit finds faults that are planted in our own code.

`python -m tests.mutations` plants all of them; here are fewer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutations.planting import plant, run_all
from tests.mutations.table import MUTATIONS


@pytest.mark.long(3)
@pytest.mark.slow
def test_check_finds_faults_and_nothing_without_them() -> None:
    some = MUTATIONS[::3]
    clean, results = run_all(some)
    played = zip(some, results, strict=True)
    assert clean.kept, clean.said
    assert {one.name: result.said for one, result in played if not result.found} == {}
    assert len(MUTATIONS) >= 10


@pytest.mark.parametrize("text", ["x = 2\n", "x = 1\nx = 1\n"])
def test_a_fault_that_fits_nowhere_or_twice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(ValueError, match=r"expected 'x = 1\\n' once in module\.py"):
        plant(replace(MUTATIONS[0], file="module.py", old="x = 1\n"), tmp_path)
    assert (tmp_path / "module.py").read_text() == text
