"""The copies that this worker has of sessions and client processes which all workers share.

Owns the changes of copies: those that the application makes, of which the store is told, and those
that the store tells of. Must not know requests, cookies or transports.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from asgi_comet.brokers.people import SessionState
from asgi_comet.errors import BrokerUnavailable, CometError
from asgi_comet.identity.alone import Tell
from asgi_comet.identity.announcing import Announcement, Job
from asgi_comet.identity.clients import Claimed, new_session
from asgi_comet.identity.mirror import Mirror
from asgi_comet.identity.moves import Move
from asgi_comet.identity.process import Claim, Client, ClientProcess, Session, Stale
from asgi_comet.log_events import event

__all__ = ["Copies"]

_logger = logging.getLogger(__name__)


class Copies(Mirror):
    """Sessions and client processes, as far as this worker needs them. Thread-safe."""

    # The application asks for changes

    def check_connected(self) -> None:
        """Raise if the broker is away."""
        self._near.check_connected()

    def pending(self, session: Session) -> Announcement | None:
        """Return the newest change of a session that is on its way to the other workers."""
        return self._near.announcer.pending(session)

    def find_session(self, id_: str) -> Session | None:
        """Return the session of an id, if it has a client process, a connection or a user."""
        session = super().find_session(id_)
        if session is None or session.user is not None or session._connections:
            return session
        return session if self._list(session) else None

    def open(self, claim: Claim) -> Claimed:
        """Open a client process in the session of a claim; in a new one if the claim is stale.

        The store may refuse it before the answer begins.
        """
        with self._opening:
            try:
                session = self._session_of(claim)
            except Stale:
                session = new_session()
            return self._open(session, self._make_id(session))

    def default(self, claim: Claim) -> Claimed:
        """Return the default client process of a session, made when first needed.

        The store may refuse it before the answer begins.
        """
        with self._opening:
            session = self._session_of(claim)
            if session._default is None or session._default.closed:
                state = self._states.get(session, SessionState(id=session.id))
                id_ = self._near.name_default(session.id, state.defaults)
                self._states[session] = replace(state, defaults=state.defaults + 1)
                session._default = self._open(session, id_, default=True).process
            else:
                self._touch(session)
                self._touch_process(session._default)
            return Claimed(session._default, Claim.of(session))

    def _open(self, session: Session, id_: str, *, default: bool = False) -> Claimed:
        process = self._copy(id_, session)
        claim = self._enrol(Claim.of(session))
        self._touch(session)
        self._touch_process(process)
        self._openings[process] = self._near.open(process, default=default)
        return Claimed(process, claim)

    def replace_id(self, claim: Claim) -> tuple[Claim, Any]:
        """Give a session another id in this worker, so that every claim so far is stale."""
        with self._opening:
            new, before = super().replace_id(claim)
            self._moves.begin(new.session, claim.id, before)
            self._renew_state(new.session)
            self._touch(new.session)
            return new, before

    def assign(self, claim: Claim, user: Hashable, *, keep: bool) -> None:
        """Let a session belong to a user; the store remembers the user."""
        del keep
        super().assign(claim, user, keep=False)

    def move(self, old: str, claim: Claim, before: Any, *, keep: bool, tell: Tell) -> None:
        """Tell the store that a session has another id and another user."""
        del old, before
        move = self._moves.to(claim.id)
        assert move is not None  # noqa: S101 - for the type checker: `replace_id` has begun it
        user = self._near.spelling.write(claim.session.user)
        keep = keep or user is not None  # as its next request may come to another worker

        async def job() -> None:
            try:
                if move.is_void():
                    raise BrokerUnavailable("the session could not be changed")
                await self._near.people.move(move.old, move.new, user=user, keep=keep)
            except CometError:
                move.refused = True
                self._take_back(move)
                raise
            finally:
                with self._opening:
                    self._moves.end(move)
            await self._tell_tabs(move.session, tell)

        self._near.announcer.tell(move.session, job)

    async def _tell_tabs(self, session: Session, tell: Tell) -> None:
        try:
            await self._visit([session.id], "")
        except BrokerUnavailable as error:
            _logger.warning(
                "tabs were not told that their session's user has changed: %s",
                error,
                extra=event("change.missed", reason=str(error)),
            )
        else:
            tell([process for process in self._list(session) if not self._is_opening(process)])

    def _is_opening(self, process: Client) -> bool:
        """Return whether the store does not know yet of a process that this worker has opened."""
        opening = self._openings.get(process)
        return opening is not None and not opening.done

    def tell_closed(self, process: Client) -> None:
        """Tell the store that the application has closed a client process."""
        self._near.close(process)

    async def ask(self, process: ClientProcess) -> float | None:
        """Bring a client process up to date with the store."""
        session, id_ = process.session.id, process.id
        await self._visit([session], id_)
        return await self._near.people.idle(id_)

    async def everywhere(self, user: Hashable = None) -> list[Session]:
        """Return the sessions with an open client process in all workers.

        Raises:
            BrokerUnavailable: The store cannot be reached.
            NotRunning: The lifespan does not run.
        """
        self._near.announcer.loop.check()
        states = await self._near.people.sessions(self._near.spelling.write(user))
        with self._opening:
            return [self._take(state.id, state) for state in states]

    def copy_of(self, process: str, session: str, user: str | None) -> Client:
        """Return the copy of a client process that the store has named.

        Args:
            process: The id.
            session: The present id of its session.
            user: The user of the session, as JSON.
        """
        with self._opening:
            found = self._known(session)
            if found is None:
                found = self._sessions[session] = Session(session, self._near.spelling.read(user))
                found._list = self._list
            return self._copy(process, found)

    async def opened(self, process: str) -> None:
        """Return once the store was told of a client process that this worker has opened."""
        found = self._all.get(process)
        opening = None if found is None else self._openings.get(found)
        if opening is not None:
            await opening.ended()

    def announce(self, process: Client, job: Job) -> Announcement:
        """Tell the store something of a client process, after all that was told before.

        In a request the answer waits for it.

        Args:
            process: The client process.
            job: Tells the store.
        """
        announcer = self._near.announcer
        announcement = announcer.tell(process.session, job)
        announcer.settle(announcement.wait)
        return announcement

    def spell(self, user: Hashable) -> str | None:
        """Return the spelling of a user; `None` for a visitor."""
        return self._near.spelling.write(user)

    # The store tells of changes, in the loop's thread

    def closed(self, process: str) -> None:
        """Close a client process in this worker."""
        self._near.visits.hear(process)
        found = self._all.get(process)
        if found is not None:
            found.end()

    def moved(self, old: str, new: str, user: str | None) -> None:
        """Give a session another id and another user in this worker, and end its connections."""
        self._near.visits.hear(old, new)
        with self._opening:
            former = self._former.get(old)
            session = self._known(old) or (None if former is None else former.claim.session)
            if session is None:
                return
            # The user for the store, also if this worker has just begun a login of its own.
            before = self._moves.user_before(session)
            if self._moves.to(new) is None:
                self._change_id(session, new)
                self._set_user(session, self._near.spelling.read(user))
            if before is not None and session.user != before:
                self._end_processes(session)
        self.end_connections(session)

    def close_all(self) -> None:
        """Drop all copies: the server stops. No client process is closed."""
        for process in list(self._all.values()):
            self._household.let_go(process.place.directory)
        self._near.presence.release()
        with self._opening:
            for process in list(self._all.values()):
                process.held = False
                super().forget(process)
            for table in (self._claims, self._users, self._former):
                table.clear()
            self._used.clear()

    def forget(self, process: Client) -> None:
        """Remove a closed client process, and its session with the last one."""
        self._used.discard(process)
        super().forget(process)

    def _take_back(self, move: Move) -> None:
        """Give a session its former id and user: the store has refused a login or a logout."""
        session = move.session
        with self._opening:
            if session.id != move.new:
                return
            self._change_id(session, move.old)
            self._set_user(session, move.before)
            self._former.pop(move.old, None)
            self._former.pop(move.new, None)
        self.end_connections(session)

    def _end_processes(self, session: Session) -> None:
        """Close the client processes of a session in this worker: its user has left."""
        state = self._states.pop(session, None)
        ids = {*session._processes, *(state.processes if state else ())}
        for process in [self._all[id_] for id_ in ids if id_ in self._all]:
            process.end()
