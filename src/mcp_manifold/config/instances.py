"""Which processes of this user serve which configuration: a note of each, in a directory of theirs.

A note is locked for as long as its process lives, so that one that was left behind is known as such, whatever process
has its number by now. Beside it lies what came of the last reload somebody asked for. Sends no signal and waits for
nobody.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_NOTE = ".json"
_OUTCOME = ".outcome"


class Announced:
    """The note of this process, from `open` until `close`."""

    def __init__(self, config: Path, directory: Path) -> None:
        self._config = _plain(config)
        self._directory = directory
        self._path = directory / f"{_key(self._config)}-{os.getpid()}{_NOTE}"
        self._file = -1

    def __repr__(self) -> str:
        return f"<Announced {self._path.name} {'open' if self._file >= 0 else 'closed'}>"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Leave the note, locked before anybody can find it.

        Raises:
            OSError: that is not possible here.
        """
        _private(self._directory)
        new = self._path.with_suffix(".new")
        self._file = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        said = {"pid": os.getpid(), "place": _place(), "config": str(self._config)}
        os.write(self._file, json.dumps(said).encode())
        self._path.with_suffix(_OUTCOME).unlink(missing_ok=True)
        new.replace(self._path)

    def tell(self, number: int, outcome: Mapping[str, object]) -> None:
        """What came of the reload that was asked for as the `number`-th.

        Raises:
            OSError: it cannot be written.
        """
        new = self._path.with_suffix(".told")
        file = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps({"number": number, "outcome": outcome}).encode())
        finally:
            os.close(file)
        new.replace(self._path.with_suffix(_OUTCOME))

    def close(self) -> None:
        """Take the note away."""
        if self._file >= 0:
            for suffix in (_NOTE, _OUTCOME):
                with suppress(OSError):
                    self._path.with_suffix(suffix).unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that serves a configuration."""

    pid: int
    path: Path

    @property
    def is_alive(self) -> bool:
        """Whether it still does."""
        return _read(self.path) is not None

    def told(self) -> tuple[int, Mapping[str, Any]]:
        """How many reloads it was asked for and has done, and what came of the last; 0 before the first."""
        try:
            found = json.loads(self.path.with_suffix(_OUTCOME).read_text("utf-8"))
            return int(found["number"]), found["outcome"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, {}


def running(config: Path, directory: Path) -> tuple[Instance, ...]:
    """The processes that serve the file at `config`. Notes of processes that are gone are taken away."""
    found: list[Instance] = []
    for path in sorted(directory.glob(f"{_key(_plain(config))}-*{_NOTE}")):
        note = _read(path)
        if note is None:
            for suffix in (_NOTE, _OUTCOME):
                with suppress(OSError):
                    path.with_suffix(suffix).unlink(missing_ok=True)
        elif note.get("place") == _place() and isinstance(note.get("pid"), int):
            found.append(Instance(note["pid"], path))
    return tuple(found)


def _read(path: Path) -> Mapping[str, Any] | None:
    """The note, if its process lives."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return _decoded(os.read(file, 65536))
    finally:
        os.close(file)
    return None


def _decoded(text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _private(directory: Path) -> None:
    """Make sure that nobody else can write here: who can, could have us signal a process of ours."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "not a directory of this user", str(directory))
    directory.chmod(0o700)


def _plain(config: Path) -> Path:
    """The file's address, the same from wherever it was named; a link stays one, for it may lead elsewhere later."""
    return config.parent.resolve() / config.name


def _key(config: Path) -> str:
    return hashlib.sha256(os.fsencode(config)).hexdigest()[:16]


def _place() -> str:
    """Where process numbers mean the same: on this machine, in this container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{os.uname().nodename} {space}"
