"""The short way of a list: answered in the turn it is asked for, of bytes that are kept; no task, and no copy of them.

Only once there is nothing to wait for. What comes back, errors included, is what the long way says, and the stages are
told of it as they are there.
"""

from mcp_manifold.core.scope_responder import LISTS, ScopeResponder
from mcp_manifold.model.call import Call, Stages
from mcp_manifold.wire import Payload, Pieces


class Lists:
    """See the module."""

    def __init__(self, offering: ScopeResponder, stages: Stages) -> None:
        self._offering = offering
        self._stages = stages

    def __repr__(self) -> str:
        return f"<Lists of {self._offering!r}>"

    def listed(self, call: Call) -> Pieces | None:
        """The result of a list request; None, and nothing has happened, where the call has to go the long way.

        Raises:
            ManifoldError: it is refused.
        """
        if call.method not in LISTS or not self._offering.can_list(call.session.scope):
            return None
        self._stages.begin(call)
        try:
            pieces = self._offering.listed(call)
        except BaseException as exc:
            self._stages.end(call, None, exc)
            raise
        self._stages.end(call, Payload(pieces[0]), None)  # which is all of it but for how long it may be kept
        return pieces
