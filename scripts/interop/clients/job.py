"""The job of a client program, its report, and the calls that both Python SDKs share; each program adds the rest.

A job is a JSON file: `target`, `era`, `roots`, `deadline` and `parts`, each part the steps for one backend with the
prefixes its names carry here. The report goes to stdout as one JSON object, the same shape from every client.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio

SAMPLED = "a sampled sentence"
ANSWERS = {"name": "Ada", "check": True, "integer": 7}
KINDS = ("tools", "resources", "templates", "prompts")
NOT_UPDATED = 12  # seconds; everything's own pace is one update in five

Progress = Callable[[float, float | None], Awaitable[None]]
Outcome = dict[str, Any]


class Peer(Protocol):
    """An open session with one server."""

    def about(self) -> Outcome: ...
    async def listed(self, kind: str) -> list[Outcome]: ...
    async def call(self, tool: str, arguments: Outcome, progress: Progress | None) -> Outcome: ...
    async def abandoned(self) -> None: ...
    async def read(self, uri: str) -> Outcome: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> Outcome: ...
    async def complete(self, ref: Outcome, argument: Outcome, context: dict[str, str] | None) -> Outcome: ...
    def watching(self, uri: str, seen: Callable[[str], None]) -> AbstractAsyncContextManager[None]: ...


def plain(model: Any) -> Outcome:
    """A model as the JSON it stands for."""
    outcome: Outcome = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return outcome


class SdkPeer:
    """What both SDKs have in common; a subclass adds `about`, `abandoned`, `page`, and how URIs are written."""

    def __init__(self, types: Any) -> None:
        self.client: Any = None
        self._types = types
        self._seen: Callable[[str], None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'open' if self.client else 'new'})"

    def capabilities(self) -> Any:
        """What the server declared."""
        raise NotImplementedError

    async def page(self, method: str, cursor: str | None) -> tuple[Any, str | None]:
        """One page of a list, and the cursor of the next."""
        raise NotImplementedError

    def uri(self, text: str) -> Any:
        """A URI as the SDK takes it."""
        return text

    async def listed(self, kind: str) -> list[Outcome]:
        if getattr(self.capabilities(), kind.replace("templates", "resources")) is None:
            return []
        found: list[Outcome] = []
        cursor: str | None = None
        while True:
            items, cursor = await self.page(kind.replace("templates", "resource_templates"), cursor)
            found += [plain(item) for item in items]
            if cursor is None:
                return found

    async def call(self, tool: str, arguments: Outcome, progress: Progress | None) -> Outcome:
        async def tick(done: float, total: float | None, _message: str | None) -> None:
            if progress is not None:
                await progress(done, total)

        return plain(await self.client.call_tool(tool, arguments, progress_callback=tick if progress else None))

    async def read(self, uri: str) -> Outcome:
        return plain(await self.client.read_resource(self.uri(uri)))

    async def prompt(self, name: str, arguments: dict[str, str]) -> Outcome:
        return plain(await self.client.get_prompt(name, arguments))

    async def complete(self, ref: Outcome, argument: Outcome, context: dict[str, str] | None) -> Outcome:
        kinds = {"ref/prompt": self._types.PromptReference, "ref/resource": self._types.ResourceTemplateReference}
        return plain(await self.client.complete(kinds[ref["type"]].model_validate(ref), argument, context))

    @asynccontextmanager
    async def watching(self, uri: str, seen: Callable[[str], None]) -> AsyncIterator[None]:
        self._seen = seen
        await self.client.subscribe_resource(self.uri(uri))
        yield
        await self.client.unsubscribe_resource(self.uri(uri))

    def callbacks(self, job: Outcome) -> dict[str, Any]:
        """The arguments of a client that answers what servers ask, and reports updates to `watching`."""
        types = self._types

        async def sampled(*_: Any) -> Any:
            content = {"type": "text", "text": SAMPLED}
            result = {"role": "assistant", "content": content, "model": "fixed", "stopReason": "endTurn"}
            return types.CreateMessageResult.model_validate(result)

        async def elicited(*_: Any) -> Any:
            return types.ElicitResult(action="accept", content=dict(ANSWERS))

        async def rooted(_context: Any) -> Any:
            return types.ListRootsResult(roots=[types.Root.model_validate(root) for root in job["roots"]])

        async def noticed(message: Any) -> None:
            notice = getattr(message, "root", message)
            if isinstance(notice, types.ResourceUpdatedNotification) and self._seen:
                self._seen(str(notice.params.uri))

        return {
            "sampling_callback": sampled,
            "elicitation_callback": elicited,
            "list_roots_callback": rooted,
            "message_handler": noticed,
        }


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

    def __init__(self, peer: Peer, part: Outcome) -> None:
        self._peer = peer
        self._prefix: str = part["prefix"]
        self._uri_prefix: str = part["uri_prefix"]

    def __repr__(self) -> str:
        return f"Steps(prefix={self._prefix!r}, uri_prefix={self._uri_prefix!r})"

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


async def listings(peer: Peer, deadline: float) -> Outcome:
    """All lists the server declares, by kind; a list that fails is its failure."""
    found: Outcome = {}
    for kind in KINDS:
        try:
            with anyio.fail_after(deadline):
                found[kind] = await peer.listed(kind)
        except Exception as error:  # noqa: BLE001  # as above: it is reported
            found[kind] = failure(error)
    return found


async def work(peer: Peer, job: Outcome) -> Outcome:
    """Everything the job asks for, step by step."""
    report: Outcome = {**peer.about(), **await listings(peer, job["deadline"]), "parts": {}}
    for part in job["parts"]:
        steps, outcomes = Steps(peer, part), report["parts"].setdefault(part["backend"], {})
        for step in part["steps"]:
            outcomes[step["id"]] = {"failed": "Timeout", "message": f"nothing within {job['deadline']} s"}
            with anyio.move_on_after(job["deadline"]):
                outcomes[step["id"]] = await steps.run(step)
    return report


def main(session: Callable[[Outcome], AbstractAsyncContextManager[Peer]]) -> None:
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
