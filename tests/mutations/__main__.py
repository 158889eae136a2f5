"""`python -m tests.mutations`: plants each fault, and prints whether `check()` finds it."""

from __future__ import annotations

import sys

from tests.mutations.planting import run_all
from tests.mutations.table import MUTATIONS


def main() -> int:
    """Print the table; return whether a fault was not found, or one where there is none."""
    clean, results = run_all(MUTATIONS)
    for mutation, result in zip(MUTATIONS, results, strict=True):
        verdict = "found" if result.found else "NOT FOUND"
        first = result.said.splitlines()[0] if result.found else result.said
        print(f"{mutation.name:45} {verdict:10} {first}")
    if not clean.kept:
        print(f"without a fault: {clean.said}")
    return not (clean.kept and all(result.found for result in results))


if __name__ == "__main__":
    sys.exit(main())
