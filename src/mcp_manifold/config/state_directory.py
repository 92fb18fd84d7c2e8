"""A private directory of small files, each read and written whole. Knows what is in none of them.

Nobody else may be able to write there, or to read it: what servers offer is told to whoever has their credentials, and
what is read from here is put before models. Several programs may share a shelf: the last to write a file wins, and no
reader ever sees half of one.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

LARGEST: Final = 256 << 20
"""Bytes of the largest file that is read: more than the limits on lists let anybody write."""
_NEW: Final = ".new"
_PLAIN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Of files that are no links, for this process alone, byte for byte; where there is no such thing, it is not needed."""
_HAS_MODES: Final = os.name == "posix"
"""Elsewhere what is in a user's own directory is private by other means."""


class StateDirectory:
    """See the module. Nothing is made before the first file is put there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"<StateDirectory {self._directory}>"

    def get(self, name: str) -> bytes | None:
        """The file of that name, or None where there is none.

        Raises:
            OSError: it cannot be read, or somebody else could have written it.
        """
        try:
            self._require_private()
            file = os.open(self._directory / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _PLAIN)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(file)
            _require_own(found, self._directory / name)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise OSError(errno.EINVAL, "no file of ours", str(self._directory / name))
            return _all_of(file)
        finally:
            os.close(file)

    def put(self, name: str, data: bytes) -> None:
        """Have this file there, all of it or what was there before.

        Raises:
            OSError: it cannot be written.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._require_private()
        new = self._directory / f".{name}-{os.getpid()}-{os.urandom(6).hex()}{_NEW}"
        file = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _PLAIN, 0o600)
        try:
            try:
                _write(file, data)
            finally:
                os.close(file)
            new.replace(self._directory / name)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise

    def tidy(self, suffix: str, *, before: float) -> None:
        """Take away the files with this suffix that nobody wrote since `before` (seconds since the epoch), and what a
        program that was killed while it wrote one left behind.
        """
        with suppress(OSError):
            self._require_private()
            for path in self._directory.iterdir():
                if path.name.endswith((suffix, _NEW)):
                    with suppress(OSError):
                        if path.lstat().st_mtime < before:
                            path.unlink()

    def _require_private(self) -> None:
        """Raises OSError unless the directory is this user's alone; what is too open is closed."""
        found = self._directory.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(self._directory))
        _require_own(found, self._directory)
        if _HAS_MODES and stat.S_IMODE(found.st_mode) & 0o077:
            self._directory.chmod(0o700)


def _require_own(found: os.stat_result, path: Path) -> None:
    if not _HAS_MODES:
        return
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "belongs to another user", str(path))
    if stat.S_IMODE(found.st_mode) & 0o022 and not stat.S_ISDIR(found.st_mode):
        raise PermissionError(errno.EPERM, "others may write it", str(path))


def _all_of(file: int) -> bytes:
    parts = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
