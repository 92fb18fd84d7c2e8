"""A worker that sends requests in sequence, measures their latency and checks the answers, over any transport."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from benchmarks.loadgen.arrivals import Arrivals
from benchmarks.loadgen.job import Job, Tally
from benchmarks.loadgen.messages import Messages, wrong_call, wrong_list

_ENOUGH = 500  # errors after which a worker stops


@dataclass(frozen=True, slots=True)
class Load:
    """The state that all clients of a run share."""

    job: Job
    tally: Tally
    messages: Messages
    tools: Iterator[str]
    ids: Iterator[int]

    @classmethod
    def of(cls, job: Job) -> "Load":
        """The shared state of a job."""
        return cls(job, Tally(), Messages(job), itertools.cycle(job.tools), itertools.count(1))


class Lane(Protocol):
    """The transport of a worker's requests; it reports each answer through `answered`."""

    def emit(self, worker: "Worker", body: bytes, tool: str) -> None:
        """Send one request."""


class Worker:
    """Sends the next request when the last one is answered, or when it is due at a fixed rate."""

    def __init__(self, load: Load, lane: Lane, number: int) -> None:
        self.load = load
        self.id = 0
        self._lane = lane
        self._number = number
        self._token = b""
        self._started = 0
        self._left = -1
        self._until = 0
        self._arrivals: Arrivals | None = None
        self._seen = False
        self._over: asyncio.Future[None] | None = None

    def run(self, *, count: int = -1, until: int = 0, arrivals: Arrivals | None = None) -> "asyncio.Future[None]":
        """Send `count` requests, or until a time, or as they arrive."""
        self._left, self._until, self._arrivals = count, until, arrivals
        self._over = asyncio.get_running_loop().create_future()
        self._next()
        return self._over

    def answered(self, body: bytes, trouble: str = "") -> None:
        """Take an answer, or its definite absence."""
        job, tally = self.load.job, self.load.tally
        took = time.perf_counter_ns() - self._started
        if trouble:
            wrong = trouble
        elif job.operation == "call":
            wrong = wrong_call(job, body, self._token, thorough=not self._seen)
        else:
            wrong = wrong_list(job, body, tally, thorough=not self._seen)
        self._seen = True
        if wrong:
            tally.wrong(wrong, body)
        else:
            tally.answered(took)
        if tally.errors > _ENOUGH:
            self.end()
        else:
            self._next()

    def send(self, due: int) -> None:
        """Send a request whose latency counts from its due time."""
        self._started = due
        load = self.load
        self.id = next(load.ids)
        if load.job.operation == "call":
            tool = next(load.tools)
            self._token = b"t%05d-%010d." % (self._number, self.id)
            body = load.messages.call(self.id, tool, self._token)
        else:
            tool, body = "", load.messages.list(self.id)
        self._lane.emit(self, body, tool)

    def end(self) -> None:
        """Stop after the last answer."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _next(self) -> None:
        if self._arrivals is not None:
            self._arrivals.free(self)
            return
        now = time.perf_counter_ns()
        if self._left == 0 or (self._until and now >= self._until):
            self.end()
            return
        self._left -= 1
        self.send(now)
