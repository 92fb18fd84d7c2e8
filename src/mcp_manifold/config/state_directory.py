"""The user's state directory: a cache of small files, and notes of the processes that serve a configuration.

Nobody else may write there: cached files are shown to models, and a forged note could have us signal any process.
"""

import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from mcp_manifold.config.load import MAPPING
from mcp_manifold.config.settings import Settings

if sys.platform != "win32":
    import fcntl

LARGEST: Final = 256 << 20
"""Bytes of the largest cached file that is read; the limits on lists keep all of ours below."""
_NEW: Final = ".new"
_NOTE: Final = ".json"
_OUTCOME: Final = ".outcome"
_PLAIN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_HAS_MODES: Final = os.name == "posix"
"""Elsewhere a user's own directory is private by other means."""


def notes_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The directory of the notes. XDG_RUNTIME_DIR is not used: shells have it, but services often do not."""
    return _state_home(os.environ if environ is None else environ) / "instances"


def catalogue_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path | None:
    """The directory of the catalogue cache; None if nothing is cached.

    Settings from a mapping are cached only if they set `stateDir`: a library leaves nothing behind unasked.
    """
    chosen, is_mapping = settings.manifold.state_dir, settings.source == MAPPING
    if not settings.manifold.remember or (chosen is None and is_mapping):
        return None
    if chosen is None:
        return _state_home(os.environ if environ is None else environ) / "catalogue"
    beside = Path() if is_mapping else Path(settings.source).absolute().parent
    return beside / Path(chosen).expanduser() / "catalogue"


def _state_home(environ: Mapping[str, str]) -> Path:
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "mcp-manifold"
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    return home / ".local" / "state" / "mcp-manifold"


class StateDirectory:
    """A private directory of small files, each read and written as a whole. It is created by the first write.

    Several programs may share it: the last one to write a file wins, and a reader never sees half of one.
    """

    def __init__(self, directory: Path, *, largest: int = LARGEST) -> None:
        self._directory = directory
        self._largest = largest

    def __repr__(self) -> str:
        return f"<StateDirectory {self._directory}>"

    def get(self, name: str) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            OSError: it cannot be read, is too large, or another user could have written it.
        """
        try:
            self._require_private()
            file = os.open(self._directory / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _PLAIN)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(file)
            _require_own(found, self._directory / name)
            if not stat.S_ISREG(found.st_mode) or found.st_size > self._largest:
                raise OSError(errno.EINVAL, "not a file of ours", str(self._directory / name))
            with open(file, "rb", closefd=False) as content:
                return content.read()
        finally:
            os.close(file)

    def put(self, name: str, data: bytes) -> None:
        """Write a file atomically.

        Raises:
            OSError: it cannot be written; the old content stays.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._require_private()
        new = self._directory / f".{name}-{os.getpid()}-{os.urandom(6).hex()}{_NEW}"
        try:
            _write_new(new, data, os.O_EXCL)
            new.replace(self._directory / name)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise

    def tidy(self, suffix: str, *, before: float) -> None:
        """Delete files with this suffix last written before `before` (seconds since the epoch), and unfinished ones."""
        with suppress(OSError):
            self._require_private()
            for path in self._directory.iterdir():
                if path.name.endswith((suffix, _NEW)):
                    with suppress(OSError):
                        if path.lstat().st_mtime < before:
                            path.unlink()

    def _require_private(self) -> None:
        """Close a directory that others can enter; raises OSError if it is not this user's."""
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


def _write_new(path: Path, data: bytes, flags: int) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | _PLAIN | flags, 0o600)
    with open(file, "wb") as content:
        content.write(data)


# --- instances --------------------------------------------------------------------------------------------------------


class Announced:
    """The note by which `mcp-manifold reload` finds this process. It exists from `open` until `close`.

    Its lock lasts as long as the process, so that a note left behind is recognised even if its process id is reused.
    """

    def __init__(self, config: Path, directory: Path) -> None:
        self._config = _plain_path(config)
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
        """Write the note, and lock it before another process can find it.

        Raises:
            OSError: it cannot be written here.
        """
        _make_private(self._directory)
        new = self._path.with_suffix(_NEW)
        self._file = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_RDWR | _PLAIN, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        note = {"pid": os.getpid(), "place": _pid_namespace(), "config": str(self._config)}
        os.write(self._file, json.dumps(note).encode())
        self._path.with_suffix(_OUTCOME).unlink(missing_ok=True)
        new.replace(self._path)

    def tell(self, number: int, outcome: Mapping[str, object]) -> None:
        """Publish the outcome of requested reload `number`.

        Raises:
            OSError: it cannot be written.
        """
        new = self._path.with_suffix(".told")
        _write_new(new, json.dumps({"number": number, "outcome": outcome}).encode(), os.O_TRUNC)
        new.replace(self._path.with_suffix(_OUTCOME))

    def close(self) -> None:
        """Delete the note."""
        if self._file >= 0:
            _delete(self._path)
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that serves a configuration."""

    pid: int
    path: Path

    @property
    def is_alive(self) -> bool:
        """Whether the process still serves the configuration."""
        return _read_note(self.path) is not None

    def told(self) -> tuple[int, Mapping[str, Any]]:
        """The number of requested reloads that the process has done (0 before the first), and the last outcome."""
        try:
            found = json.loads(self.path.with_suffix(_OUTCOME).read_text("utf-8"))
            return int(found["number"]), found["outcome"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, {}


def running(config: Path, directory: Path) -> tuple[Instance, ...]:
    """The processes that serve the file at `config`. Deletes the notes of processes that ended."""
    found: list[Instance] = []
    for path in sorted(directory.glob(f"{_key(_plain_path(config))}-*{_NOTE}")):
        note = _read_note(path)
        if note is None:
            _delete(path)
        elif note.get("place") == _pid_namespace() and isinstance(note.get("pid"), int):
            found.append(Instance(note["pid"], path))
    return tuple(found)


def _delete(note: Path) -> None:
    for suffix in (_NOTE, _OUTCOME):
        with suppress(OSError):
            note.with_suffix(suffix).unlink(missing_ok=True)


def _read_note(path: Path) -> Mapping[str, Any] | None:
    """The content of a note; None if its process ended."""
    try:
        file = os.open(path, os.O_RDONLY | _PLAIN)
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


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "not a directory of this user", str(directory))
    directory.chmod(0o700)


def _plain_path(config: Path) -> Path:
    """The absolute path of the file, from any working directory. A link stays one, because its target may change."""
    return config.parent.resolve() / config.name


def _key(config: Path) -> str:
    return hashlib.sha256(os.fsencode(config)).hexdigest()[:16]


def _pid_namespace() -> str:
    """Where a process id is valid: this machine, this container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{os.uname().nodename} {space}"
