"""The stage that logs one line per call at level DEBUG: method, outcome, milliseconds, backend, principal, scope.

It never logs arguments, results, headers or session ids.
"""

import logging
import time

from mcp_manifold.model.call import Call
from mcp_manifold.model.outcomes import outcome_of
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)


class CallLog:
    """The Stage; one comparison per call while DEBUG is off."""

    def __repr__(self) -> str:
        return "<CallLog>"

    @property
    def is_active(self) -> bool:
        """Whether the log wants the line."""
        return logger.isEnabledFor(logging.DEBUG)

    def began(self, call: Call) -> None:
        """Log nothing yet."""

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Log the call. `error` is the class of the failure, if any."""
        milliseconds = (time.perf_counter() - call.began) * 1000
        outcome = outcome_of(failure, method=call.method, result=result)
        fields = {
            "backend": call.backend,
            "principal": call.session.principal.name,
            "scope": call.session.scope,
            "error": "" if failure is None else type(failure).__name__,
        }
        logger.debug("%s %s in %.1f ms", call.method, outcome, milliseconds, extra=fields)
