"""The short way of a call: relayed in the turn it comes in, answered in the turn its result does; no task, no future.

Only for calls that need nothing but their backend: a tool that is listed, over a link that is open, whichever eras its
ends speak. Whatever must be waited for, asked or refused goes the long way, through the same stages, and so do a call
that is to be sent once more and a result that takes long. One that is parked is answered here, and goes on there.
"""

import asyncio
from functools import partial

from mcp_manifold.core.router import Direct, Router
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.errors import BackendError, CallCancelled, RemoteError
from mcp_manifold.model.call import Call, Handler, ResultCallback, Stages
from mcp_manifold.wire import Payload


class Lane:
    """See the module. Owns the tasks of calls that went on by the long way."""

    def __init__(self, router: Router, tasks: Tasks, stages: Stages, long: Handler) -> None:
        self._router = router
        self._tasks = tasks
        self._stages = stages
        self._long = long
        self._detours: set[asyncio.Task[Payload]] = set()

    def __repr__(self) -> str:
        return f"<Lane detours={len(self._detours)}>"

    def relay(self, call: Call, told: ResultCallback) -> bool:
        """Relay a call in this turn; `told` gets what came of it, once, and never before this returned.

        False, and nothing has happened, where the call has to go the long way.

        Raises:
            ManifoldError: a stage refuses it.
        """
        direct = self._router.direct(call)
        if direct is None:
            return False
        self._stages.begin(call)

        def over(result: Payload | None, failure: Exception | None) -> None:
            self._end(call, direct, result, failure, told)

        try:
            direct.backend.relay(direct.link, call, direct.params, over, lambda: self._detour(call, told))
        except BackendError:
            self._detour(call, told)
        return True

    def _end(
        self, call: Call, direct: Direct, result: Payload | None, failure: Exception | None, told: ResultCallback
    ) -> None:
        router = self._router
        try:
            if isinstance(failure, RemoteError):
                result = router.refused(call, direct.target, failure)
            if result is not None:
                if router.takes_long(call, result):
                    self._own(partial(self._arrived_long, direct, result), call, told)
                    return
                result, failure = self._tasks.arrived(call, router.arrived(call, result)), None
        except Exception as exc:  # noqa: BLE001  # a defect must not reach who reads from the backend
            result, failure = None, exc
        self._stages.end(call, result, failure)
        told(result, failure)

    async def _arrived_long(self, direct: Direct, result: Payload, call: Call) -> Payload:
        return self._tasks.arrived(call, await self._router.arrived_long(call, direct, result))

    def _finish(self, call: Call, result: Payload | None, failure: Exception | None, told: ResultCallback) -> None:
        self._stages.end(call, result, failure)
        told(result, failure)

    def _detour(self, call: Call, told: ResultCallback) -> None:
        self._own(self._long, call, told)

    def _own(self, handle: Handler, call: Call, told: ResultCallback) -> None:
        """Have a call answered in a task, which ends when the call is taken back."""
        task = asyncio.get_running_loop().create_task(_answer(handle, call), name="lane.detour")
        self._detours.add(task)
        task.add_done_callback(partial(self._answered, call, told))  # which hears as well of one that never began
        call.on_cancel(partial(_cancel, task))

    def _answered(self, call: Call, told: ResultCallback, task: "asyncio.Task[Payload]") -> None:
        self._detours.discard(task)
        call.on_cancel(None)
        failure = CallCancelled() if task.cancelled() else task.exception()
        if failure is None:
            self._finish(call, task.result(), None, told)
        else:
            self._finish(call, None, failure if isinstance(failure, Exception) else CallCancelled(), told)

    def close(self) -> None:
        """End what went on by the long way."""
        for task in self._detours:
            task.cancel()


async def _answer(handle: Handler, call: Call) -> Payload:
    return await handle(call)


def _cancel(task: "asyncio.Task[Payload]") -> None:
    task.cancel()
