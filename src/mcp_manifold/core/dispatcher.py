"""The path of every call: plans it, acts on the plan, finishes the outcome. Owns the calls in flight.

Theory. Each call is an InFlightCall, and its next step is a value (`plan`). A Send acts in the same turn of the event
loop, without a task. A Wait runs in a task, after which the call is planned again. `Results` finishes each outcome, and
the call's Reply answers it in the turn it arrives in. A call ends exactly once: by its answer, its failure or its
cancellation.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from mcp_manifold.backends.calls.executor import RequestExecutor
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.clock import Clock, wait_all
from mcp_manifold.core.bridge import Parked
from mcp_manifold.core.plan import Answer, Changes, Facts, Fail, Level, Send, Slot, Wait, plan
from mcp_manifold.core.results import Results
from mcp_manifold.errors import BackendError, CallCancelled, RemoteError
from mcp_manifold.model.call import Call, Stage
from mcp_manifold.wire import Payload, Pieces

logger = logging.getLogger(__name__)

MAX_PLANS: Final = 64
"""Plans made for one call; without this bound, one whose link is lost after every wait would never end."""
CLOSE_WAIT: Final = 2.0
"""Seconds cancelled calls may take to clean up when everything stops."""


class Dispatcher:
    """Plans, sends and finishes every call.

    Args:
        stages: observe every call, the outermost first: it sees a call begin first and end last.
        lower_level: lowers the log level of a link that was raised for a call.
        end: ends a subscription, with its result.
    """

    def __init__(
        self,
        facts: Facts,
        results: Results,
        stages: Sequence[Stage],
        *,
        clock: Clock,
        lower_level: Callable[[object, str], None],
        end: Callable[[Call], None],
    ) -> None:
        self.facts = facts
        self.results = results
        self.lower_level = lower_level
        self.end = end
        self.stopwatch = clock.stopwatch
        self._clock = clock
        self._stages = tuple(stages)
        self.adapt()
        self.tasks: set[asyncio.Task[Payload | Changes | None]] = set()
        """The waits of calls in flight."""
        self.spawn = asyncio.get_running_loop().create_task

    def __repr__(self) -> str:
        names = ", ".join(type(stage).__name__ for stage in self._stages)
        return f"<Dispatcher stages=({names}) waiting={len(self.tasks)}>"

    def adapt(self) -> None:
        """Use the stages that are active under the current settings. Calls in flight keep theirs."""
        active = [stage for stage in self._stages if stage.is_active]
        self.began = tuple(stage.began for stage in active)
        self.ended = tuple(stage.ended for stage in reversed(active))

    def dispatch(self, call: Call) -> "InFlightCall":
        """Begin a call. Its reply gets the answer once, possibly before this returns. Raises nothing."""
        in_flight = InFlightCall(call, self)
        in_flight.begin()
        return in_flight

    async def aclose(self) -> None:
        """Cancel every wait, and give the calls up to `CLOSE_WAIT` seconds to clean up."""
        for task in self.tasks:
            task.cancel()
        await wait_all(self._clock, tuple(self.tasks), seconds=CLOSE_WAIT)


class InFlightCall:
    """One call between its request and its answer."""

    __slots__ = (
        "_began", "_dispatcher", "_ended", "_expects", "_pending", "_plans", "_send", "_task", "_waited", "call",
    )  # fmt: skip

    def __init__(self, call: Call, dispatcher: Dispatcher) -> None:
        self.call = call
        self._dispatcher = dispatcher
        self._began = dispatcher.stopwatch()
        self._ended = dispatcher.ended
        """The callbacks of the stages that saw it begin."""
        self._send: Send | None = None
        """The last Send."""
        self._pending: PendingRequest | None = None
        """The request in flight."""
        self._task: asyncio.Task[Payload | Changes | None] | None = None
        """The current wait; there is no pending request at the same time."""
        self._waited = 0.0
        """Seconds spent before the next request, which count towards its timeout."""
        self._plans = 0
        self._expects = ""
        """The backend from which a task is expected; empty for none."""

    def __repr__(self) -> str:
        at = "waiting" if self._task is not None else "sent" if self._pending is not None else "planning"
        return f"<InFlightCall {self.call!r} {at}>"

    def begin(self) -> None:
        """Announce the call to the stages, and take the first step."""
        call, seen = self.call, 0
        try:
            for began in self._dispatcher.began:
                began(call)
                seen += 1
        except Exception as exc:  # noqa: BLE001  # refused; a defect of a stage costs this call an error, and nothing else
            self._ended = self._ended[len(self._ended) - seen :]  # the others did not see it begin
            self._complete(None, exc)
            return
        self._advance()

    def cancel(self) -> None:
        """End the call without a result, unless it has ended already."""
        call = self.call
        if call.is_done or call.is_cancelled:
            return
        call.is_cancelled = True
        if self._task is not None:
            self._task.cancel("the caller cancelled the request")
        elif self._pending is not None:
            assert self._send is not None, "only what was sent is pending"
            self._send.link.abandon(self._pending, CallCancelled("the caller cancelled the request"))

    def end(self) -> None:
        """End a subscription now, with its result. Do nothing for other calls."""
        self.call.is_ending = True
        self._dispatcher.end(self.call)

    # --- steps ----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Plan the call and act on the plan."""
        call, facts = self.call, self._dispatcher.facts
        self._plans += 1
        try:
            if self._plans > MAX_PLANS:
                raise BackendError(call.backend, "the call could not be sent: its connection was lost every time")
            scope = call.session.scope
            step = plan(call, facts.hub.views.get(scope) or facts.hub.view(scope), facts)
            match step:
                case Send():
                    self._sent(step)
                case Answer():
                    self._complete(step.work(), None)
                case Wait():
                    self._wait(step)
                case Fail():
                    self._complete(None, step.failure)
        except Exception as exc:  # noqa: BLE001  # a defect costs this call an error, and nothing else
            self._complete(None, exc)

    def _sent(self, send: Send) -> None:
        """Send the call to its backend, or resume its parked call."""
        call, executor, facts = self.call, send.backend.executor, self._dispatcher.facts
        self._send = send
        call.backend, call.backend_era = send.backend.name, send.link.era
        call.attempts += 1
        if send.creates_task and not self._expects:
            self._expects = call.backend
            facts.tasks.expect(call.backend)
        slot, call.slot = call.slot, None
        try:
            if isinstance(send.parked, Parked):
                self._pending = facts.bridge.resume(send.parked, call, self._on_result)
                return
            if send.parked is not None:
                facts.bridge.consume(send.parked)
            has_slot = slot is executor or _left(slot)
            self._pending = executor.send(call, send, self._on_result, waited=self._waited, has_slot=has_slot)
        except Exception as exc:  # noqa: BLE001  # certainly not sent; a defect costs this call an error, and nothing else
            self._on_outcome(None, exc)

    def _wait(self, wait: Wait) -> None:
        """Run a wait in a task, and plan again after it."""
        dispatcher = self._dispatcher
        self._task = task = dispatcher.spawn(self._awaited(wait), name=f"call {self.call.method[:40]}: {wait.why}")
        dispatcher.tasks.add(task)
        task.add_done_callback(self._on_waited)  # which is also called for a task that never began

    async def _awaited(self, wait: Wait) -> Payload | Changes | None:
        """Run what a wait names."""
        call, work = self.call, wait.work
        if isinstance(work, Slot):
            return Changes(waited=await work.executor.wait_for_slot(call, work.params), slot=work.executor)
        if isinstance(work, Level):
            await self._dispatcher.facts.raise_level(work.link, call.session.log_level)
            return Changes(level=work.link)
        return await work()

    def _on_waited(self, task: "asyncio.Task[Payload | Changes | None]") -> None:
        self._dispatcher.tasks.discard(task)
        self._task = None
        if task.cancelled():
            self._complete(None, CallCancelled("the caller cancelled the request"))
            return
        failure = task.exception()
        if failure is not None:
            self._complete(None, failure if isinstance(failure, Exception) else CallCancelled())
            return
        found = task.result()
        if isinstance(found, Changes):
            self._apply(found)
        if self.call.is_cancelled:
            self._complete(None, CallCancelled("the caller cancelled the request"))
        elif found is None or isinstance(found, Changes):
            self._advance()
        else:
            self._complete(found, None)

    def _apply(self, changes: Changes) -> None:
        call = self.call
        self._waited += changes.waited
        if changes.slot is not None:
            call.slot = changes.slot
        if changes.level is not None:
            self._lower_level()
            call.level = changes.level
        if changes.params is not None:
            call.params, call.attempts = changes.params, 0
            call.rounds += 1
            self._waited = 0.0

    # --- outcomes -------------------------------------------------------------------------------------------------

    def _on_result(self, pending: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
        """Handle the outcome of the request in flight."""
        self._pending = pending
        self._on_outcome(result, failure)

    def _on_outcome(self, result: Payload | None, failure: Exception | None) -> None:
        call, send, pending = self.call, self._send, self._pending
        assert send is not None, "only what was sent has an outcome"
        self._pending = None
        try:
            if not isinstance(send.parked, Parked):
                executor = send.backend.executor
                retry = executor.finished(call, send, pending, failure, self._waited)
                if retry is not None:
                    call.slot = executor if send.task is None else None
                    self._waited = retry.waited
                    call.retries += retry.pause > 0
                    self._wait(Wait("retry", retry.prepare))
                    return
            finished = self._dispatcher.results.finish(call, send, pending, result, failure)
        except Exception as exc:  # noqa: BLE001  # a defect must not reach the backend's reader
            self._complete(None, exc)
            return
        if isinstance(finished, Wait):
            self._wait(finished)
        elif isinstance(finished, Exception):
            self._complete(None, finished)
        else:
            self._complete(finished, None)

    def _complete(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        """End the call: release its slot and log level, call the stages that saw it begin, and answer."""
        call, dispatcher = self.call, self._dispatcher
        if call.is_done:
            return
        call.is_done = True
        if isinstance(failure, BackendError | RemoteError) and not call.backend:
            call.backend = failure.backend
        seen = Payload(result[0]) if isinstance(result, tuple) else result
        try:  # this may run in the backend's reader, which a defect must not reach
            if call.slot is not None:
                _left(call.slot)
            if call.level is not None:
                self._lower_level()
            if self._expects:
                dispatcher.facts.tasks.expected(self._expects)
            call.seconds = dispatcher.stopwatch() - self._began
            for ended in self._ended:
                ended(call, seen, failure)
        except Exception:
            logger.exception("ending a call failed", extra={"backend": call.backend})
        try:
            call.reply.respond(result, failure)
        except Exception:
            logger.exception("answering a call failed", extra={"backend": call.backend})

    def _lower_level(self) -> None:
        if self.call.level is not None:
            self._dispatcher.lower_level(self.call.level, self.call.session.log_level)
            self.call.level = None


def _left(slot: object) -> bool:
    """Release a slot that the call does not use; always False."""
    if isinstance(slot, RequestExecutor):
        slot.leave()
    return False
