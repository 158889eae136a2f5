"""The `Comet` of the demo, which every module that declares channels imports, and its secrets.

With several workers, all of them need the same secrets, the same `COMET_BROKER` and the same
`DEMO_DATABASE`.
"""

import os
import secrets
from typing import Annotated

from fastapi import Depends

from asgi_comet import ClientProcess, Comet

ADMIN_TOKEN = os.environ.get("DEMO_ADMIN_TOKEN") or secrets.token_urlsafe(32)
SCRAPE_TOKEN = os.environ.get("DEMO_SCRAPE_TOKEN") or secrets.token_urlsafe(32)
SECRET_KEY = os.environ.get("DEMO_SECRET_KEY") or secrets.token_urlsafe(32)

comet = Comet(
    secret_key=SECRET_KEY,
    admin={ADMIN_TOKEN: "operate", SCRAPE_TOKEN: "look"},  # Prometheus needs no switches
    broker=os.environ.get("COMET_BROKER") or None,
)

Process = Annotated[ClientProcess, Depends(comet.process)]
"""The tab that a request comes from."""
