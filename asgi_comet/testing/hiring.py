"""The workers of a test: each an application with its `Comet`, and the broker that joins them.

Owns how applications are made. Must not know when they start and stop (`workplace.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from starlette.types import ASGIApp

from asgi_comet.comet import Comet
from asgi_comet.testing._inspect import inside
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.joined import JoinedBroker
from asgi_comet.testing.store import Store
from asgi_comet.testing.workplace import Worker, find_comet

__all__ = ["Hiring"]


class Hiring:
    """Makes workers.

    Args:
        app: The application of the only worker.
        make_app: Makes the application of a worker.
        comet: The `Comet` of the application, where it cannot be found.
        workers: How many workers there are.

    Attributes:
        workers: The same.

    Raises:
        ValueError: The arguments do not fit together.
    """

    def __init__(
        self,
        app: ASGIApp | None,
        *,
        make_app: Callable[..., ASGIApp] | None,
        comet: Comet | None,
        workers: int,
    ) -> None:
        if (app is None) is (make_app is None):
            raise ValueError("expected either an application or make_app=")
        takes = () if make_app is None else inspect.signature(make_app).parameters
        if workers > 1 and "broker" not in takes:
            got = "an application" if make_app is None else f"make_app({', '.join(takes)})"
            raise ValueError(
                "expected make_app(broker) for several workers, each of which makes its "
                f"Comet(..., broker=broker), got {got}"
            )
        self.workers: int = workers
        self._app = app
        self._make = make_app
        self._comet = comet
        self._store = Store() if workers > 1 else None

    def check_new(self) -> None:
        """Check that applications can be made anew.

        Raises:
            RuntimeError: There is one application.
        """
        if self._make is None:
            raise RuntimeError(
                "expected run(make_app=make_app), or a fixture make_app, for a restart, which "
                "makes everything anew"
            )

    def one(self, clock: ManualClock) -> Worker:
        """Make a worker."""
        if self._app is not None:
            return Worker(self._app, self._comet or find_comet(self._app), clock)
        assert self._make is not None  # noqa: S101 - for the type checker
        if self._store is None:
            app = self._make()
            return Worker(app, find_comet(app), clock)
        broker = JoinedBroker(self._store, clock=clock)
        app = self._make(broker=broker)
        comet = find_comet(app)
        if inside(comet).broker is not broker:
            raise ValueError("expected make_app to give its broker to Comet(..., broker=broker)")
        return Worker(app, comet, clock)
