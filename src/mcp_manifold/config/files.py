"""Whether files changed, and where to look for that. Reads what the file system says of them, never what is in them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

Stamps = Mapping[str, object]
"""What each file is like: equal as long as it is the same file with the same content."""

MAX_LINKS: Final = 16
"""Symbolic links that are followed one after the other."""


def stamps(files: Iterable[str]) -> Stamps:
    """What these files are like now. One that is not there, or cannot be seen, is like no other."""
    return {file: _stamp(Path(file)) for file in files}


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
        return (str(path.resolve()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    except (OSError, RuntimeError, ValueError):  # gone, links in a circle, or no path at all
        return None


def directories(files: Iterable[str]) -> frozenset[str]:
    """The directories in which something happens when one of the files changes, is replaced, or leads elsewhere."""
    return frozenset(str(directory) for file in files for directory in _around(Path(file).absolute()))


def _around(path: Path) -> Iterable[Path]:
    for _ in range(MAX_LINKS):
        if _is_directory(path.parent):
            yield path.parent
        try:
            path = path.parent / path.readlink()
        except (OSError, ValueError):  # no link
            return


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
