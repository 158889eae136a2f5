"""Programs that a test needs; where one is missing, the test is skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODULES = ROOT / "tests" / "clients" / "node_modules"
PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def find_program(name: str) -> str:
    """Where a program is; skips the test if it is nowhere, unless nothing may be left out."""
    found = shutil.which(name, path=PROGRAMS)
    if found is None:
        _leave_out(name)
    assert found is not None
    return found


def need_modules() -> None:
    """Skip the test where `scripts/install` could not install the packages of Node."""
    need(MODULES / ".installed", "tests/clients/node_modules, from scripts/install")


def need(path: Path, what: str) -> None:
    """Skip the test where a file is missing, unless nothing may be left out."""
    if not path.exists():
        _leave_out(what)


def _leave_out(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")
