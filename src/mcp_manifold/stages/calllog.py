"""One log line for each call that reached a backend or failed: who, what, where, how it ended, how long it took.

Never arguments, results, headers or session ids.
"""

import asyncio
import logging
import time
from typing import Final

from mcp_manifold.call import Call, Handler
from mcp_manifold.errors import CallCancelled, ManifoldError
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)

_LEVEL: Final = logging.DEBUG


def call_log(inner: Handler) -> Handler:
    """The Stage: costs one comparison while the log does not want the line."""

    async def logged(call: Call) -> Payload:
        if not logger.isEnabledFor(_LEVEL):
            return await inner(call)
        started = time.perf_counter()
        outcome = "internal error"
        try:
            result = await inner(call)
            outcome = "ok"
            return result
        except (CallCancelled, asyncio.CancelledError):
            outcome = "cancelled"
            raise
        except ManifoldError as exc:
            outcome = type(exc).__name__
            raise
        finally:
            took = (time.perf_counter() - started) * 1000
            logger.log(
                _LEVEL,
                "%s %s in %.1f ms",
                call.method,
                outcome,
                took,
                extra={"backend": call.backend, "principal": call.session.principal.name, "scope": call.session.scope},
            )

    return logged
