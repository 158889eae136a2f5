"""nginx in front of a server, with the configuration of the examples."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.own_server import Server
from tests.kit.programs import ROOT, find_program
from tests.kit.serving import reserved_port

CONFIG = (ROOT / "examples" / "nginx.conf").read_text()

# What a distribution has around it; everything that is written is in the folder.
AROUND = """
daemon off;
pid pid;
worker_processes 1;
error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  MORE
  CONFIG
}
"""

Change = tuple[str, str]


def change(config: str, *changes: Change) -> str:
    for old, new in changes:
        assert old in config, old
        config = config.replace(old, new)
    return config


@contextmanager
def nginx(folder: Path, server: Server, *changes: Change, more: str = "") -> Iterator[str]:
    """Run nginx in front of a server; the address."""
    with reserved_port() as port:
        config = change(
            CONFIG,
            ("127.0.0.1:8000", f"127.0.0.1:{server.address.port}"),
            ("listen 80;", f"listen 127.0.0.1:{port};"),
            ("retry: 3000", "retry: 50"),
            *changes,
        )
        user = "user root;" if os.geteuid() == 0 else ""  # may write into the folder
        text = user + AROUND.replace("MORE", more).replace("CONFIG", config)
        (folder / "nginx.conf").write_text(text)
        command = [find_program("nginx"), "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        log: list[str] = []
        for line in process.stderr:
            log.append(line)
            if "start worker process " in line:
                break
        else:
            pytest.fail("".join(log))
        reader = threading.Thread(target=log.extend, args=(process.stderr,))
        reader.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            assert process.wait(20) == 0
            reader.join(20)
            process.stderr.close()
