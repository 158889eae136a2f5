"""The keys that sign what clients carry.

Owns the rule of what a secret key must be.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["KEY_MINIMUM", "SecretKey", "load_keys"]

KEY_MINIMUM = 32  # bytes, as long as the digest (SHA-256) that the key authenticates

SecretKey = str | bytes | Iterable[str | bytes]


def load_keys(secret_key: SecretKey) -> list[bytes]:
    """Read a secret key, or the list of keys of a rotation.

    Args:
        secret_key: One key or several, oldest first: all verify, the last signs.

    Returns:
        The keys as bytes, oldest first.

    Raises:
        TypeError: It is not a key or a list of keys.
        ValueError: There is none, or one is shorter than 32 bytes. The text never holds the key.
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
