"""Sends calls to one backend: owns its slots, circuit breaker, deadlines and retries. Opens no link.

Waits for a slot, and for the pause before a second attempt; `plan` decides when.
"""

import asyncio
import logging
from typing import Final, NamedTuple, Protocol

from mcp_manifold.backends.calls.breaker import Breaker
from mcp_manifold.backends.calls.request_policy import PAUSE, Deadlines, Patience, may_repeat
from mcp_manifold.backends.calls.waiting_calls import WaitingCalls
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import HUMAN_WAIT, PendingRequest, ResultCallback
from mcp_manifold.backends.lists.lister import Lister
from mcp_manifold.clock import Clock
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import (
    AnswerDropped,
    BackendError,
    BackendLost,
    BackendUnavailable,
    RemoteError,
    SessionExpired,
)
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import HEADER_MISMATCH

logger = logging.getLogger(__name__)

SPARED: Final = "It is connected, but answers no calls: try again then, or go on without this server."
BUSY: Final = 429
"""The only HTTP status below 500 with which a backend refuses all calls for now."""
MAX_ATTEMPTS: Final = 3
"""Requests sent for one call: two more after a lost session, or one after it and one after another failure."""
_TASK_RESULT: Final = Patience(HUMAN_WAIT)
"""The deadline of `tasks/result`, which takes as long as its task."""


class Request(Protocol):
    """The request to send for a call."""

    @property
    def link(self) -> Link:
        """The link to send it over."""

    @property
    def params(self) -> dict[str, Payload]:
        """The params, with native names and URIs."""

    @property
    def task(self) -> object:
        """The MCP task that the request asks about, if any. Such a request takes no slot."""

    @property
    def is_unlisted(self) -> bool:
        """Whether the backend does not list the tool or prompt, so that our list may be out of date."""


class Retry(NamedTuple):
    """A second attempt of a call: the seconds already used, and what to do before sending it."""

    executor: "RequestExecutor"
    waited: float
    pause: float = 0.0
    relists: bool = False

    async def prepare(self) -> None:
        """Fetch the lists again or pause, as this second attempt needs."""
        await self.executor.prepare(self)


class RequestExecutor:
    """Sends the calls of one backend. Of at most `most` slots, `running` are taken."""

    def __init__(self, server: ServerSettings, context: BackendContext, *, lister: Lister, clock: Clock) -> None:
        self.breaker = Breaker(failures=server.breaker.failures, wait=server.breaker.wait)
        self.most = server.max_concurrency
        self.running = 0
        self.beside = 0
        """Requests in flight that need no slot."""
        self.waiting = WaitingCalls(server.name, server.max_queue, clock, on_unused=self.leave)
        self.used = 0.0
        """When the last request ended, by the clock; 0 before the first."""
        self.retries = 0
        """Calls that were sent a second time because they failed."""
        self._opened = clock.wall()
        """When the breaker last opened."""
        self._deadlines = Deadlines(server)
        self._server = server
        self._context = context
        self._lister = lister
        self._clock = clock
        self._idle: asyncio.Future[None] | None = None
        """Done once no call is in flight; None while nothing waits for that."""

    def __repr__(self) -> str:
        return f"<RequestExecutor {self._server.name} {self.running}/{self.most} {self.waiting!r} {self.breaker!r}>"

    def adapt(self, server: ServerSettings, context: BackendContext) -> None:
        """Use other settings for calls from now on."""
        self._server, self._context = server, context
        self._deadlines = Deadlines(server)
        self.breaker.adapt(failures=server.breaker.failures, wait=server.breaker.wait)
        self.most = server.max_concurrency
        self.waiting.adapt(server.max_queue)
        self._admit()

    # --- requests -------------------------------------------------------------------------------------------------

    def send(
        self, call: Call, request: Request, on_result: ResultCallback, *, waited: float, has_slot: bool
    ) -> PendingRequest:
        """Send a call now. Pass its outcome to `finished`, also when this raises.

        Args:
            waited: seconds of its timeout that are spent already.
            has_slot: whether it holds a slot already, for which it waited.

        Raises:
            BackendError: it certainly was not sent.
        """
        method, params = call.method, request.params
        if request.task is not None:
            self.beside += 1
        elif not has_slot:
            self.running += 1
        patience = self._patience(method, params)
        if self.breaker.is_shut:
            self.breaker.admits(self._clock.now())
        return request.link.send(
            method,
            params,
            on_result,
            timeout=patience.timeout,
            ceiling=patience.ceiling,
            waited=waited,
            call=call,
        )

    def finished(
        self,
        call: Call,
        request: Request,
        pending: PendingRequest | None,
        failure: Exception | None,
        waited: float,
    ) -> Retry | None:
        """Handle the end of a request: release its slot, inform the breaker, or return a second attempt.

        Args:
            pending: the request; None if it could not be sent.
            failure: why it has no result; None if it has one.
            waited: seconds the call had spent before it.
        """
        if failure is None:
            if self.breaker.failed_in_row:
                self._note_answer()
        elif isinstance(failure, BackendError | RemoteError):
            spent = waited if pending is None else waited + self._clock.now() - pending.begun
            if not call.is_cancelled and self._may_repeat(failure, call, request, spent):
                return self._retry(failure, call, request, spent)
            self._note_failure(failure, request.link)
        self._end(request)
        return None

    def _end(self, request: Request) -> None:
        if request.is_unlisted:
            self._lister.refresh()
        if request.task is None:
            self.leave()
        else:
            self.beside -= 1
            self._note_idle()

    def _patience(self, method: str, params: dict[str, Payload]) -> Patience:
        if method == "tasks/result":
            return _TASK_RESULT
        return self._deadlines.of(method, params) if self._deadlines.special else self._deadlines.usual

    # --- slots ----------------------------------------------------------------------------------------------------

    async def wait_for_slot(self, call: Call, params: dict[str, Payload]) -> float:
        """Wait for a free slot and take it for the call; returns the seconds it waited.

        Args:
            params: those that will be sent.

        Raises:
            BackendOverloaded: the queue is full, or no slot was free within the call's timeout.
        """
        if self.running < self.most:  # one became free meanwhile
            self.running += 1
            return 0.0
        return await self.waiting.wait(call, self.longest_wait(call.method, params), self.running)

    def longest_wait(self, method: str, params: dict[str, Payload]) -> float:
        """Seconds that a call may wait before it is sent."""
        patience = self._patience(method, params)
        return min(patience.timeout, patience.ceiling)

    def leave(self) -> None:
        """Release the slot of a call."""
        self.running -= 1
        if self.waiting.size:
            self._admit()
        elif not self.running:
            self._note_idle()

    def _admit(self) -> None:
        while self.running < self.most and self.waiting.admit_next():
            self.running += 1
        self._note_idle()

    @property
    def is_busy(self) -> bool:
        """Whether any call is in flight or waits for a slot."""
        return self.running > 0 or self.waiting.size > 0 or self.beside > 0

    async def idle(self) -> None:
        """Wait until no call is in flight."""
        while self.is_busy:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def _note_idle(self) -> None:
        if not self.is_busy:
            self.used = self._clock.now()
            if self._idle is not None:
                self._idle.set_result(None)
                self._idle = None

    # --- second attempts ------------------------------------------------------------------------------------------

    def _may_repeat(self, failure: BackendError | RemoteError, call: Call, request: Request, spent: float) -> bool:
        """Whether a call that failed is sent again, within its timeout."""
        patience = self._patience(call.method, request.params)
        if call.attempts >= MAX_ATTEMPTS or spent >= min(patience.timeout, patience.ceiling):
            return False
        if isinstance(failure, RemoteError):
            is_tool = call.method == "tools/call" and request.link.era == "modern"
            return is_tool and failure.code == HEADER_MISMATCH and call.attempts == 1
        if isinstance(failure, SessionExpired):  # the backend did not process it
            return True
        if call.retries or self.breaker.is_shut:
            return False
        return may_repeat(failure, call.method, request.params, retry=self._server.retry, listing=self._lister.latest)

    def _retry(self, failure: BackendError | RemoteError, call: Call, request: Request, spent: float) -> Retry:
        if request.task is not None:
            self.beside -= 1
        if isinstance(failure, RemoteError):  # the tool requires other headers now (2026-07-28 streamable-http)
            return Retry(self, spent, relists=True)
        if isinstance(failure, SessionExpired):
            return Retry(self, spent)
        self.retries += 1
        extra = {"backend": failure.backend, "reason": failure.message}
        logger.info("retrying %s", call.method, extra=extra)
        return Retry(self, spent, pause=PAUSE)

    async def prepare(self, retry: Retry) -> None:
        """Do the work that the second attempt needs before it is sent."""
        if retry.relists:
            await self._lister.relist()
        if retry.pause:
            await self._clock.sleep(retry.pause)

    # --- the breaker ----------------------------------------------------------------------------------------------

    def require_admitted(self) -> None:
        """Check that the circuit breaker admits a call now. Changes nothing.

        Raises:
            BackendUnavailable: it does not.
        """
        breaker, now = self.breaker, self._clock.now()
        if not breaker.would_admit(now):
            left = breaker.left(now)
            reason = f"circuit breaker open: no answer to the last {breaker.failed_in_row} calls ({breaker.reason})"
            message = f"{reason}; next attempt in {left:.1f} s"
            since = self._opened.isoformat(timespec="seconds").replace("+00:00", "Z")
            raise BackendUnavailable(self._server.name, message, next_try=left, since=since, advice=SPARED)

    def _note_answer(self) -> None:
        was_shut = self.breaker.is_shut
        self.breaker.close()
        if was_shut:
            logger.info("circuit breaker closed: the backend answers calls again", extra={"backend": self._server.name})
            self._context.on_status(self._server.name)

    def _note_failure(self, failure: BackendError | RemoteError, link: Link) -> None:
        """Inform the breaker of a failed call, unless its link ended too, which `Life` handles."""
        if isinstance(failure, RemoteError | AnswerDropped) or (
            400 <= failure.status < 500 and failure.status != BUSY
        ):  # the backend answered, even if the answer was an error or exceeded the memory budget
            self._note_answer()
        elif not link.ended.done() and not isinstance(failure, BackendLost):
            was_shut = self.breaker.is_shut
            self.breaker.failed(self._clock.now(), failure.message)
            if self.breaker.is_shut and not was_shut:
                self._opened = self._clock.wall()
                extra = {"backend": self._server.name}
                logger.warning("circuit breaker open: %s", failure.message, extra=extra)
                self._context.on_status(self._server.name)
