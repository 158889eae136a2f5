"""A certificate for 127.0.0.1 that no authority has signed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit.programs import find_program


def make_certificate(folder: Path) -> None:
    """Write `cert` and `key` into a folder."""
    subprocess.run(
        [
            *(find_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-keyout", folder / "key", "-out", folder / "cert", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
