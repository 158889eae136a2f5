"""The scripts and commands that look for what the loss of single keys has left behind.

Owns how the keys of people are recognised among all keys. Must not know what becomes of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from asgi_comet.brokers.redis import lua, replies
from asgi_comet.brokers.redis.calls import Call, call_of
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.people_replies import read_owner
from asgi_comet.brokers.redis.replies import Reply

__all__ = ["OWN", "StockScripts"]

MOST = 10  # keys that Redis looks at in one step: what is lost so rarely may cost little
FORM = re.compile(
    rb"(.+\})(?:(p|s|sp|pc|pk|reg):([A-Za-z0-9_-]{2,})|(?:c|h|d|dp|k):(~([A-Za-z0-9_-]{2,})~.+))"
)
OWN = "own"  # the letters of any key of an own channel


@dataclass(frozen=True, slots=True)
class StockScripts:
    """The scripts of stocktaking in one database.

    Attributes:
        keys: The names of the keys.
        timeout: How many milliseconds a client process stays open without a connection.
    """

    keys: Keys
    timeout: int

    def scan(self, cursor: str) -> Call[tuple[str, tuple[tuple[str, str], ...]]]:
        """Return where the next part of all keys begins, and the keys of people in this part.

        Each is told as the letters that tell what the key holds, and the id; a key of an own
        channel as `OWN`, and the name of the channel in the scripts.
        """

        def read(reply: Reply) -> tuple[str, tuple[tuple[str, str], ...]]:
            next_, names = reply
            return next_.decode(), tuple(filter(None, map(self._recognise, names)))

        pattern = f"{self.keys.prefix}:{{*}}[cdhkprs]*"
        return Call(("SCAN", cursor, "MATCH", pattern, "COUNT", MOST), read)

    def _recognise(self, key: bytes) -> tuple[str, str] | None:
        found = FORM.fullmatch(key)
        if found is None:
            return None
        groups = found.groups(default=b"")
        root, what, id_, name, process = (one.decode(errors="replace") for one in groups)
        if root != self.keys.process(id_ or process).root:
            return None
        return (OWN, name) if name else (what, id_)

    def stock(self, process: str) -> Call[int]:
        """Give an open client process a deadline that has lost its own."""
        keys = self.keys.process(process)
        names = [keys.process, keys.deadlines]
        return call_of(lua.STOCK, names, [process, self.timeout], int)

    def stock_session(self, session: str) -> Call[int]:
        """Let a session that has lost the list of its client processes expire."""
        keys = self.keys.session(session)
        return call_of(lua.STOCK_SESSION, [keys.session, keys.processes], [], int)

    def stock_channel(self, name: str) -> Call[int]:
        """Delete an own channel, given by its name in the scripts, without an open process."""
        keys = self.keys.named(name)
        names = [keys.process, keys.meta, keys.log, keys.ids, keys.positions, keys.state]
        return call_of(lua.STOCK_CHANNEL, names, [], int)

    def listed(self, session: str) -> Call[tuple[str, ...]]:
        """Return the client processes of a session."""
        command = ("ZRANGE", self.keys.session(session).processes, 0, -1)
        return Call(command, replies.read_texts)

    def is_listed(self, session: str, process: str) -> Call[bool]:
        """Return whether a session lists a client process."""
        command = ("ZSCORE", self.keys.session(session).processes, process)
        return Call(command, _is_there)

    def owner(self, process: str) -> Call[str]:
        """Return the session of a client process; `""` if there is no open one."""
        return Call(("HMGET", self.keys.process(process).process, "s", "x"), read_owner)

    def exists(self, process: str) -> Call[bool]:
        """Return whether there is a record of a client process."""
        return Call(("EXISTS", self.keys.process(process).process), bool)


def _is_there(reply: Reply) -> bool:
    return reply is not None
