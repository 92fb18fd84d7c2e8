"""The job a client program is given and the report it answers with; knows no SDK, each program brings a `SdkClient`.

A job is a JSON file: `target`, `era`, `roots`, `deadline` and `parts`, each part the steps for one backend with the
prefixes its names carry here. The report goes to stdout as one JSON object, the same shape from every client.
"""

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import anyio

SAMPLED = "a sampled sentence"
ANSWERS = {"name": "Ada", "check": True, "integer": 7}
KINDS = ("tools", "resources", "templates", "prompts")
NOT_UPDATED = 12  # seconds; everything's own pace is one update in five

Progress = Callable[[float, float | None], Awaitable[None]]
Outcome = dict[str, Any]


class SdkClient(Protocol):
    """What a client program makes of its SDK: an open session with one server."""

    def about(self) -> Outcome: ...
    async def listed(self, kind: str) -> list[Outcome]: ...
    async def call(self, tool: str, arguments: Outcome, progress: Progress | None) -> Outcome: ...
    async def abandoned(self) -> None: ...
    async def read(self, uri: str) -> Outcome: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> Outcome: ...
    async def complete(self, ref: Outcome, argument: Outcome, context: dict[str, str] | None) -> Outcome: ...
    def watching(self, uri: str, seen: Callable[[str], None]) -> AbstractAsyncContextManager[None]: ...


def failure(error: BaseException) -> Outcome:
    """Write an exception down: a JSON-RPC error with its code and data, anything else by its class."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return failure(error.exceptions[0])
    wire = getattr(error, "error", None)
    if wire is not None and hasattr(wire, "code"):
        return {"error": {"code": wire.code, "message": wire.message, "data": wire.data}}
    return {"failed": type(error).__name__, "message": str(error)}


class Steps:
    """Runs the steps of one part; holds the peer, the part's prefixes and nothing else."""

    def __init__(self, peer: SdkClient, part: Outcome) -> None:
        self._peer = peer
        self._prefix: str = part["prefix"]
        self._uri_prefix: str = part["uri_prefix"]

    async def run(self, step: Outcome) -> Outcome:
        """Do one step; what goes wrong is an outcome too."""
        try:
            outcome: Outcome = await getattr(self, "_" + step["do"])(step)
        except Exception as error:  # noqa: BLE001  # every failure of the peer is what this program reports
            return failure(error)
        return outcome

    async def _call(self, step: Outcome) -> Outcome:
        ticks: list[list[float | None]] = []

        async def tick(progress: float, total: float | None) -> None:
            ticks.append([progress, total])

        asked = step.get("progress", False)
        result = await self._peer.call(self._prefix + step["tool"], step["arguments"], tick if asked else None)
        return {"result": result, "progress": ticks} if asked else {"result": result}

    async def _cancel(self, step: Outcome) -> Outcome:
        begun = anyio.Event()

        async def tick(_progress: float, _total: float | None) -> None:
            begun.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._peer.call, self._prefix + step["tool"], step["arguments"], tick)
            await begun.wait()
            tasks.cancel_scope.cancel()
        await self._peer.abandoned()
        return {"cancelled": True}

    async def _read(self, step: Outcome) -> Outcome:
        return {"result": await self._peer.read(self._uri_prefix + step["uri"])}

    async def _prompt(self, step: Outcome) -> Outcome:
        return {"result": await self._peer.prompt(self._prefix + step["prompt"], step["arguments"])}

    async def _complete(self, step: Outcome) -> Outcome:
        ref = dict(step["ref"])
        if "name" in ref:
            ref["name"] = self._prefix + ref["name"]
        else:
            ref["uri"] = self._uri_prefix + ref["uri"]
        return {"result": await self._peer.complete(ref, step["argument"], step.get("context"))}

    async def _watch(self, step: Outcome) -> Outcome:
        """Subscribe to a resource, have it changed by a tool, wait for the news, stop the changes again."""
        uri, updated = self._uri_prefix + step["uri"], anyio.Event()

        def seen(changed: str) -> None:
            if changed == uri:
                updated.set()

        async with self._peer.watching(uri, seen):
            await self._peer.call(self._prefix + step["tool"], step["arguments"], None)
            with anyio.move_on_after(NOT_UPDATED):
                await updated.wait()
            if "stop" in step:
                await self._peer.call(self._prefix + step["stop"], step["arguments"], None)
        return {"updated": updated.is_set()}


async def listings(peer: SdkClient, deadline: float) -> Outcome:
    """All lists the server declares, by kind; a list that fails is its failure."""
    found: Outcome = {}
    for kind in KINDS:
        try:
            with anyio.fail_after(deadline):
                found[kind] = await peer.listed(kind)
        except Exception as error:  # noqa: BLE001  # as above: it is reported
            found[kind] = failure(error)
    return found


async def work(peer: SdkClient, job: Outcome) -> Outcome:
    """Everything the job asks for, step by step."""
    report: Outcome = {**peer.about(), **await listings(peer, job["deadline"]), "parts": {}}
    for part in job["parts"]:
        steps, outcomes = Steps(peer, part), report["parts"].setdefault(part["backend"], {})
        for step in part["steps"]:
            outcomes[step["id"]] = {"failed": "Timeout", "message": f"nothing within {job['deadline']} s"}
            with anyio.move_on_after(job["deadline"]):
                outcomes[step["id"]] = await steps.run(step)
    return report


def main(session: Callable[[Outcome], AbstractAsyncContextManager[SdkClient]]) -> None:
    """Read the job named on the command line, do it, print the report."""
    job: Outcome = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    async def everything() -> Outcome:
        report: Outcome | None = None
        try:
            async with session(job) as peer:
                report = await work(peer, job)
        except Exception as error:  # noqa: BLE001  # not connecting, or not closing, is a result as well
            if report is None:
                return {"parts": {}, "trouble": failure(error)}
            report["closing"] = failure(error)  # all was done by then: some SDKs trip over a late message
        return report

    json.dump(anyio.run(everything), sys.stdout)
