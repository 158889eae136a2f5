"""A lock file that one process holds at a time, and that lists which others serve as well.

Owns the file, what is written in it, and that nobody else's file is used. A lock ends with its
process, whatever ends that, so nothing has to be cleaned up. Must not know what is locked.
"""

from __future__ import annotations

import os
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LockFile"]

READ = 4096  # bytes: some hundred identifiers, more than one machine has workers


class LockFile:
    """A file with a process identifier per line: the holder's, then those that serve beside it.

    Args:
        path: Where it is. Made when it is first taken, and removed when it is released.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    @staticmethod
    def is_supported() -> bool:
        """Tell whether this system has such locks."""
        return fcntl is not None

    @property
    def held(self) -> bool:
        """Whether this process holds it."""
        return self._fd is not None

    def take(self) -> bool:
        """Take the lock if no other process holds it; never waits.

        Returns:
            Whether this process holds it now, be it by another `LockFile`.

        Raises:
            OSError: The file cannot be used: it belongs to another user, or is a link.
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
                os.ftruncate(fd, 0)  # a holder that was killed left its identifier
                os.write(fd, _line())
                self._fd = fd
            else:  # its holder removed it in this very moment
                os.close(fd)
        return True

    def join(self) -> None:
        """Enter this process as one that serves beside the holder. Idempotent."""
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
        """Let another process take it. Idempotent."""
        if self._fd is not None:
            # Removed first: a process that opens it from now on makes another. Unlocked explicitly:
            # a child process that was forked meanwhile shares the descriptor, and with it the lock.
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
    except OSError:  # it has ended, or another user's process has its identifier by now
        return False
    return True
