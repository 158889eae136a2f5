"""nginx with nchan, where it is installed: one worker, no logs."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .servers import Served

SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
MODULE = "ngx_nchan_module.so"
GRACE = 10.0  # seconds to start, and to stop

# Histories hold a burst, and nothing times out while another peer is measured.
CONFIG = """
load_module {module};
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  keepalive_timeout 1h;
  send_timeout 1h;
  client_body_temp_path {folder}/body;
  nchan_message_buffer_length 1000;
  nchan_message_timeout 1h;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /publish {{ nchan_publisher http; nchan_channel_id ticker; }}
    location = /events {{
      nchan_subscriber eventsource;
      nchan_eventsource_event ticker;
      nchan_subscriber_first_message newest;
      nchan_channel_id ticker;
    }}
    location = /socket {{
      nchan_subscriber websocket;
      nchan_subscriber_first_message newest;
      nchan_channel_id ticker;
    }}
  }}
}}
"""


def find_nginx() -> tuple[str, Path] | None:
    """Return the command and the module; `None` where one of them is not installed."""
    command = shutil.which("nginx", path=SEARCHED)
    if command is None:
        return None
    told = subprocess.run([command, "-V"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    module = Path(found[1] if found else "/usr/lib/nginx/modules") / MODULE
    return (command, module) if module.exists() else None


def tell_version() -> str | None:
    """Return the version of nginx; `None` where it or nchan is not installed."""
    found = find_nginx()
    if found is None:
        return None
    told = subprocess.run([found[0], "-v"], capture_output=True, text=True, check=True).stderr
    return told.rpartition("/")[2].split()[0]


@contextmanager
def nginx() -> Iterator[Served]:
    """Run nginx, which must be installed."""
    found = find_nginx()
    assert found is not None
    command, module = found
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = Path(folder, "nginx.conf")
        config.write_text(
            CONFIG.format(
                module=module,
                user="user root;" if os.geteuid() == 0 else "",
                folder=folder,
                connections=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                port=port,
            )
        )
        process = subprocess.Popen([command, "-p", folder, "-e", "stderr", "-c", str(config)])
        try:
            yield Served(port, _wait_for_worker(process, port))
        finally:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_worker(process: subprocess.Popen[bytes], port: int) -> int:
    deadline = time.monotonic() + GRACE
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0 and (told := children.read_text()):
                (worker,) = told.split()
                return int(worker)
        time.sleep(0.02)
    raise RuntimeError("expected nginx to start, it did not")
