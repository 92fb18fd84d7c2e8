"""The session check: asks a server that may have forgotten the session with one `ping`, and ends the link if it has.

Servers say so in many ways, most of which have other reasons too. A request that was refused so waits for the answer.
If the session is forgotten, it fails with `SessionExpired`, which repeats it; else with the refusal's own error.
"""

from typing import Final

from mcp_manifold.backends.http.refusal import Refusal, names_session, rpc_error
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.errors import RemoteError, SessionExpired
from mcp_manifold.wire import Payload, backend_code

CHECK_WAIT: Final = 5.0
"""Seconds without an answer to the `ping` after which the session counts as known."""
SMALL_ERROR: Final = 4096
"""Bytes of the largest error that may be about the session."""


class SessionCheck:
    """Sends one `ping` to find out whether the session is forgotten. All held requests share its answer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ping: PendingRequest | None = None
        self._doubted: dict[int, tuple[PendingRequest, Exception, bool]] = {}
        """Refused requests by number: each with its error, and whether it was certainly not processed."""

    def __repr__(self) -> str:
        return f"<SessionCheck {self._link.backend} {'asking' if self._ping else 'idle'}>"

    def holds(self, pending: PendingRequest) -> bool:
        """Whether the refused request is held until the check is answered."""
        return pending.number in self._doubted

    def doubts(self, pending: PendingRequest, refusal: Refusal, *, has_session: bool) -> bool:
        """Hold a refused request if the session may be forgotten; False if the refusal has another reason."""
        if not self._is_in_session(pending) or not (
            refusal.may_mean_forgotten if has_session else refusal.is_about_session
        ):
            return False
        if pending is self._ping or (has_session and refusal.means_forgotten):
            self._forgotten(pending)
        else:
            self._doubt(pending, refusal.error(self._link.backend, self._link.era), is_unread=refusal.is_unread)
        return True

    def doubts_answer(self, pending: PendingRequest, message: bytes) -> bool:
        """Hold a request whose answer is an error, if the session may be forgotten; else return False."""
        if len(message) > SMALL_ERROR or b'"error"' not in message or not names_session(message):
            return False
        error = rpc_error(message)
        if error is None or not names_session(bytes(error)) or not self._is_in_session(pending):
            return False
        if pending is self._ping:
            self._forgotten(pending)
        else:
            link = self._link
            failure = RemoteError(bytes(error), code=backend_code(error), backend=link.backend, era=link.era)
            self._doubt(pending, failure, is_unread=True)
        return True

    def ask(self) -> None:
        """Send the `ping`, unless one is unanswered already."""
        if self._ping is None and not self._link.ended.done():
            self._ping = self._link.send("ping", {}, self._answered, timeout=CHECK_WAIT)

    def _is_in_session(self, pending: PendingRequest) -> bool:
        return self._link.era == "handshake" and pending.method != "initialize"

    def _doubt(self, pending: PendingRequest, failure: Exception, *, is_unread: bool) -> None:
        self._doubted[pending.number] = (pending, failure, is_unread)
        self.ask()

    def _forgotten(self, pending: PendingRequest) -> None:
        expired = SessionExpired(self._link.backend, "the server no longer knows the session")
        self._link.fail(pending, expired)
        self._link.lost(expired)

    def _answered(self, ping: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
        doubted, self._doubted = self._doubted, {}
        self._ping = None
        is_forgotten = isinstance(failure, SessionExpired)
        for pending, own, is_unread in doubted.values():
            self._link.fail(pending, failure if is_forgotten and failure and is_unread else own)
