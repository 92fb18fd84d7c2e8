"""Faults of every kind, one at a time, chosen by chance. Judges nothing."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping

from client import LoadClient
from manifold import FAULTS, Site, config_of

from tests.peers.backend import Fault, HttpBackend


class Trouble:
    """See the module. `made` counts what was done."""

    def __init__(self, site: Site, webs: Mapping[str, HttpBackend], victims: list[str], chance: random.Random) -> None:
        self.made: Counter[str] = Counter()
        self._site = site
        self._webs = webs
        self._pipes = [victim for victim in victims if victim not in webs]
        self._web = next(victim for victim in victims if victim in webs)
        self._chance = chance

    async def make(self) -> None:
        """One fault of a kind chosen by chance."""
        kinds = (
            self._kill, self._stop, self._ask, self._ask_web, self._restart_web, self._leave, self._crowd, self._reload,
        )  # fmt: skip
        kind = self._chance.choice(kinds)
        with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError, KeyError):
            await kind()

    async def _kill(self) -> None:
        number = self._chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV))
        os.kill(await self._site.pid_of(self._chance.choice(self._pipes)), number)
        self.made[number.name] += 1

    async def _stop(self) -> None:
        pid = await self._site.pid_of(self._chance.choice(self._pipes))
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(2)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.made["SIGSTOP and SIGCONT"] += 1

    async def _ask(self) -> None:
        kind = self._chance.choice(tuple(FAULTS))
        self.made[f"stdio: {kind}"] += 1
        await self._call(self._chance.choice(self._pipes), kind)

    async def _ask_web(self) -> None:
        kind, web = self._chance.choice(("forget", "status", "reset")), self._webs[self._web]
        self.made[f"HTTP: {kind}"] += 1
        if kind == "forget":
            web.forget_sessions()
        elif kind == "status":
            web.fail(Fault(500, b"as ordered", method="tools/call", times=5))
        else:
            await self._call(self._web, "reset")

    async def _call(self, server: str, tool: str) -> None:
        async with LoadClient(self._site.port) as client, asyncio.timeout(3):
            await client.call(f"{server}__{tool}")

    async def _restart_web(self) -> None:
        web = self._webs[self._web]
        await web.refuse()
        web.forget_sessions()
        await asyncio.sleep(self._chance.choice((0, 0.5, 2)))
        await web.listen()
        self.made["HTTP: stopped and started"] += 1

    async def _leave(self) -> None:
        """20 callers that leave in the middle of their calls."""
        clients = [LoadClient(self._site.port) for _ in range(20)]
        calls = [
            asyncio.create_task(client.call(f"{self._chance.choice([*self._pipes, self._web])}__slow", seconds=5))
            for client in clients
        ]
        await asyncio.sleep(0.3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self.made["20 callers left"] += 1

    async def _crowd(self) -> None:
        """100 connections on which nothing, or half a request, is said."""
        writers = []
        for number in range(100):
            _, writer = await asyncio.open_connection("127.0.0.1", self._site.port)
            writer.write(b"POST /mcp HTTP/1.1\r\nHost: x\r\n"[: number % 30])
            writers.append(writer)
        await asyncio.sleep(0.5)
        for writer in writers:
            writer.close()
        self.made["100 mute connections"] += 1

    async def _reload(self) -> None:
        self._site.program.write("{")
        await asyncio.sleep(1)
        self._site.program.replace(config_of(self._site.servers))
        self.made["bad file"] += 1
