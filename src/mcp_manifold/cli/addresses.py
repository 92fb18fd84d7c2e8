"""Where to point a client: the endpoints of a listening manifold, and what to paste. Pure: settings in, text out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mcp_manifold.cli.layout import columns, counted
from mcp_manifold.cli.logs import visible

if TYPE_CHECKING:
    from mcp_manifold.config import Settings

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one listening manifold."""

    host: str
    port: int
    base_path: str = ""

    @property
    def root(self) -> str:
        """What all of them start with. An address that means every interface is reached on this machine's own."""
        host = _ANYWHERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self.base_path}"

    @property
    def merged(self) -> str:
        """Everything, over Streamable HTTP."""
        return f"{self.root}/mcp"

    @property
    def sse(self) -> str:
        """Everything, over SSE."""
        return f"{self.root}/sse"

    def server(self, name: str) -> str:
        """One server alone."""
        return f"{self.root}/{quote(name, safe='')}/mcp"

    def group(self, name: str) -> str:
        """One group."""
        return f"{self.root}/groups/{quote(name, safe='')}/mcp"


def banner(settings: "Settings", addresses: Addresses) -> list[str]:
    """What `serve` says once it listens."""
    servers = [server.name for server in settings.servers if not server.disabled]
    rows = [
        ("everything", addresses.merged),
        ("  older clients", f"{addresses.sse}  (SSE)"),
        *_each("server", servers, addresses.server),
        *_each("group", list(settings.manifold.groups), addresses.group),
        ("health", f"{addresses.root}/health"),
    ]
    return [
        f"{visible(settings.manifold.name)}: {counted(len(servers), 'server')} from {visible(settings.source)}, "
        f"listening on {addresses.root}",
        "",
        *columns(rows),
        "",
        "To paste into a client's configuration:",
        "",
        *json.dumps(snippet(settings, addresses), indent=2).splitlines(),
        "",
    ]


def _each(word: str, names: Sequence[str], address: Callable[[str], str]) -> list[tuple[str, str]]:
    shown = [(f"{word} {visible(name)}", address(name)) for name in names[:_SHOWN]]
    rest = len(names) - _SHOWN
    return [*shown, (f"{word} ...", f"and {rest} more, likewise")] if rest > 0 else shown


def snippet(settings: "Settings", addresses: Addresses) -> dict[str, object]:
    """An entry for a client's `mcpServers`. A token is a place to fill in: it is not printed."""
    entry: dict[str, object] = {"type": "http", "url": addresses.merged}
    if settings.manifold.tokens:
        entry["headers"] = {"Authorization": "Bearer YOUR_TOKEN"}
    return {"mcpServers": {settings.manifold.name: entry}}
