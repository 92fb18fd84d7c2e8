"""Calls being answered: how one is taken back, and how its outcome becomes a message. Knows no transport.

This is a front boundary: whatever the code behind it raises, the client gets one well-formed answer.
"""

import asyncio
import logging
from typing import Final

from mcp_manifold.errors import CallCancelled, ManifoldError
from mcp_manifold.model.call import Call, Handler
from mcp_manifold.wire import Payload, encode, error_of, failure, http_status, response
from mcp_manifold.wire.protocol import REQUEST_CANCELLED

_logger = logging.getLogger("mcp_manifold.fronts.in_flight")
_GRACE: Final = 1.0
"""Seconds a call that was taken back may wind down; without it a handler that never looks would hold its task."""
_CANCELLED: Final = encode({"code": REQUEST_CANCELLED, "message": "Request cancelled"})


class Deadline:
    """Cancels a task when its time is over, and knows afterwards that it was this and not somebody else."""

    __slots__ = ("_handle", "_task", "expired")

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self._task = task
        self._handle: asyncio.TimerHandle | None = None
        self.expired = False

    def __repr__(self) -> str:
        return f"<Deadline {'expired' if self.expired else 'armed' if self._handle else 'idle'}>"

    def arm(self, seconds: float) -> None:
        """Let the time run."""
        self._handle = asyncio.get_running_loop().call_later(seconds, self._expire)

    def disarm(self) -> None:
        """The task got there in time."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def forgive(self) -> bool:
        """Whether a cancellation just caught was this one's; if so the task may go on."""
        if self.expired:
            self._task.uncancel()
        return self.expired

    def _expire(self) -> None:
        self._handle = None
        self.expired = True
        self._task.cancel()


class Flight:
    """A call, and the task that answers it (set once it is known)."""

    __slots__ = ("_deadline", "call", "done", "failed", "task")

    def __init__(self, call: Call, task: "asyncio.Task[object] | None") -> None:
        self.call = call
        self.task = task
        self.done = False
        self.failed = False
        self._deadline: Deadline | None = None

    def __repr__(self) -> str:
        state = "done" if self.done else "taken back" if self.call.cancelled else "flying"
        return f"<Flight {self.call.method} {state}>"

    def take_back(self) -> None:
        """The caller does not want the answer any more: tell whoever works on it, and insist after a grace."""
        if self.done or self.call.cancelled:
            return
        if self.task is not None:
            self._deadline = Deadline(self.task)
            self._deadline.arm(_GRACE)
        self.call.cancel()

    def land(self) -> None:
        """The call is over: nothing can be taken back any more."""
        self.done = True
        if self._deadline is not None:
            self._deadline.disarm()

    def was_forced(self) -> bool:
        """Whether the cancellation just caught came from `take_back`."""
        return self._deadline is not None and self._deadline.forgive()


async def answered(handle: Handler, flight: Flight, id_: Payload) -> tuple[bytes, int]:
    """Run the call; returns the response message, whatever happens, and the HTTP status its era gives it.

    Raises:
        asyncio.CancelledError: the task itself is being stopped; the call was cancelled with it.
    """
    call = flight.call
    try:
        if call.cancelled:  # before it began: nothing must be done for it any more
            return concluded(flight, id_, None, CallCancelled())
        return concluded(flight, id_, await handle(call), None)
    except asyncio.CancelledError:
        if not flight.was_forced():
            call.cancel()
            raise
        return concluded(flight, id_, None, CallCancelled())
    except Exception as exc:  # noqa: BLE001  # the front boundary: a defect must cost its caller an error, nobody more
        return concluded(flight, id_, None, exc)
    finally:
        flight.land()


def concluded(flight: Flight, id_: Payload, result: Payload | None, reason: Exception | None) -> tuple[bytes, int]:
    """The response message of a call that ended so, and the HTTP status its era gives it."""
    call = flight.call
    flight.land()
    if result is not None and not call.cancelled:
        return response(id_, result), 200
    flight.failed = True
    if reason is None or isinstance(reason, CallCancelled):
        error = _CANCELLED
    else:
        if not isinstance(reason, ManifoldError):
            defect = {"method": call.method, "backend": call.backend}
            _logger.error("call failed unexpectedly", exc_info=reason, extra=defect)
        error = error_of(reason, call.session.era, method=call.method)
    return failure(id_, error), http_status(error) if call.session.era == "modern" else 200
