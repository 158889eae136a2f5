"""The common part of all actions of operators: the line in the log, and the confirmation.

Must not know the actions.
"""

from __future__ import annotations

import logging

from asgi_comet.admin.roles import Operator
from asgi_comet.errors import Unconfirmed
from asgi_comet.http.exchange import Refusal
from asgi_comet.identity.changes import Confirmation
from asgi_comet.log_events import event

__all__ = ["confirm", "record"]

_logger = logging.getLogger(__name__)


def record(operator: Operator, action: str) -> None:
    """Log an action, with the operator."""
    _logger.info(
        "%s by %s (%s)",
        action,
        operator.name,
        operator.role,
        extra=event("admin.acted", action=action, operator=operator.name, role=operator.role),
    )


async def confirm(confirmation: Confirmation) -> int:
    """Return how many workers have made a change.

    Raises:
        Refusal: 503: not all have confirmed.
    """
    try:
        return await confirmation
    except Unconfirmed as error:
        raise Refusal(503, f"done in this worker, but {error}") from None
