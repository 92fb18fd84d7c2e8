"""How many calls of one backend run at a time, and who waits for how long. Whose turn it is, `turns` knows.

The usual case, with room for one more, costs its caller one comparison and one addition (see `Backend.request`): no
await, no task, no lock. Everything here that takes longer is for calls that have to wait.
"""

import asyncio
from dataclasses import dataclass, field

from mcp_manifold.backends.calls.fair_queue import FairQueue
from mcp_manifold.errors import BackendOverloaded, CallCancelled
from mcp_manifold.model.call import Call


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class _Waiting:
    """One call that waits."""

    principal: str
    session: str
    admitted: "asyncio.Future[None]" = field(default_factory=_future)


class ConcurrencyLimiter:
    """See the module. `running` are the calls let in, of at most `most`; who is let in calls `leave` once."""

    __slots__ = (
        "_awaited", "_backend", "_loop", "_queue", "_turns", "beside", "most", "overloaded", "running", "used",
        "waiting",
    )  # fmt: skip

    def __init__(self, backend: str, *, most: int, queue: int) -> None:
        self._backend = backend
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._turns: FairQueue[_Waiting] = FairQueue()
        self._awaited: asyncio.Future[None] | None = None
        self.most = most
        self.running = 0
        self.waiting = 0
        self.beside = 0
        """Requests on their way that need no turn."""
        self.used = 0.0
        """When the last call was over, by the loop's clock; 0 before the first."""
        self.overloaded = 0
        """Calls refused since there were too many."""

    def __repr__(self) -> str:
        return f"<ConcurrencyLimiter {self._backend} {self.running}/{self.most} waiting={self.waiting}/{self._queue}>"

    def adapt(self, *, most: int, queue: int) -> None:
        """Other limits hold from now on; who waits already goes on waiting."""
        self.most, self._queue = most, queue
        self._let_in()

    async def turn(self, call: Call, timeout: float) -> float:
        """Wait until a call may run; returns the seconds that took.

        Raises:
            BackendOverloaded: too many are waiting already, or it is not its turn within `timeout` seconds.
            CallCancelled: the caller took it back.
        """
        if self.running < self.most:  # a call that went first has left
            self.running += 1
            return 0.0
        begun = self._loop.time()
        waiting = self._joined(call)
        alarm = self._loop.call_later(timeout, self._expire, waiting, timeout)
        call.on_cancel(lambda: self._withdraw(waiting, CallCancelled("the caller cancelled the request")))
        try:
            await waiting.admitted
        except BaseException:
            self._forget(waiting)
            raise
        finally:
            alarm.cancel()
            call.on_cancel(None)
        return self._loop.time() - begun

    def leave(self) -> None:
        """A call that was let in is over."""
        self.running -= 1
        if self.waiting:
            self._let_in()
        elif not self.running:
            self.look()

    def look(self) -> None:
        """If nothing is on its way any more, remember when that was, and tell who waits for it."""
        if not self.is_busy:
            self.used = self._loop.time()
            if self._awaited is not None:
                self._awaited.set_result(None)
                self._awaited = None

    @property
    def is_busy(self) -> bool:
        """Whether anything is on its way."""
        return self.running > 0 or self.waiting > 0 or self.beside > 0

    async def idle(self) -> None:
        """Wait until nothing is on its way."""
        while self.is_busy:
            if self._awaited is None:
                self._awaited = self._loop.create_future()
            await asyncio.shield(self._awaited)

    def _joined(self, call: Call) -> _Waiting:
        principal, session = call.session.principal.key, call.session.key
        if self.waiting >= self._queue:
            self.overloaded += 1
            displaced = self._turns.displaced(principal, session)
            if displaced is None:
                raise self._full("too many calls are waiting for it already")
            self.waiting -= 1
            if not displaced.admitted.done():  # else its task was cancelled in this very turn of the loop
                displaced.admitted.set_exception(self._full("the call had to give way to those of other clients"))
        waiting = _Waiting(principal, session)
        self._turns.join(principal, session, waiting)
        self.waiting += 1
        return waiting

    def _let_in(self) -> None:
        while self.waiting and self.running < self.most:
            waiting = self._turns.next()
            self.waiting -= 1
            if not waiting.admitted.done():  # else its task was cancelled in this very turn of the loop
                self.running += 1
                waiting.admitted.set_result(None)
        self.look()

    def _expire(self, waiting: _Waiting, timeout: float) -> None:
        if not waiting.admitted.done():
            self.overloaded += 1
            self._withdraw(waiting, self._full(f"it was not the call's turn within {timeout:g} s"))

    def _withdraw(self, waiting: _Waiting, exc: CallCancelled | BackendOverloaded) -> None:
        """It waits no longer: its caller gets `exc`."""
        if not waiting.admitted.done():
            self._drop(waiting)
            waiting.admitted.set_exception(exc)

    def _forget(self, waiting: _Waiting) -> None:
        """Its caller waits no longer, whatever the reason. If it was let in just then, the next one is instead."""
        if waiting.admitted.cancelled():
            self._drop(waiting)
        elif waiting.admitted.exception() is None:
            self.leave()

    def _drop(self, waiting: _Waiting) -> None:
        if self._turns.leave(waiting.principal, waiting.session, waiting):
            self.waiting -= 1
            self.look()

    def _full(self, why: str) -> BackendOverloaded:
        return BackendOverloaded(self._backend, why, running=self.running, waiting=self.waiting)
