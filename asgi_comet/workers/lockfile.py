"""A lock file that one process holds at a time, with a list of the other serving processes.

Owns the file and its content, and refuses a file of another user. The lock ends with its process in
any case, so no cleaning up is needed. Must not know the purpose of the lock.
"""

from __future__ import annotations

import os
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LockFile"]

READ = 4096  # bytes: some hundred identifiers, more than the workers of one machine


class LockFile:
    """A file with a process identifier per line: the holder, then the other serving processes.

    Args:
        path: The path. The file is made by `take`, and removed by `release`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    @staticmethod
    def is_supported() -> bool:
        """Return whether this system supports such locks."""
        return fcntl is not None

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._fd is not None

    def take(self) -> bool:
        """Take the lock if no other process holds it; never waits.

        Returns:
            Whether this process holds the lock now, maybe by another `LockFile`.

        Raises:
            OSError: The file cannot be used: another user owns it, or it is a link.
        """
        while self._fd is None:
            fd = self._open(os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if isinstance(error, BlockingIOError):
                    return os.getpid() in self._read()[:1]
                raise
            if os.fstat(fd).st_nlink:
                os.ftruncate(fd, 0)  # a killed holder has left its identifier
                os.write(fd, _line())
                self._fd = fd
            else:  # the holder removed the file at this moment
                os.close(fd)
        return True

    def join(self) -> None:
        """Add this process to the list. Idempotent."""
        if os.getpid() not in self._read():
            with suppress(OSError):  # the holder has just left
                fd = self._open(os.O_WRONLY | os.O_APPEND)
                try:
                    os.write(fd, _line())
                finally:
                    os.close(fd)

    def others(self) -> list[int]:
        """Return the other processes in the file that are alive, the holder first."""
        return [pid for pid in self._read() if pid != os.getpid() and _is_alive(pid)]

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._fd is not None:
            # Removed first: a process that opens the path from now on makes another file. Unlocked
            # explicitly: a child process forked meanwhile shares the descriptor, and so the lock.
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def _read(self) -> list[int]:
        try:
            fd = self._open(os.O_RDONLY)
        except OSError:  # the holder has just left
            return []
        try:
            return [int(line) for line in os.read(fd, READ).split()]
        finally:
            os.close(fd)

    def _open(self, flags: int) -> int:
        fd = os.open(self._path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_uid != os.geteuid():
            os.close(fd)
            raise PermissionError(f"{self._path} belongs to another user")
        return fd


def _line() -> bytes:
    return b"%d\n" % os.getpid()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # ended, or another user's process has the identifier now
        return False
    return True
