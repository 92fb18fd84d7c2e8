"""What `serve` and `stdio` do on SIGHUP, and how `reload` finds them and hears of it. Knows no other command."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mcp_manifold.cli.opening import Endpoint, Invocation

if TYPE_CHECKING:
    from mcp_manifold.config import Reloaded
    from mcp_manifold.config.state_directory import Announced

logger = logging.getLogger(__name__)

NO_FILE: Final = "<dict>"


class Following:
    """The reloads that were asked for by signals, counted, so that who asks can tell whose outcome it reads."""

    def __init__(self, invocation: Invocation, manifold: Endpoint) -> None:
        self._invocation = invocation
        self._manifold = manifold
        self._note: Announced | None = None
        self._count = 0

    def __repr__(self) -> str:
        return f"<Following {self._note!r}, asked {self._count} times>"

    def again(self) -> None:
        """Somebody asked."""
        self._count += 1
        number = self._count
        self._manifold.reload_soon(lambda outcome: self._tell(number, outcome))

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Be found by `reload`, where that is possible. From then on a signal may come."""
        if self._manifold.config.source != NO_FILE and hasattr(signal, "SIGHUP"):
            note = self._invocation.opening.announced(Path(self._manifold.config.source))
            try:
                note.open()
                self._note = note
            except OSError as exc:
                logger.info("`reload` will not find this instance, which leaves SIGHUP: %s", exc)
        try:
            yield
        finally:
            if self._note is not None:
                self._note.close()
                self._note = None

    def _tell(self, number: int, outcome: "Reloaded") -> None:
        if self._note is not None:
            try:
                self._note.tell(number, asdict(outcome))
            except OSError as exc:
                logger.warning("cannot tell what came of reloading: %s", exc)
