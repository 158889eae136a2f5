"""Notifying: the call of `Comet` that makes a notifier."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from asgi_comet._runtime.functions import misfit
from asgi_comet.core.names import check_own_name
from asgi_comet.identity.copies import Copies
from asgi_comet.node.build import Node
from asgi_comet.notify.notifier import Notifier, Parts, Prepare
from asgi_comet.notify.shared import Neighbourhood

__all__ = ["Notifying"]

K = TypeVar("K")


class Notifying:
    """The method of `Comet` that makes notifiers."""

    _node: Node

    @overload
    def notifier(
        self, name: str, *, key: type[K], prepare: Prepare | None = None
    ) -> Notifier[K]: ...

    @overload
    def notifier(
        self, name: str, *, key: Any = None, prepare: Prepare | None = None
    ) -> Notifier[Any]: ...

    def notifier(
        self, name: str, *, key: Any = None, prepare: Prepare | None = None
    ) -> Notifier[Any]:
        """Make a notifier: processes listen on keys, and are told of what concerns these.

        Made once, where the application is; it lives as long as this `Comet`.

        Args:
            name: Clients read it as the process channel `~name`.
            key: What its keys are: a type that pydantic knows, with hashable values, by which they
                are validated; `None` is anything hashable that has a JSON form.
            prepare: Makes what a user gets of a value, given the user (`None` for a visitor) and
                the value, sync or async, for each process that listens. `None` as its result means
                not for this one. Without it all get the value itself.

        Raises:
            InvalidName: No channel may have that name. `comet` is reserved.
            NonUniqueChannelName: There is a notifier, or a declared channel, of that name.
            NotShared: The broker shares channels only.
            TypeError: pydantic does not know `key`, or `prepare` cannot be called with a user
                and a value.

        Source: `Os_notif.Make`.
        """
        self._node.requests.require_people("comet.notifier()")
        check_own_name(name)
        if prepare is not None and not callable(prepare):
            raise TypeError(f"expected prepare to be a function, got {type(prepare).__name__}")
        problem = None if prepare is None else misfit(prepare, None, None)
        if problem is not None:
            raise TypeError(f"expected prepare to take a user and a value, got {problem}")
        node = self._node
        notifier: Notifier[Any] = Notifier(name, key, prepare, _parts_of(node))
        node.channels.reserved.add_own(name, None)
        node.notifiers[name] = notifier._forget_process
        return notifier


def _parts_of(node: Node) -> Parts:
    return Parts(
        channels=node.channels,
        settings=node.settings,
        runtime=node.runtime,
        current=lambda instead: node.requests.current(instead=instead).process(),
        near=_neighbourhood(node),
    )


def _neighbourhood(node: Node) -> Neighbourhood | None:
    if not isinstance(node.clients, Copies):
        return None
    return Neighbourhood(node.broker, node.clients, node.settings.prefetch)
