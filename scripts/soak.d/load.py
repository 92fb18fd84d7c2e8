"""Calls at a rate, each with a text of its own, and what became of them. Knows no fault."""

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from client import LoadClient


@dataclass(slots=True)
class CallOutcome:
    """What became of the calls at one server."""

    served: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # errors that name the server, by reason
    strange: list[str] = field(default_factory=list)
    """Anything else: another caller's answer, an error that names nobody, a connection that broke."""
    seconds: list[float] = field(default_factory=list)  # how long the served ones took

    def p99(self, since: int = 0) -> float:
        """The time that 99 of 100 did not exceed, of the calls behind the first `since`."""
        found = sorted(self.seconds[since:])
        return found[int(len(found) * 0.99)] if found else 0.0


class CallLoad:
    """Calls to some servers in turn, `rate` a second in all, from a fixed number of clients."""

    def __init__(self, port: int, servers: list[str], *, rate: float, clients: int = 24) -> None:
        self.outcomes: dict[str, CallOutcome] = defaultdict(CallOutcome)
        self._port = port
        self._servers = itertools.cycle(servers)
        self._every = 1 / rate
        self._number = itertools.count()
        self._due = time.monotonic()
        self._is_over = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    async def end(self) -> None:
        """Stop, and wait for what is in flight."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        async with LoadClient(self._port) as client:
            while not self._is_over:
                due = self._due = max(self._due + self._every, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                server = next(self._servers)
                await note(self.outcomes[server], client, server, f"{server} {next(self._number)}")


async def note(outcome: CallOutcome, client: LoadClient, server: str, text: str) -> None:
    """One call, and what became of it."""
    began = time.perf_counter()
    try:
        answer = await client.call(f"{server}__echo", text=text)
    except (OSError, EOFError, TimeoutError) as exc:
        outcome.strange.append(f"{type(exc).__name__}: {exc}")
        return
    took = time.perf_counter() - began
    if "error" not in answer:
        heard = answer["result"]["content"][0]["text"]
        if heard == text:
            outcome.served += 1
            outcome.seconds.append(took)
        else:
            outcome.strange.append(f"said {text!r}, heard {heard[:80]!r}")
    elif named(answer, server):
        outcome.failed[answer["error"]["data"]["reason"]] += 1
    else:
        outcome.strange.append(f"{answer['error']}"[:200])


def named(answer: dict[str, Any], server: str) -> bool:
    """Whether it is an error that says which server it is about."""
    return bool(answer.get("error", {}).get("data", {}).get("server") == server)


async def fastest(port: int, servers: list[str], *, seconds: float, clients: int = 24) -> float:
    """Calls a second when every client calls again as soon as it was answered."""
    count, until = 0, time.monotonic() + seconds

    async def run(number: int) -> None:
        nonlocal count
        async with LoadClient(port) as client:
            for turn in itertools.count():
                if time.monotonic() >= until:
                    return
                server = servers[(number + turn) % len(servers)]
                await client.call(f"{server}__echo", text=f"{number} {turn}")
                count += 1

    await asyncio.gather(*(run(number) for number in range(clients)))
    return count / seconds
