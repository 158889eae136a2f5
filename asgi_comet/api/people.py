"""Who is there: the calls of `Comet` about client processes, sessions and their users."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

from asgi_comet._runtime.functions import misfit
from asgi_comet.channels.channels import Channel
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.declare.declarations import DeclaredChannel
from asgi_comet.identity.process import ClientProcess, Session
from asgi_comet.identity.users import Identify
from asgi_comet.node.build import Hub

__all__ = ["People"]

F = TypeVar("F", bound=Identify)


class People:
    """Knows client processes, sessions and users."""

    _hub: Hub

    def open_process(self) -> ClientProcess:
        """Open a client process for the page that the current request serves.

        The answer sets the session's cookie. Works in sync endpoints, too.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves.
            TooManyProcesses: The session, or the server, has as many as it may.
        """
        return self._hub.visits.current().open_process()

    def process(self) -> ClientProcess:
        """Return the current client process.

        It is the one that was opened in the request, or that the header `Comet-Process` names, or
        the default one of the session's cookie. In FastAPI:
        `process: Annotated[ClientProcess, Depends(comet.process)]`.

        Raises:
            NoClientProcess: There is none; the text says why. Not handled, the answer is 403.
            ProcessClosed: The one that the header names has closed. Not handled, it is 410.
            TooManyProcesses: There are too many for a default one. Not handled, it is 429 or 503.
        """
        return self._hub.visits.current().process()

    def session(self) -> Session | None:
        """Return the session of the current request.

        Also in `authorize`, where it is that of the connection that is asked about; `process()`
        works there, too.

        Returns:
            `None` if it has neither an open client process nor a user, so nobody knows it.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves.
        """
        return self._hub.visits.current().known_session()

    def processes(self, user: Hashable = None) -> list[ClientProcess]:
        """Return the open client processes of this worker. Thread-safe.

        Args:
            user: Only those of this user; `None` means all.

        Returns:
            A copy, the oldest of a session first.
        """
        return self._hub.processes.processes(user)

    def sessions(self, user: Hashable = None) -> list[Session]:
        """Return the sessions of this worker that have an open client process. Thread-safe.

        Args:
            user: Only those of this user; `None` means all.
        """
        return self._hub.processes.sessions(user)

    async def wait_timeout(self, seconds: float, process: ClientProcess | None = None) -> None:
        """Return once a client process has been inactive for that many seconds, or has closed.

        It is active while a connection to its endpoints is open; requests to the site's endpoints
        do not count.

        Args:
            seconds: How long, since the last connection closed.
            process: By default the current one.

        Raises:
            NoClientProcess: There is no current one.
            NotRunning: The lifespan does not run.

        Source: `Eliom_comet.Channel.wait_timeout`.
        """
        await (process if process is not None else self.process()).wait_inactive(seconds)

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
        if not callable(function):
            raise TypeError(f"expected a function, got {type(function).__name__}")
        problem = misfit(function, None)
        if problem is not None:
            raise TypeError(f"expected a function of the connection, got {problem}")
        if self._hub.users.identify is not None:
            raise ValueError(
                f"expected one function to identify, got {function!r} "
                f"beside {self._hub.users.identify!r}"
            )
        self._hub.users.identify = function
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
        self._hub.visits.current().login(user)

    def logout(self) -> None:
        """Let the session of the current request be a visitor's; its client processes close.

        The session gets a new id, as with `login`.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves, or its
                answer has begun.
            NotRunning: The lifespan does not run.
        """
        self._hub.visits.current().logout()

    def revoke(
        self,
        channel: Channel[Any] | DeclaredChannel[Any, Any] | str,
        *,
        user: Hashable = None,
        session: Session | None = None,
        process: ClientProcess | None = None,
    ) -> None:
        """End the delivery of a site channel to somebody, on every transport. Thread-safe.

        They are told `forbidden`; what is published once this has returned does not reach them.
        When they ask again `authorize` is asked, so let it say no before you call this.

        Args:
            channel: The channel or its name; a family, or its name with the words, means all of
                its channels.
            user: All connections of this user.
            session: All connections of this session.
            process: All connections of this client process.

        Raises:
            TypeError: Not exactly one of `user`, `session` and `process` is given.
            ValueError: The name is not of a channel that lives, or is declared.
        """
        given = [one for one in (user, session, process) if one is not None]
        if len(given) != 1:
            raise TypeError(f"expected one of user, session and process, got {len(given)} of them")

        def concerns(listener: Listener) -> bool:
            if process is not None:
                return listener in process.listeners
            caller = listener.caller
            if caller is None:
                return False
            of = caller.session
            return of is session if session is not None else of.user == user

        self._hub.guard.revoke(self._feeds(channel), concerns)

    def _feeds(self, channel: Channel[Any] | DeclaredChannel[Any, Any] | str) -> list[Feed]:
        if isinstance(channel, Channel):
            return [channel._feed]
        declarations, channels = self._hub.declarations, self._hub.channels
        declared = channels.reserved.named(channel) if isinstance(channel, str) else channel
        if isinstance(declared, DeclaredChannel):
            return declarations.members(declared)
        name = str(channel)
        feed = channels.find(name)
        if feed is None and declarations.match(name) is None:
            raise ValueError(
                f"expected a channel of the site that lives or is declared, got {name!r}"
            )
        return [] if feed is None else [feed]
