from __future__ import annotations

from tests.kit.stage import on_every_loop

anyio_backend = on_every_loop
