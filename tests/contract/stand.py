"""A whole manifold between scripted backends and raw clients, and the waits for what clients see of it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final, Literal

from mcp_manifold import Manifold
from mcp_manifold.app.http_server import HttpServer
from mcp_manifold.app.lazy_sdk import check_param_headers
from mcp_manifold.app.listening import bound
from mcp_manifold.clock import Clock
from mcp_manifold.fronts.http.front import HttpFront
from mcp_manifold.fronts.stdio import StdioFront
from tests.peers import BOUND
from tests.peers.backend import HttpBackend, Script, SseBackend, StdioBackend
from tests.peers.clients import (
    HANDSHAKE_VERSIONS,
    MODERN_VERSION,
    Client,
    HttpClient,
    ModernClient,
    PairClient,
    Reply,
    StdioClient,
)
from tests.peers.clients import SseClient as LegacyClient
from tests.peers.face import Face
from tests.peers.ways import Way

OLDEST: Final = HANDSHAKE_VERSIONS[0]
LATEST: Final = HANDSHAKE_VERSIONS[-1]
_HANDSHAKE: Final = tuple(Way(front, version) for version in HANDSHAKE_VERSIONS for front in ("stdio", "http", "sse"))
_MODERN: Final = (Way("stdio", MODERN_VERSION), Way("http", MODERN_VERSION))
EVERY_WAY: Final = (*_HANDSHAKE, *_MODERN)
"""Every front in every revision it is reached in."""
WAYS: Final = tuple(way for way in EVERY_WAY if way.version in (OLDEST, LATEST, MODERN_VERSION))
"""The same with the oldest, the latest and the modern revision only."""
STREAMED: Final = tuple(way for way in WAYS if way.version != MODERN_VERSION)
"""The ways on which changes are announced without a subscription."""
MODERN: Final = tuple(way for way in WAYS if way.version == MODERN_VERSION)

ERAS: Final[Mapping[str, Literal["handshake", "modern"]]] = MappingProxyType(
    {"pipe": "handshake", "web": "handshake", "stream": "handshake", "pipe26": "modern", "web26": "modern"}
)
"""The five kinds of backend by the server name they get here, and the one era each speaks."""
KINDS: Final = tuple(ERAS)
HANDSHAKE_KINDS: Final = tuple(kind for kind, era in ERAS.items() if era == "handshake")
IN_PROCESS: Final = ("web", "stream", "web26")
"""The kinds that need no process of their own."""


def script_of(server: str, **members: Any) -> Script:
    """The script of a server, named by its kind or `kind_anything`, in the era of that kind."""
    return Script(name=server, era=ERAS[server.partition("_")[0]], **members)


def backend_of(kind: str, script: Script) -> Any:
    """A backend of that kind, not yet started; the script's era is the kind's already."""
    if kind.startswith("pipe"):
        return StdioBackend(script)
    return SseBackend(script) if kind == "stream" else HttpBackend(script)


def entry_of(backend: Face) -> dict[str, Any]:
    """The configuration entry of a running backend."""
    if isinstance(backend, StdioBackend):
        return {"command": backend.command, "args": backend.args, "cwd": str(backend.cwd)}
    if isinstance(backend, SseBackend):
        return {"url": backend.url, "transport": "sse"}
    assert isinstance(backend, HttpBackend)
    return {"url": backend.url, "transport": "http"}


class Stand:
    """Running backends, the configuration that names them, and the fronts, started when they are first used."""

    def __init__(self, backends: Mapping[str, Any], config: dict[str, Any]) -> None:
        self.backends = dict(backends)
        self.config = config
        self.takes_leave = False
        """Whether clients end their sessions when they go; many real ones do not."""
        self.clock: Clock | None = None
        """The time of the HTTP front alone, if it is to be another than the loop's."""
        self._stack = AsyncExitStack()
        self._manifold: Manifold | None = None
        self._origin = ""

    def __repr__(self) -> str:
        return f"<Stand {' '.join(self.config['mcpServers'])} {self._origin or 'not serving'}>"

    def __getitem__(self, server: str) -> Any:
        return self.backends[server]

    async def __aenter__(self) -> "Stand":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def manifold(self) -> Manifold:
        """The manifold of this process."""
        assert self._manifold is not None, "the HTTP front was not opened"
        return self._manifold

    def status(self, server: str) -> Any:
        """The status of one server."""
        return next(each for each in self.manifold.status() if each.name == server)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait for a condition on the servers' states; evaluated whenever one of them changes."""
        moved = asyncio.Event()
        self.manifold.on_status(lambda _: moved.set())
        async with asyncio.timeout(BOUND):
            while not met():
                moved.clear()
                await moved.wait()

    async def origin(self) -> str:
        """Scheme, host and port of the HTTP front, which is started if it is not running yet."""
        if not self._origin:
            self._manifold = await self._stack.enter_async_context(Manifold.from_config(self.config))
            self._origin = await self._stack.enter_async_context(serving(self._manifold, self.clock))
        return self._origin

    @asynccontextmanager
    async def client(
        self, way: Way, *, scope: str = "", connect: bool = True, process: bool = False, **options: Any
    ) -> AsyncIterator[Any]:
        """A client that came in this way and shook hands. `scope`: "", a server's name, or `groups/<name>`.

        Over stdio each client has a manifold of its own: one in this process, or with `process` the program.
        """
        async with AsyncExitStack() as stack:
            if way.transport == "stdio" and process:
                client: Client = await stack.enter_async_context(self._child(stack, scope, options))
            elif way.transport == "stdio":
                client = await stack.enter_async_context(_inside(self.config, scope, options))
            else:
                url = f"{await self.origin()}/{scope + '/' if scope else ''}"
                client = await stack.enter_async_context(_remote(way, url, options))
            if connect:
                await _connect(client, way.version)
            yield client
            if self.takes_leave and isinstance(client, HttpClient) and client.session is not None:
                await client.delete()

    def _child(self, stack: AsyncExitStack, scope: str, options: dict[str, Any]) -> StdioClient:
        directory = stack.enter_context(TemporaryDirectory())
        path = Path(directory, "mcp.json")
        path.write_text(json.dumps(self.config))
        group = scope.removeprefix("groups/")
        part = [] if not scope else ["--group", group] if group != scope else ["--server", scope]
        return StdioClient([sys.executable, "-m", "mcp_manifold", "stdio", "--config", str(path), *part], **options)


@asynccontextmanager
async def _inside(config: dict[str, Any], scope: str, options: dict[str, Any]) -> AsyncIterator[PairClient]:
    """The stdio front of a manifold of its own, in this process."""
    group = scope.removeprefix("groups/")
    part = "" if not scope else f"group:{group}" if group != scope else f"server:{scope}"
    async with Manifold.from_config(config) as manifold, PairClient(**options) as client:
        front = StdioFront(manifold.runtime, scope=part, claim=lambda: nullcontext(client.theirs))
        serving = asyncio.create_task(front.serve(), name="stdio front")
        try:
            yield client
        finally:
            client.close_stdin()
            async with asyncio.timeout(BOUND):
                await serving


async def _connect(client: Client, version: str) -> None:
    try:
        reply = await client.connect(version)
    except ConnectionError as problem:
        said = bytes(client.stderr).decode() if isinstance(client, StdioClient) else ""
        raise AssertionError(f"no connection: {problem}; {said}") from problem
    assert reply.result is not None, reply


def _remote(way: Way, url: str, options: dict[str, Any]) -> Client:
    if way.transport == "sse":
        return LegacyClient(f"{url}sse", **options)
    return (ModernClient if way.version == MODERN_VERSION else HttpClient)(f"{url}mcp", **options)


CHANGED: Final = "notifications/tools/list_changed"


async def names(client: Client) -> list[str]:
    """The public names of all listed tools."""
    return [each["name"] for each in (await client.request("tools/list")).value["tools"]]


async def servers_of(client: Client) -> set[str]:
    """The servers whose tools are listed."""
    return {name.rpartition("__")[0] for name in await names(client)}


def announced(client: Client, method: str = CHANGED) -> int:
    """How often a client received this notification."""
    return sum(each.method == method for each in client.received)


async def until_listed(client: Client, is_so: Callable[[list[str]], bool]) -> None:
    """List the tools after each announced change, until a condition on the names holds."""
    count = announced(client)
    while not is_so(await names(client)):
        count += 1
        await client.wait_for(CHANGED, count=count)


async def until_well(client: Client, tool: str, *, text: str = "back") -> None:
    """Call an echo tool until it answers. Every refusal before that must be our own error about its server."""
    async with asyncio.timeout(BOUND):
        while (reply := await client.call(tool, {"text": text})).error is not None:
            refused(reply, tool.partition("__")[0])
            await asyncio.sleep(0.05)  # a server that is down refuses at once, and a client is not told of its state
    assert reply.text == text


def refused(reply: Reply, server: str, *reasons: str) -> dict[str, Any]:
    """The data of a reply that must be our own error about this server, for one of these reasons if any."""
    error: dict[str, Any] = json.loads(reply.error or b"null")
    assert error is not None, reply
    assert (error["code"], error["data"]["server"]) == (-32603, server), reply
    assert server in error["message"]
    assert not reasons or error["data"]["reason"] in reasons, reply
    return error


@asynccontextmanager
async def serving(manifold: Manifold, clock: Clock | None = None) -> AsyncIterator[str]:
    """The HTTP front of an entered manifold on a free loopback port; the origin. `clock`: its time."""
    listens: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    listening = bound(manifold.settings.model_copy(update={"port": 0}))
    front = manifold.asgi_app().front()
    if clock is not None:
        front = HttpFront(manifold.runtime, front, check_params=check_param_headers, clock=clock)
    server = HttpServer(front, listening, lambda _, port: listens.set_result(port), current=lambda: manifold.settings)
    task = asyncio.create_task(server.run(), name="http front")
    try:
        async with asyncio.timeout(BOUND):
            port = await listens
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        server.stop()  # and wait for nobody
        async with asyncio.timeout(BOUND):
            await task
        for each in listening:
            each.close()


@asynccontextmanager
async def standing(
    scripts: Mapping[str, Script], *, manifold: Mapping[str, Any] | None = None, **servers: Mapping[str, Any]
) -> AsyncIterator[Stand]:
    """A stand over these backends, by kind or by `kind_anything`; `servers` adds to the entries of single servers."""
    async with AsyncExitStack() as stack:
        entries: dict[str, Any] = {}
        backends: dict[str, Any] = {}
        for server, script in scripts.items():
            kind = server.partition("_")[0]
            backends[server] = await stack.enter_async_context(backend_of(kind, script))
            entries[server] = {**entry_of(backends[server]), **servers.get(server, {})}
        config = {"manifold": {"startupTimeout": "45s", **(manifold or {})}, "mcpServers": entries}
        yield await stack.enter_async_context(Stand(backends, config))
