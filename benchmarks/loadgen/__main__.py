"""The load generator's process. `argv[1]` is a Job as JSON; stdin and stdout carry one message a line.

It writes `{"ready": ...}` once every client is connected and warm. A line on stdin starts the measured time, and
`{"result": ...}` ends it. Another line ends the process. `{"failed": ...}` may replace either message.
"""

import asyncio
import gc
import json
import os
import resource
import sys
import time
from typing import Any, Final

import uvloop

from benchmarks.loadgen.arrivals import Arrivals
from benchmarks.loadgen.http_client import HttpClient
from benchmarks.loadgen.job import Job
from benchmarks.loadgen.stdio_client import StdioClient
from benchmarks.loadgen.worker import Load, Worker
from benchmarks.servers.allocator import keep_large_blocks

_AT_ONCE: Final = 16  # clients that connect concurrently
_WARM_UP: Final = 1.0


async def _connected(load: Load) -> list[HttpClient | StdioClient]:
    if load.job.transport == "stdio":
        child = StdioClient(load)
        await child.open()
        return [child]
    clients = [HttpClient(load, number) for number in range(load.job.clients)]
    for first in range(0, len(clients), _AT_ONCE):
        await asyncio.gather(*(client.open() for client in clients[first : first + _AT_ONCE]))
    return [*clients]


async def _run(load: Load, workers: list[Worker], seconds: float, count: int = -1, rate: float = 0) -> None:
    """Run all workers until a time, at full speed or at a rate."""
    until = time.perf_counter_ns() + int(seconds * 1e9) if seconds else 0
    arrivals = Arrivals(rate, until) if rate else None
    runs = [worker.run(count=count, until=until, arrivals=arrivals) for worker in workers]
    _, late = await asyncio.wait(runs, timeout=seconds + load.job.timeout)
    for _ in late:
        load.tally.wrong("no answer in time")


async def _warm(load: Load, workers: list[Worker]) -> float:
    """Send uncounted calls; returns the seconds until every worker had its first answer."""
    job = load.job
    if job.operation == "none" or not job.warm_up:
        return 0.0
    begun = time.perf_counter()
    await _run(load, workers, 0, count=1)
    first = time.perf_counter() - begun
    if job.warm_up > 1:
        await _run(load, workers, _WARM_UP, count=job.warm_up - 1)
    if load.tally.errors:
        raise RuntimeError(f"{load.tally.errors} wrong answers while warming up: {load.tally.samples}")
    return first


async def _measured(load: Load, workers: list[Worker]) -> dict[str, Any]:
    if load.job.operation == "none":
        return {}
    load.tally.is_measuring = True
    gc.collect()
    gc.disable()  # pauses of this process must not count as the peer's; it creates hardly any reference cycles
    cpu, begun = _cpu(), time.perf_counter()
    await _run(load, workers, load.job.seconds, rate=load.job.rate)
    return load.tally.result(time.perf_counter() - begun, _cpu() - cpu)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    job = Job.of(json.loads(sys.argv[1]))
    if job.cpus:
        os.sched_setaffinity(0, set(job.cpus))
    load = Load.of(job)
    told = asyncio.StreamReader()
    reading = asyncio.StreamReaderProtocol(told)
    await asyncio.get_running_loop().connect_read_pipe(lambda: reading, sys.stdin)
    try:
        begun = time.perf_counter()
        clients = await _connected(load)
        workers = [worker for client in clients for worker in client.workers]
        connect = time.perf_counter() - begun
        first = await _warm(load, workers)
    except (OSError, RuntimeError, TimeoutError) as exc:
        _say(failed=f"{type(exc).__name__}: {exc}")
        return
    pid = clients[0].pid if isinstance(clients[0], StdioClient) else 0
    _say(ready={"connect_s": connect, "first_s": first, "pid": pid})
    await told.readline()
    _say(result=await _measured(load, workers))
    await told.readline()
    if job.transport == "stdio" or job.ends_sessions:
        await asyncio.gather(*(client.close() for client in clients))


if __name__ == "__main__":
    keep_large_blocks()
    uvloop.run(main())
    os._exit(0)  # skip closing thousands of connections one by one
