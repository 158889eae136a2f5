"""Signed texts that clients carry: sessions and operators in cookies, client processes in URLs.

Owns the keys, and the requirements on keys. The server accepts only ids that these keys signed, so
a client cannot choose an id. Must not know which sessions and processes there are.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from itsdangerous import BadData, Signer, TimestampSigner

T = TypeVar("T")

__all__ = ["KEY_MINIMUM", "OPERATOR_AGE", "SESSION_AGE", "Identity", "SecretKey", "load_keys"]

KEY_MINIMUM = 32  # bytes, as long as the digest (SHA-256) that the key authenticates

SESSION_AGE = 30 * 24 * 3600.0  # seconds a signed session is accepted after it was signed
OPERATOR_AGE = 8 * 3600.0  # seconds that an operator stays signed in
SKEW = 30.0  # seconds that the clock of the machine that signed may be ahead or behind
KNOWN_LIMIT = 10_000  # verified texts kept, per kind; the oldest go first
TEXT_LIMIT = 256  # characters of a signed text; ours are shorter

SecretKey = str | bytes | Iterable[str | bytes]


def load_keys(secret_key: SecretKey) -> list[bytes]:
    """Read a secret key, or the list of keys of a rotation.

    Args:
        secret_key: One key or several, oldest first: all verify, the last signs.

    Returns:
        The keys as bytes, oldest first.

    Raises:
        TypeError: The value is not a key or a list of keys.
        ValueError: There is no key, or a key is shorter than 32 bytes. The text never contains the
            key.
    """
    if isinstance(secret_key, str | bytes):
        secret_key = [secret_key]
    elif not isinstance(secret_key, Iterable):
        raise TypeError(
            "expected secret_key to be str, bytes or a list of them, "
            f"got {type(secret_key).__name__}"
        )
    keys = [_load_key(key) for key in secret_key]
    if not keys:
        raise ValueError(f"expected at least one secret_key, got none. {_HOW}")
    return keys


_HOW = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def _load_key(key: object) -> bytes:
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, bytes):
        raise TypeError(f"expected each secret_key to be str or bytes, got {type(key).__name__}")
    if len(key) < KEY_MINIMUM:
        raise ValueError(
            f"expected a secret_key of at least {KEY_MINIMUM} bytes, got {len(key)}. {_HOW}"
        )
    return key


class _Stamp(TimestampSigner):
    """A timestamp signer on a clock that can be injected."""

    now: Callable[[], float] = staticmethod(time.time)

    def get_timestamp(self) -> int:
        return int(self.now())


class Identity:
    """Signs and verifies sessions and client processes.

    A text that was verified before costs a look-up in a dictionary, from the text to the verified
    id: two spellings of a signature are one session.

    Args:
        keys: Oldest first: all verify, the last signs.
        now: The time of day, in seconds since 1970.

    Source: docs/wire.md#cookies-and-tokens.
    """

    def __init__(self, keys: list[bytes], now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._sessions = _Stamp(
            keys,
            salt=b"asgi_comet.session",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._operators = _Stamp(
            keys,
            salt=b"asgi_comet.admin",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._sessions.now = self._operators.now = now
        self._processes = Signer(
            keys,
            salt=b"asgi_comet.process",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._applications = Signer(
            keys,
            salt=b"asgi_comet.siblings",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._defaults = Signer(
            keys,
            salt=b"asgi_comet.default",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        self._known_sessions: dict[str, tuple[str, float]] = {}
        self._known_processes: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def sign_session(self, session: str) -> str:
        """Return the cookie value that names a session, from now on for 30 days."""
        return self._sessions.sign(session).decode()

    def unsign_session(self, value: str) -> str | None:
        """Return the session that a cookie value names; `None` without a recent signature of ours.

        A signature from up to 30 s in the future is accepted, since the clocks of machines differ.
        (The check of the library refuses all of these, and so clients that another machine has just
        made.)
        """
        known = self._known_sessions.get(value)
        if known is None:
            known = _read_stamped(self._sessions, value)
            if known is None:
                return None
            self._remember(self._known_sessions, value, known)
        session, at = known
        return session if self._is_fresh(at, SESSION_AGE) else None

    def sign_operator(self, text: str) -> str:
        """Return the cookie value of an operator who signs in, which is valid for eight hours."""
        return self._operators.sign(text).decode()

    def unsign_operator(self, value: str) -> str | None:
        """Return the text in the cookie of an operator; `None` if it is not ours, or too old."""
        known = _read_stamped(self._operators, value)
        return known[0] if known is not None and self._is_fresh(known[1], OPERATOR_AGE) else None

    def _is_fresh(self, at: float, age: float) -> bool:
        return -SKEW <= self._now() - at <= age + SKEW

    def sign_process(self, process: str, birth: str = "") -> str:
        """Return the token of a client process.

        Args:
            process: The id of the client process.
            birth: The worker that opened it, and the time, from `Siblings.birth`.
        """
        return self._processes.sign(f"{process}.{birth}" if birth else process).decode()

    def unsign_process(self, token: str) -> str | None:
        """Return the client process that a token names; `None` without our signature."""
        known = self._read_process(token)
        return None if known is None else known[0]

    def birth_of(self, token: str) -> str:
        """Return the worker that opened the process of a token, and the time; '' if unknown."""
        known = self._read_process(token)
        return "" if known is None else known[1]

    def name_application(self, prefix: str) -> str:
        """Return a name for the application below a prefix that reveals nothing about the key.

        Workers with the same signing key make the same name; other programs cannot.
        """
        return self._applications.get_signature(prefix).decode()

    def name_default(self, session: str, number: int) -> str:
        """Return the id of a default client process, the same in all workers with the same key.

        Args:
            session: The id of the session.
            number: How many default client processes the session has had.
        """
        return session[:2] + self._defaults.get_signature(f"{session}.{number}").decode()[:24]

    def _read_process(self, token: str) -> tuple[str, str] | None:
        known = self._known_processes.get(token)
        if known is None:
            if len(token) > TEXT_LIMIT:
                return None
            try:
                process, _, birth = self._processes.unsign(token).decode().partition(".")
            except (BadData, UnicodeError):
                return None
            known = process, birth
            self._remember(self._known_processes, token, known)
        return known

    def _remember(self, known: dict[str, T], text: str, value: T) -> None:
        with self._lock:
            if len(known) >= KNOWN_LIMIT:
                del known[next(iter(known))]
            known[text] = value


def _read_stamped(signer: _Stamp, value: str) -> tuple[str, float] | None:
    """Return a signed text and when it was signed; `None` without our signature."""
    if len(value) > TEXT_LIMIT:
        return None
    try:
        raw, signed = signer.unsign(value, return_timestamp=True)
        return raw.decode(), signed.timestamp()
    except (BadData, UnicodeError):
        return None
