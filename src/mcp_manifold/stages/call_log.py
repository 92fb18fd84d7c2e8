"""One log line for each call that reached a backend or failed: who, what, where, how it ended, how long it took.

Never arguments, results, headers or session ids.
"""

import asyncio
import logging
import time
from typing import Final

from mcp_manifold.errors import CallCancelled, ManifoldError
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)

_LEVEL: Final = logging.DEBUG


class CallLog:
    """The Stage: costs one comparison while the log does not want the line."""

    def __repr__(self) -> str:
        return "<CallLog>"

    def began(self, call: Call) -> None:
        """Nothing is written yet."""

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Write the line."""
        if logger.isEnabledFor(_LEVEL):
            took = (time.perf_counter() - call.began) * 1000
            told = {
                "backend": call.backend,
                "principal": call.session.principal.name,
                "scope": call.session.scope,
            }
            logger.log(_LEVEL, "%s %s in %.1f ms", call.method, _outcome(failure), took, extra=told)


def _outcome(failure: BaseException | None) -> str:
    if failure is None:
        return "ok"
    if isinstance(failure, CallCancelled | asyncio.CancelledError):
        return "cancelled"
    return type(failure).__name__ if isinstance(failure, ManifoldError) else "internal error"
