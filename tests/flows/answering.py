"""Plays the scenarios of one house over one front, and notes what its client and its servers see.

A house is an object of `answers/*.json`: servers, settings and scenarios. A scenario is a list of steps, which
`House.step` tells apart by their first key. Only public entry points are used: sockets, stdin, stdout, `Manifold`.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from inspect import isawaitable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvicorn

from mcp_manifold import Manifold, ManifoldError
from tests.contract.asking import asking
from tests.contract.offers import offering
from tests.contract.stand import ERAS, Stand, standing
from tests.flows.answer_clients import (
    BOUND,
    HttpConversation,
    SseConversation,
    StdioConversation,
    compact,
    is_request,
    noted,
    reply_to,
)
from tests.peers.backend import Fault, Received, Script
from tests.peers.message import MODERN_VERSION
from tests.peers.script import offers_from

FRONTS: Final = {
    "http": "2025-06-18",
    "asgi": "2025-06-18",
    "http26": MODERN_VERSION,
    "asgi26": MODERN_VERSION,
    "sse": "2025-06-18",
    "stdio": "2025-11-25",
    "stdio26": MODERN_VERSION,
    "library": "",
}
"""Front to the revision of its client. `http` is our own server; `asgi` the application mounted in another server."""
_MANIFOLD: Final = {"port": 0, "startupTimeout": "15s", "remember": False, "watch": False}
_QUIET: Final = (
    *("initialize", "notifications/initialized", "server/discover", "ping", "subscriptions/listen", "logging/setLevel"),
    *("tools/list", "prompts/list", "resources/list", "resources/templates/list"),
)
"""What a server receives when a link is opened or kept, which is not noted."""
_STEPS: Final = frozenset(
    {
        *("open", "end", "head", "leave", "asked", "again", "page", "task", "pipeline"),
        *("server", "until", "await", "metrics", "reload", "stop", "library"),
    }
)
"""The keys of steps that are methods of `House`; any other step is a message (see `answer_clients.body_of`)."""
_LINK_ID: Final = re.compile(r'"(id|requestId|progressToken)":(\d+)')
_MIRRORED: Final = ("mcp-method", "mcp-name", "mcp-param")
_COUNTED: Final = ("mcp_proxy_requests_total", "mcp_backend_retries_total")


def script_of(server: str, about: Mapping[str, Any]) -> Script:
    """The script of a server: a base (`offering`, `asking`, `bare`), with more tools and other members."""
    bases: dict[str, Callable[[str], Script]]
    bases = {"offering": offering, "asking": asking, "bare": lambda name: Script(name=name)}
    base = replace(bases[about.get("base", "offering")](server), era=ERAS[server.partition("_")[0]])
    tools = offers_of(about.get("tools", {}))
    on = {method: offers_of({"": {"act": act}})[0].act for method, act in about.get("on", {}).items()}
    return replace(base, tools=(*base.tools, *tools), on={**base.on, **on}, **about.get("script", {}))


def offers_of(tools: Mapping[str, Any]) -> Any:
    """Tools by name: `act`, and further members of the definition."""
    plain = {"inputSchema": {"type": "object"}}
    told = [
        (_act(each.get("act", {})), {"name": name, **plain, **each.get("members", {})}) for name, each in tools.items()
    ]
    return offers_from([{"definition": json.dumps(definition), "act": act} for act, definition in told])


def _act(about: dict[str, Any]) -> dict[str, Any]:
    """An act; `PAD` in its text stands for `pad` letters."""
    text = about.get("text", "").replace("PAD", "x" * about.get("pad", 0))
    then = {"then": _act(about["then"])} if about.get("then") else {}
    return {**{key: value for key, value in about.items() if key != "pad"}, **({"text": text} if text else {}), **then}


class House:
    """Servers, a manifold in front of them, one client. Plays steps."""

    def __init__(self, stand: Stand, manifold: Any, client: Any, path: Path) -> None:
        self._stand = stand
        self._manifold = manifold
        self.client = client
        self._path = path
        self._task_id = ""

    def __repr__(self) -> str:
        return f"<House {self._stand!r} {self.client!r}>"

    async def play(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        """What the client and the servers see while these steps are taken."""
        self._marks = {name: len(each.recorder.received) for name, each in self._stand.backends.items()}
        lines = []
        for step in steps:
            try:
                lines.append(await self.step(step))
            except Exception as exc:
                exc.add_note(f"at {step} over {self.client}; so far {lines}")
                raise
        servers = {name: self._seen(name) for name in self._marks}
        return {
            "client": [line for line in lines if line is not None],
            **{name: lines for name, lines in servers.items() if lines},
        }

    def _seen(self, server: str) -> list[Any]:
        ids: dict[str, str] = {}

        def hidden(found: "re.Match[str]") -> str:
            return f'"{found[1]}":"{ids.setdefault(found[2], f"#{len(ids) + 1}")}"'

        lines = []
        for item in self._since(server):
            if item.kind not in ("request", "notification", "response", "cancelled") or item.method in _QUIET:
                continue
            raw = item.raw.decode("utf-8", "surrogateescape")
            shown = raw if item.kind == "response" else _LINK_ID.sub(hidden, raw)
            text = noted(shown.encode("utf-8", "surrogateescape"))
            mirrored = {name: value for name, value in item.headers if name.lower().startswith(_MIRRORED)}
            what = {"cancelled": [f"cancelled {item.method}"], "response": ["response"]}.get(item.kind, [])
            lines.append([*what, text, mirrored] if mirrored else [*what, text] if what else text)
        return lines

    def _since(self, server: str) -> list[Received]:
        found: list[Received] = self._stand[server].recorder.received[self._marks[server] :]
        return found

    async def step(self, step: dict[str, Any]) -> Any:
        """Take one step; what is noted of it."""
        if special := _STEPS.intersection(step):
            return await getattr(self, f"_{next(iter(special))}")(step)
        client = self.client
        label = step.get("as", "")
        await client.send(label, step)
        return None if label else await client.end(label)

    # --- of the client ------------------------------------------------------------------------------------------------

    async def _open(self, step: dict[str, Any]) -> Any:
        return await self.client.open(step["open"], step)

    async def _end(self, step: dict[str, Any]) -> Any:
        return await self.client.end(step["end"])

    async def _leave(self, step: dict[str, Any]) -> None:
        await self.client.leave(step["leave"])

    async def _head(self, step: dict[str, Any]) -> None:
        """Wait until the response to a label has begun."""
        await self.client.head(step["head"])

    async def _page(self, step: dict[str, Any]) -> Any:
        """Ask for the page after the last answer of a label."""
        cursor = json.loads(self.client.last[step["page"]])["result"]["nextCursor"]
        return await self.step({"ask": step["ask"], "params": {"cursor": cursor}})

    async def _task(self, step: dict[str, Any]) -> Any:
        """Ask about the task that an answer to a label named."""
        found = re.search(rb'"taskId":"([^"]+)"', self.client.last[step["task"]])
        self._task_id = found[1].decode() if found else self._task_id
        return await self.step({"ask": step["ask"], "params": {"taskId": self._task_id}})

    async def _pipeline(self, step: dict[str, Any]) -> Any:
        return await self.client.pipeline(step["pipeline"])

    async def _asked(self, step: dict[str, Any]) -> None:
        """Answer the next request of a server that comes under a label."""
        while not is_request(raw := await self.client.next(step["asked"])):
            assert raw, "the answer came without a question"
        await self.client.respond(reply_to(raw, step))

    async def _again(self, step: dict[str, Any]) -> Any:
        """Repeat a call that wanted input, with the input; `again` is the label of its last answer."""
        wanted = json.loads(self.client.last[step["again"]])["result"]
        given = dict.fromkeys(wanted.get("inputRequests", ()), step["reply"])
        params = {**step.get("params", {}), "inputResponses": given, "requestState": wanted["requestState"]}
        return await self.step({**{key: value for key, value in step.items() if key != "again"}, "params": params})

    # --- of the servers -----------------------------------------------------------------------------------------------

    async def _server(self, step: dict[str, Any]) -> None:
        """Tell a server to do something: a method of the scripted backends with its arguments."""
        arguments = list(step.get("with", ()))
        if step["do"] == "fail":
            arguments = [Fault(**arguments[0])]
        if step["do"] == "set_tools":
            arguments[0] = offers_of(arguments[0])
        done = getattr(self._stand[step["server"]], step["do"])(*arguments, **step.get("options", {}))
        if isawaitable(done):
            await done

    async def _until(self, step: dict[str, Any]) -> None:
        """Wait until a server received something since the scenario began."""
        server, wanted = step["until"], (step.get("kind", "request"), step.get("method", "tools/call"))

        def is_met() -> bool:
            found = [item for item in self._since(server) if (item.kind, item.method) == wanted]
            return len(found) >= int(step.get("count", 1))

        await self._stand[server].recorder.wait_until(is_met, str(step), timeout=BOUND)

    # --- of the manifold ----------------------------------------------------------------------------------------------

    async def _await(self, step: dict[str, Any]) -> None:
        """Wait until the metrics hold a line."""
        async with asyncio.timeout(BOUND):
            while step["await"] not in await self._lines():
                pass

    async def _metrics(self, step: dict[str, Any]) -> Any:
        """The lines of the metrics that begin with one of these, once no call is in flight."""
        async with asyncio.timeout(BOUND):
            while any(line.startswith("mcp_proxy_in_flight{") for line in await self._lines()):
                pass
        lines = [line for line in await self._lines() if line.startswith(tuple(step["metrics"]))]
        return sorted(re.sub(r'[{,]\w+="([^"]*)"\}?', r" \1", line) for line in lines)

    async def _lines(self) -> list[str]:
        """The lines of the metrics that are not zero."""
        await self.client.send("metrics", {"verb": "GET", "path": "/metrics"})
        text: str = (await self.client.end("metrics"))[-1]
        return [line for line in text.split("\n") if not line.endswith(" 0.0")]

    async def _reload(self, step: dict[str, Any]) -> Any:
        """Change the configuration file (an object that is merged into it, null removes) and take it over."""
        _write(self._path, _merged(json.loads(_read(self._path)), step["reload"]))
        return {"error": (await self._manifold.reload()).error}

    async def _stop(self, step: dict[str, Any]) -> None:
        self._manifold.stop()

    async def _library(self, step: dict[str, Any]) -> Any:
        """Call a method of the `Manifold`: its result, or the class, the text and the code of what it raises."""
        heard: list[Any] = []
        options = {"on_progress": heard.append} if step.get("progress") else {}
        try:
            result = await getattr(self._manifold, step["library"])(*step.get("with", ()), **options)
        except ManifoldError as exc:
            found = noted(f"{type(exc).__name__}: {exc}".encode())
            return [found, *([exc.code] if hasattr(exc, "code") else []), *heard]
        return [noted(compact(result)), *heard]


def _read(path: Path) -> str:
    return path.read_text()


def _write(path: Path, config: object) -> None:
    path.write_text(json.dumps(config))


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, dict) or not isinstance(old, dict):
        return new
    whole = {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in whole.items() if value is not None}


# --- houses -----------------------------------------------------------------------------------------------------------


def scenarios_of(house: Mapping[str, Any], front: str) -> dict[str, Any]:
    """The scenarios of a house that are played over a front, by name."""
    return {name: each for name, each in house["scenarios"].items() if front in each.get("over", house["over"]).split()}


async def answers_of(house: Mapping[str, Any], front: str) -> dict[str, Any]:
    """What is seen in each scenario of a house over a front. In each of its `rounds` that must be the same."""
    async with _standing(house, front) as played:
        found = {name: await played.play(each["steps"]) for name, each in scenarios_of(house, front).items()}
        for _ in range(1, house.get("rounds", 1)):
            for name, each in scenarios_of(house, front).items():
                again = await played.play(each["steps"])
                assert again == found[name], (name, again, found[name])
        if front.startswith(("http", "asgi")) and house.get("counted", True):
            found["(counts)"] = {"client": await played.step({"metrics": _COUNTED})}
        return found


@asynccontextmanager
async def _standing(house: Mapping[str, Any], front: str) -> AsyncIterator[House]:
    servers = {name: about for name, about in house["servers"].items() if name.partition("_")[0] in ERAS}
    others = {name: entry for name, entry in house["servers"].items() if name not in servers}
    scripts = {name: script_of(name, about) for name, about in servers.items()}
    entries = {name: about.get("entry", {}) for name, about in servers.items()}
    settings = {**_MANIFOLD, **house.get("manifold", {})}
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(standing(scripts, manifold=settings, **entries))
        path = Path(stack.enter_context(TemporaryDirectory()), "mcp.json")
        _write(path, {**stand.config, "mcpServers": {**stand.config["mcpServers"], **others}})
        manifold = None
        if not front.startswith("stdio"):
            manifold = await stack.enter_async_context(Manifold.from_config(path))
            if house.get("settled", True):
                await manifold.settle()
        client = await _client(stack, house, front, manifold or path)
        if client is not None:
            stack.push_async_callback(client.close)
            await client.connect()
        yield House(stand, manifold, client, path)


async def _client(stack: AsyncExitStack, house: Mapping[str, Any], front: str, served: Manifold | Path) -> Any:
    if isinstance(served, Path):
        argv = [sys.executable, "-m", "mcp_manifold", "stdio", "--config", str(served)]
        return StdioConversation(FRONTS[front], house, argv)
    if front == "library":
        return None
    door = _mounted if front.startswith("asgi") else _served
    port = await stack.enter_async_context(door(served))
    kind = SseConversation if front == "sse" else HttpConversation
    return kind(FRONTS[front], house, port)


@asynccontextmanager
async def _served(manifold: Manifold) -> AsyncIterator[int]:
    """The port of our own server."""
    listens: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(manifold.serve_http(ready=lambda _, port: listens.set_result(port)))
    try:
        yield await asyncio.wait_for(listens, BOUND)
    finally:
        manifold.stop()
        manifold.stop()
        await asyncio.wait_for(task, BOUND)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _mounted(manifold: Manifold) -> AsyncIterator[int]:
    """The port of another server that has the application mounted."""
    front = manifold.asgi_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await front(scope, receive, send)

    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1, timeout_keep_alive=60
    )
    server, listening = _Server(config), socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the accepted sockets inherit it
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.wait_for(task, BOUND)
        listening.close()
