"""Client processes, sessions and their users: the methods of `Comet` about these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from asgi_comet._runtime.functions import misfit
from asgi_comet.channels.channels import Channel
from asgi_comet.core.view import View
from asgi_comet.declare.declared import DeclaredChannel
from asgi_comet.identity.asking import Question
from asgi_comet.identity.changes import Confirmation
from asgi_comet.identity.endings import Ending
from asgi_comet.identity.guard import Whom
from asgi_comet.identity.process import ClientProcess, Session, client_of
from asgi_comet.identity.users import Identify
from asgi_comet.node.build import Node

__all__ = ["People"]

T = TypeVar("T")
F = TypeVar("F", bound=Identify)
E = TypeVar("E", bound=Ending)


class People:
    """The methods of `Comet` about client processes, sessions and users.

    With a broker that joins several workers and does not share these, each raises `NotShared`.
    """

    _node: Node

    def open_process(self) -> ClientProcess:
        """Open a client process for the page that the current request serves.

        The answer sets the session's cookie. Sync endpoints can open a process, too.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves, or its
                answer has begun.
            NotRunning: The lifespan does not run.
            TooManyProcesses: The session, or the server, has its maximum of client processes.
        """
        self._require("comet.open_process()")
        return self._node.requests.current().open_process()

    def process(self) -> ClientProcess:
        """Return the current client process.

        The current client process was opened in the request, or the header `Comet-Process` names
        it, or it is the default client process of the cookie's session. In FastAPI:
        `process: Annotated[ClientProcess, Depends(comet.process)]`.

        Raises:
            NoClientProcess: The request has no client process; the text says why. Not handled, the
                answer is 403.
            NotRunning: The lifespan does not run.
            ProcessClosed: The client process that the header names has closed. Not handled, the
                answer is 410.
            TooManyProcesses: There are too many client processes to open a default one. Not
                handled, the answer is 429 or 503.
        """
        self._require("comet.process()")
        return self._node.requests.current().process()

    def session(self) -> Session | None:
        """Return the session of the current request.

        In `authorize`, this is the session of the connection that asks to read; `process()` works
        there, too.

        Returns:
            The session; `None` if the session has neither an open client process nor a user, so
            the server does not know it.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves.
        """
        self._require("comet.session()")
        return self._node.requests.current().known_session()

    def processes(self, user: Hashable = None) -> View[ClientProcess]:
        """Return the open client processes. Thread-safe.

        Args:
            user: Only those of this user; `None` means all.

        Returns:
            A view, as of now, the oldest of a session first: a sequence, which can also be awaited
            or read with `async for`. `view.here` are those that this worker knows. With a broker
            that several workers share, await the view: as a sequence it blocks, and it raises
            `MustAwait` in the event loop.
        """
        self._require("comet.processes()")
        here: list[ClientProcess] = [*self._node.clients.processes(user)]
        return self._view(here, f"processes({_shown(user)})", partial(self._all_processes, user))

    def sessions(self, user: Hashable = None) -> View[Session]:
        """Return the sessions that have an open client process. Thread-safe.

        Args:
            user: Only those of this user; `None` means all.

        Returns:
            A view, as of now: a sequence, which can also be awaited or read with `async for`; see
            `processes`.
        """
        self._require("comet.sessions()")
        here = self._node.clients.sessions(user)
        return self._view(here, f"sessions({_shown(user)})", partial(self._all_sessions, user))

    async def wait_timeout(self, seconds: float, process: ClientProcess | None = None) -> None:
        """Return once a client process has been inactive for that many seconds, or has closed.

        It is active while a connection to its endpoints is open, to any worker; requests to the
        site's endpoints do not count.

        Args:
            seconds: How long, since the last connection closed.
            process: By default the current one.

        Raises:
            NoClientProcess: There is no current one.
            NotRunning: The lifespan does not run.
            TypeError: `process` is no client process.
            ValueError: `seconds` is negative or not finite.

        Source: `Eliom_comet.Channel.wait_timeout`.
        """
        self._require("comet.wait_timeout()")
        client = self._node.requests.current().process() if process is None else client_of(process)
        await client.wait_inactive(seconds)

    def on_process_close(self, function: E) -> E:
        """Declare a function that is called once for each client process that has closed.

        A decorator, for what must happen in whichever worker, as `process.on_close` is for what
        this worker keeps. If a worker ends while the function runs, another one calls it again.

        Args:
            function: Of the id of the client process, sync or async. It has 10 s; its exceptions
                are logged.

        Returns:
            The function itself.

        Raises:
            TypeError: It cannot be called with an id.
        """
        self._require("@comet.on_process_close")
        _check_function(function, "the id of a client process")
        self._node.endings.add(function)
        return function

    def identify(self, function: F) -> F:
        """Declare the function that says who a connection belongs to; a decorator.

        It is asked when a session connects: with every poll, event stream and WebSocket, with
        `POST PREFIX/open`, and when a page that opened a client process is answered. When its
        answer differs from what the session had, the session gets another id, as with `login`.

        Args:
            function: Of the connection (Starlette's `HTTPConnection`); returns a hashable user id,
                or `None` for a visitor. An async one runs in the event loop, a sync one in a
                worker thread. If it raises, nothing changes and the client comes back in a moment.

        Returns:
            The function itself.

        Raises:
            TypeError: It cannot be called with a connection.
            ValueError: There is one already.
        """
        self._require("@comet.identify")
        _check_function(function, "the connection")
        if self._node.users.identify is not None:
            raise ValueError(
                f"expected one function to identify, got {function!r} "
                f"beside {self._node.users.identify!r}"
            )
        self._node.users.identify = function
        return function

    def login(self, user: Hashable) -> None:
        """Let the session of the current request belong to a user.

        The session gets a new id, which the answer's cookie names: the old cookie names no session
        any more, and connections that came with it end at once. Its client processes stay (unless
        it belonged to another user), and its other tabs are told on `~comet`.

        Args:
            user: A hashable user id, not `None`.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves, or its
                answer has begun.
            NotRunning: The lifespan does not run.
            TypeError: It is `None`, or not hashable.
        """
        self._require("comet.login()")
        self._node.requests.current().login(user)

    def logout(self) -> None:
        """Let the session of the current request be a visitor's; its client processes close.

        The session gets a new id, as with `login`.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves, or its
                answer has begun.
            NotRunning: The lifespan does not run.
        """
        self._require("comet.logout()")
        self._node.requests.current().logout()

    def revoke(
        self,
        channel: Channel[Any] | DeclaredChannel[Any, Any] | str,
        *,
        user: Hashable = None,
        session: Session | None = None,
        process: ClientProcess | None = None,
    ) -> Confirmation:
        """End the delivery of a site channel to some clients, on every transport. Thread-safe.

        The server tells these clients `forbidden`. Messages published after this call do not reach
        them. When a client subscribes again, the server calls `authorize` again, so let `authorize`
        refuse before you call this.

        Args:
            channel: The channel or its name; a family, or its name with the words, means all of
                its channels.
            user: All connections of this user.
            session: All connections of this session.
            process: All connections of this client process.

        Returns:
            The confirmation of all workers: a request is answered when it has come, and in a worker
            thread this call waits for it. Elsewhere, `await` it before you rely on the change.

        Raises:
            NotRunning: There is a broker, and the lifespan does not run.
            TypeError: Not exactly one of `user`, `session` and `process` is given, or `process` is
                no client process.
            Unconfirmed: Not all workers have confirmed.
            ValueError: No live or declared channel has the name.
        """
        self._require("comet.revoke()")
        given = [one for one in (user, session, process) if one is not None]
        if len(given) != 1:
            raise TypeError(f"expected one of user, session and process, got {len(given)} of them")
        whom = Whom(
            user=user,
            session=None if session is None else session.id,
            process=None if process is None else client_of(process).id,
        )
        return self._node.guard.revoke(self._name_of(channel), whom)

    def _view(
        self, here: list[T], called: str, everywhere: Callable[[], Awaitable[list[T]]]
    ) -> View[T]:
        node = self._node
        if not (node.clients.shared or node.settings.strict_shared):
            return View(here)
        return View(here, Question(node.requests.asking, f"comet.{called}", everywhere))

    async def _all_sessions(self, user: Hashable) -> list[Session]:
        return await self._node.clients.everywhere(user)

    async def _all_processes(self, user: Hashable) -> list[ClientProcess]:
        sessions = await self._node.clients.everywhere(user)
        return [process for session in sessions for process in session.processes]

    def _require(self, called: str) -> None:
        self._node.requests.require_people(called)

    def _name_of(self, channel: Channel[Any] | DeclaredChannel[Any, Any] | str) -> str:
        if isinstance(channel, Channel):
            return channel.id
        if isinstance(channel, DeclaredChannel):
            return channel._declaration.name
        name, node = str(channel), self._node
        declared = node.channels.reserved.named(name) or node.declarations.match(name)
        elsewhere = node.broker.shared  # maybe the channel lives in another worker
        if not (declared or node.channels.find(name) or elsewhere):
            raise ValueError(
                f"expected a channel of the site that lives or is declared, got {name!r}"
            )
        return name


def _shown(user: Hashable) -> str:
    return "" if user is None else "user=user"


def _check_function(function: object, argument: str) -> None:
    if not callable(function):
        raise TypeError(f"expected a function, got {type(function).__name__}")
    problem = misfit(function, None)
    if problem is not None:
        raise TypeError(f"expected a function of {argument}, got {problem}")
