"""The way of a call to one backend: its turn, its link, its deadline, perhaps a second attempt. Opens no link."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from mcp_manifold.backends.calls.breaker import Breaker
from mcp_manifold.backends.calls.concurrency import ConcurrencyLimiter
from mcp_manifold.backends.calls.deadlines import Deadlines, Patience
from mcp_manifold.backends.calls.retry_policy import PAUSE, may_repeat
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.lists.lister import Lister
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import (
    AnswerDropped,
    BackendError,
    BackendLost,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
    SessionExpired,
)
from mcp_manifold.model.call import Call, ResultCallback, Session
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import HEADER_MISMATCH

logger = logging.getLogger(__name__)

SPARED: Final = "It is connected, but answers no calls: try again then, or go on without this server."
BUSY: Final = 429
"""The one HTTP status below 500 that says that a backend, right now, takes no calls."""


Live = Callable[[Session, Call], Link | None]
"""The open link that serves a call of a session, if there is one."""
Reached = Callable[[Session, Call], Awaitable[Link]]
"""The same, waiting for it within bounds; raises BackendError."""


class RequestExecutor:
    """See the module. `breaker` and `limiter` say whether a call may go now."""

    def __init__(
        self, server: ServerSettings, context: BackendContext, *, live: Live, link: Reached, lister: Lister
    ) -> None:
        self.breaker = Breaker(failures=server.breaker.failures, wait=server.breaker.wait)
        self.limiter = ConcurrencyLimiter(server.name, most=server.max_concurrency, queue=server.max_queue)
        self.retries = 0
        """Calls that were sent once more."""
        self._shut = datetime.now(UTC)
        """Since when the breaker is open; of no meaning while it is not."""
        self._deadlines = Deadlines(server)
        self._server = server
        self._context = context
        self._live = live
        self._link = link
        self._lister = lister
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<RequestExecutor {self._server.name} {self.limiter!r} {self.breaker!r}>"

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Go by other settings from now on."""
        self._server, self._context = server, context
        self._deadlines = Deadlines(server)
        self.breaker.adapt(failures=server.breaker.failures, wait=server.breaker.wait)
        self.limiter.adapt(most=server.max_concurrency, queue=server.max_queue)

    async def request(self, call: Call, method: str, params: dict[str, Payload]) -> Payload:
        """Relay a call when it is its turn, names and URIs already the backend's own.

        Raises:
            RemoteError: the backend's own error.
            BackendError: it cannot be reached, has too much to do, or did not answer.
            CallCancelled: the caller took it back.
        """
        if self.breaker.is_shut:
            self._require_admitted()
        limiter, patience, waited = self.limiter, self._deadlines.usual, 0.0
        if self._deadlines.special:
            patience = self._deadlines.of(method, params)
        if limiter.running < limiter.most:  # the fast path
            limiter.running += 1
        else:
            waited = await self._turn(call, min(patience.timeout, patience.ceiling))
        try:
            return await self._request(call, method, params, None, patience, waited)
        finally:
            limiter.leave()

    @property
    def is_free(self) -> bool:
        """Whether a call may go in this very turn."""
        return self.limiter.running < self.limiter.most and not self.breaker.is_shut

    def relay(
        self, link: Link, call: Call, params: dict[str, Payload], told: ResultCallback, again: Callable[[], None]
    ) -> None:
        """As `request`, over a link that is free, for who does not wait: `told` gets what came of it.

        Args:
            again: called instead if it is to be sent once more, which `request` does better.

        Raises:
            BackendError: it certainly was not sent. Nothing is told then.
        """
        limiter, patience, method = self.limiter, self._deadlines.usual, call.method
        if self._deadlines.special:
            patience = self._deadlines.of(method, params)

        def over(result: Payload | None, failure: Exception | None) -> None:
            limiter.leave()
            if result is not None:
                if self.breaker.failed_in_row:
                    self._note_answer()
            elif isinstance(failure, BackendError | RemoteError):
                if not call.cancelled and self._may_repeat(failure, link, call, params):
                    self._note_repeat(failure, call)
                    again()
                    return
                self._note_failure(failure, link)
            told(result, failure)

        limiter.running += 1
        try:
            link.relay(method, params, timeout=patience.timeout, call=call, ceiling=patience.ceiling, told=over)
        except BaseException:
            limiter.leave()
            raise

    async def request_aside(
        self, call: Call, method: str, params: dict[str, Payload], *, on: Link | None, timeout: float | None
    ) -> Payload:
        """Relay a call that waits for no turn, since it is about another one; raises as `request` does.

        Args:
            on: the link to use instead of the caller's, for as long as it is open.
            timeout: seconds, instead of the configured ones.
        """
        if self.breaker.is_shut:
            self._require_admitted()
        patience = self._deadlines.usual if timeout is None else Patience(timeout)
        self.limiter.beside += 1
        try:
            return await self._request(call, method, params, on, patience, 0.0)
        finally:
            self.limiter.beside -= 1
            self.limiter.look()

    async def _turn(self, call: Call, timeout: float) -> float:
        """Wait for the call's turn; returns the seconds that took. A breaker that opens meanwhile holds for it, too."""
        is_trial = self.breaker.is_shut
        waited = await self.limiter.turn(call, timeout)
        if self.breaker.is_shut and not is_trial:
            try:
                self._require_admitted()
            except BackendUnavailable:
                self.limiter.leave()
                raise
        return waited

    async def _request(
        self,
        call: Call,
        method: str,
        params: dict[str, Payload],
        on: Link | None,
        patience: Patience,
        waited: float,
    ) -> Payload:
        begun, session = self._loop.time() - waited, call.session
        if call.is_repeated:  # it failed on the short way
            await self._pause(call)
        if call.is_outdated:  # the same, and there is something to learn first
            await self._lister.relist()
        link = on if on is not None and not on.ended.done() else self._live(session, call)
        link = link or await self._link(session, call)
        try:
            result = await self._relay(link, call, method, params, patience, waited)
        except (BackendError, RemoteError) as exc:
            is_over = self._loop.time() - begun >= min(patience.timeout, patience.ceiling)
            if is_over or call.cancelled or not self._may_repeat(exc, link, call, params):
                self._note_failure(exc, link)
                raise
            link = await self._again(exc, link, call)
            result = await self._once_more(link, call, method, params, patience, self._loop.time() - begun)
        if self.breaker.failed_in_row:
            self._note_answer()
        return result

    async def _once_more(
        self, link: Link, call: Call, method: str, params: dict[str, Payload], patience: Patience, waited: float
    ) -> Payload:
        try:
            return await self._relay(link, call, method, params, patience, waited)
        except (BackendError, RemoteError) as exc:
            self._note_failure(exc, link)
            raise

    async def _relay(
        self, link: Link, call: Call, method: str, params: dict[str, Payload], patience: Patience, waited: float
    ) -> Payload:
        session, timeout, ceiling = call.session, patience.timeout, patience.ceiling
        if session.log_level and session.era == "modern" and link.era == "handshake":
            async with self._context.with_level(link, session.log_level):
                return await link.request(method, params, timeout=timeout, call=call, ceiling=ceiling, waited=waited)
        return await link.request(method, params, timeout=timeout, call=call, ceiling=ceiling, waited=waited)

    # --- second attempts ------------------------------------------------------------------------------------------

    def _may_repeat(self, exc: BackendError | RemoteError, link: Link, call: Call, params: dict[str, Payload]) -> bool:
        method = call.method
        if isinstance(exc, RemoteError):
            is_new = method == "tools/call" and link.era == "modern" and not call.is_outdated
            return is_new and exc.code == HEADER_MISMATCH
        if isinstance(exc, SessionExpired):  # refused unread
            return True
        listing = self._lister.latest
        if call.is_repeated or self.breaker.is_shut:
            return False
        return may_repeat(exc, method, params, retry=self._server.retry, listing=listing)

    async def _again(self, exc: BackendError | RemoteError, link: Link, call: Call) -> Link:
        """What has to be before a second attempt; returns the link for it."""
        if isinstance(exc, RemoteError):
            await self._lister.relist()  # the tool asks for other headers now (2026-07-28 streamable-http)
            return link
        self._note_repeat(exc, call)
        if call.is_repeated:
            await self._pause(call)
        return self._live(call.session, call) or await self._link(call.session, call)

    def _note_repeat(self, exc: BackendError | RemoteError, call: Call) -> None:
        """It is sent once more. A session that was forgotten, or headers that changed, do not count as a failure."""
        if isinstance(exc, RemoteError):
            call.is_outdated = True
        elif not isinstance(exc, SessionExpired):
            call.is_repeated = True
            self.retries += 1
            logger.info("%s is sent once more", call.method, extra={"backend": exc.backend, "reason": exc.message})

    async def _pause(self, call: Call) -> None:
        """Wait before a second attempt, unless the caller takes the call back."""
        taken_back: asyncio.Future[None] = self._loop.create_future()
        call.on_cancel(lambda: taken_back.set_result(None))
        await asyncio.wait({taken_back}, timeout=PAUSE)
        call.on_cancel(None)
        if taken_back.done():
            raise CallCancelled("the caller cancelled the request")

    # --- what the breaker is told ---------------------------------------------------------------------------------

    def _note_answer(self) -> None:
        """Let the breaker know that the backend answers."""
        was_shut = self.breaker.is_shut
        self.breaker.close()
        if was_shut:
            logger.info("answers calls again", extra={"backend": self._server.name})
            self._context.on_status(self._server.name)

    def _note_failure(self, exc: BackendError | RemoteError, link: Link) -> None:
        """Let the breaker know of a call that failed, unless its link ended with it, which is its life's business."""
        if isinstance(exc, RemoteError | AnswerDropped) or (
            400 <= exc.status < 500 and exc.status != BUSY
        ):  # an answer, if no good one, or one there was no room for
            self._note_answer()
        elif not link.ended.done() and not isinstance(exc, BackendLost):
            was_shut = self.breaker.is_shut
            self.breaker.failed(self._loop.time(), exc.message)
            if self.breaker.is_shut and not was_shut:
                self._shut = datetime.now(UTC)
                extra = {"backend": self._server.name}
                logger.warning("no longer called, for now: %s", exc.message, extra=extra)
                self._context.on_status(self._server.name)

    def _require_admitted(self) -> None:
        """Let a call through to a backend that answered none of the last ones, if it is the next trial's time.

        Raises:
            BackendUnavailable: it is not.
        """
        breaker, now = self.breaker, self._loop.time()
        if not breaker.admits(now):
            left = breaker.left(now)
            reason = f"had no answer to the last {breaker.failed_in_row} calls ({breaker.reason})"
            message = f"{reason}; next attempt in {left:.1f} s"
            since = self._shut.isoformat(timespec="seconds").replace("+00:00", "Z")
            raise BackendUnavailable(self._server.name, message, next_try=left, since=since, advice=SPARED)
