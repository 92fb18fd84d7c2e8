"""Exit codes, and the errors that end the program with one of them."""

import difflib
import errno
import json
from collections.abc import Iterable
from typing import Final

import click

from mcp_manifold.cli.output import visible_text
from mcp_manifold.errors import ConfigError, ManifoldError, RemoteError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
SIGNALLED: Final = 128
"""Plus the number of the signal: 130 interrupted, 143 terminated."""
INTERRUPTED: Final = 130

NO_FILES: Final = "too many open files; raise the limit (ulimit -n), or configure fewer servers"
EXIT_CODES: Final = "Exit codes: 0 ok, 1 the operation failed, 2 usage or configuration error, 130 interrupted."


class Failed(click.ClickException):
    """The operation failed: exit code 1, with the message on stderr."""

    exit_code = FAILED

    def format_message(self) -> str:
        """The message with control characters escaped."""
        return visible_text(self.message)


class Misconfigured(Failed):
    """The configuration or the usage is wrong: exit code 2."""

    exit_code = USAGE


class Signalled(Exception):
    """A signal ended the program."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def as_exit(exc: ManifoldError) -> click.ClickException:
    """The click exception that ends the program for `exc`, an error of ours."""
    if isinstance(exc, ConfigError):
        return Misconfigured(str(exc))
    return Failed(_remote_message(exc) if isinstance(exc, RemoteError) else str(exc))


def is_out_of_files(exc: BaseException | None) -> bool:
    """Whether an error, or one that it followed from, is that no more files can be opened."""
    while exc is not None and not (isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE)):
        exc = only_error(exc) if isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1 else exc.__context__
    return exc is not None


def _remote_message(exc: RemoteError) -> str:
    """The message and data of a server's own error."""
    try:
        error = json.loads(exc.raw)
    except ValueError:
        return str(exc)
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return str(exc)
    detail = f"\n{json.dumps(error['data'], ensure_ascii=False)}" if error.get("data") is not None else ""
    return f"{exc}: {error['message']}{detail}"


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The single error in an exception group, however deep; the group itself if it holds several."""
    if len(group.exceptions) != 1:
        return group
    inner = group.exceptions[0]
    return only_error(inner) if isinstance(inner, BaseExceptionGroup) else inner


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "x" or "y"?` with the names closest to `name`; empty when none is close."""
    names = list(dict.fromkeys(known))
    folded = {other.casefold(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.75)
    inside = [key for key in folded if key.endswith(f"_{name.casefold()}") and key not in close]
    found = [f'"{folded[key]}"' for key in [*inside, *close][:3]]
    return f" Did you mean {' or '.join(found)}?" if found else ""
