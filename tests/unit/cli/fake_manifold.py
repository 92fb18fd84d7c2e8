"""A scripted Manifold without servers, which records its calls."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from click.testing import CliRunner, Result

from mcp_manifold.app.manifold import Manifold
from mcp_manifold.cli import cli
from mcp_manifold.cli.invocation import Opening
from mcp_manifold.config import ManifoldSettings, Reloaded, ServerSettings, Settings
from mcp_manifold.core.status import ServerStatus

NOTES = ServerStatus("notes", "ready", "stdio", "handshake", "2025-11-25", tools=2, prompts=1, resources=1, templates=1)
GONE = ServerStatus(
    "gone", "backing off", "http", last_error="connection refused", next_try=0.41, stderr=("one", "two \x1b[2J")
)


def settings(*names: str, **manifold: Any) -> Settings:
    """Settings with servers of these names."""
    servers = tuple(ServerSettings(name=name, command="true") for name in names)
    return Settings(manifold=ManifoldSettings(**manifold), servers=servers, source="mcp.json")


@dataclass
class FakeManifold:
    """The part of `Manifold` that the commands use, scripted."""

    config: Settings = field(default_factory=lambda: settings("notes"))
    servers: list[ServerStatus] = field(default_factory=lambda: [NOTES])
    tools: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    result: dict[str, Any] | Exception = field(default_factory=dict)
    progress: list[dict[str, Any]] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    overrides: dict[str, object] = field(default_factory=dict)
    callbacks: list[Callable[[str], None]] = field(default_factory=list)
    reload_callbacks: list[Callable[[Reloaded], None]] = field(default_factory=list)
    is_entered: bool = False

    async def __aenter__(self) -> Self:
        self.is_entered = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_entered = False
        self._call_back()  # as the real one does while it stops its servers

    async def wake(self) -> None:
        await self.settle()

    async def settle(self) -> None:
        await asyncio.sleep(0)
        self._call_back()

    def on_status(self, callback: Callable[[str], None]) -> None:
        self.callbacks.append(callback)

    def watch(self, scope: str, changed: Callable[..., None]) -> Callable[[], None]:
        self.asked.append(("watch", scope))
        return lambda: self.asked.append(("unwatch", scope))

    def status(self) -> list[ServerStatus]:
        if not self.is_entered:
            raise RuntimeError("not entered")
        return self.servers

    def problems(self) -> tuple[str, ...]:
        return self.notes

    async def list_tools(self) -> list[dict[str, Any]]:
        return self.tools

    async def list_prompts(self) -> list[dict[str, Any]]:
        return self.prompts

    async def list_resources(self) -> list[dict[str, Any]]:
        return self.resources

    async def list_resource_templates(self) -> list[dict[str, Any]]:
        return self.templates

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        for params in self.progress:
            if on_progress:
                on_progress(params)
        return self._answer((name, arguments))

    async def read_resource(self, uri: str) -> dict[str, Any]:
        return self._answer(uri)

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._answer((name, arguments))

    def on_reload(self, callback: Callable[[Reloaded], None]) -> None:
        self.reload_callbacks.append(callback)

    def listen(self) -> None:
        assert not self.is_entered, "the address is checked before anything starts"

    async def serve_http(self, *, ready: Callable[[str, int], None]) -> None:
        if isinstance(self.result, Exception):
            raise self.result
        ready("127.0.0.1", 8808)
        for _ in range(4):  # lets the waiting for the first attempts end
            await asyncio.sleep(0)

    def stop(self) -> None:
        self.asked.append("stop")

    async def serve_stdio(self, *, scope: str = "") -> None:
        self.asked.append(("stdio", scope))

    def run(self, *args: str, text: str | None = None) -> Result:
        """Run the command line on this Manifold."""
        return CliRunner().invoke(cli, list(args), input=text, obj=FakeOpening(self), prog_name="mcp-manifold")

    def _answer(self, asked: object) -> dict[str, Any]:
        self.asked.append(asked)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def _call_back(self) -> None:
        for callback in self.callbacks:
            for server in self.servers:
                callback(server.name)


class FakeOpening(Opening):
    """Opens the scripted Manifold."""

    def __init__(self, made: FakeManifold) -> None:
        self._made = made

    def manifold(self, source: Path | None, overrides: Mapping[str, object]) -> Manifold:
        self._made.overrides = dict(overrides)
        return cast(Manifold, self._made)

    def settings(self, source: Path | None, overrides: Mapping[str, object]) -> Settings:
        return self._made.config

    def listening_problem(self, settings: Settings) -> str:
        return ""

    def find(self) -> Path | None:
        return Path("mcp.json")
