"""The whole settings tree, as frozen values. Knows no file, environment or flag: `load` builds it from those."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from mcp_manifold.config.server import (
    FilterSettings,
    OverrideSettings,
    OverridesSettings,
    ServerSettings,
    misfit,
)
from mcp_manifold.config.values import (
    Count,
    CountOrNone,
    Duration,
    DurationOrNone,
    Name,
    NotBoolean,
    Secret,
    Size,
    Text,
    Value,
    name_problem,
)

__all__ = [
    "BrokenServer",
    "FilterSettings",
    "LimitSettings",
    "ManifoldSettings",
    "OverrideSettings",
    "OverridesSettings",
    "ServerSettings",
    "Settings",
    "TokenSettings",
]

MIB: Final = 1024 * 1024
SEPARATOR: Final = re.compile(r"[A-Za-z0-9_-]{1,8}")
BASE_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class LimitSettings(Value):
    """What nobody may exceed."""

    max_body: Count = 4 * MIB
    """Bytes of the largest HTTP request a client may send."""
    max_message: Count = 64 * MIB
    """Bytes of the largest message accepted from a server."""
    max_buffered: Size | None = None
    """Bytes of large messages on their way at the same time; without it an eighth of the memory there is."""
    max_connections: Count = 10_000
    """Connections of clients open at the same time."""
    max_sessions: Count = 10_000
    """Client sessions open at the same time."""
    session_idle: Duration = 1800.0
    """How long a session may be unused before it is forgotten."""
    max_calls_per_session: Count = 256
    """Requests of one session in flight at the same time."""
    list_pages: Count = 100
    """Pages of one list that are fetched from a server."""
    list_entries: Count = 10_000
    """Entries of one list that are accepted from a server."""
    max_client_processes: Count = 32
    """Processes of one stdio server that are kept for single clients."""
    client_idle: Duration = 600.0
    """How long such a process may be unused before it is stopped."""
    max_parked: Count = 1_000
    """Calls that may wait for a client's input at the same time (2026-07-28 clients of older servers)."""
    park_time: Duration = 300.0
    """How long such a call waits before it is cancelled."""
    max_notifications: Count = 5_000
    """Progress and log messages of one server, and notifications of one client session, passed on in a second."""
    max_streams: Count = 5_000
    """Event streams open at the same time."""
    page_size: CountOrNone = 0
    """Entries on one page of a list; 0 for the whole list at once."""


class TokenSettings(Value):
    """A bearer token, and whose it is."""

    token: Secret
    """The token; best as `${VARIABLE}` or `${file:path}`."""
    name: Name = "token-1"
    """Who presents it, in logs and metrics. Without it: token-1, token-2 ... by position."""

    @field_validator("token")
    @classmethod
    def _can_be_presented(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected a token of visible ASCII characters, without spaces")
        return value


class ManifoldSettings(Value):
    """The endpoint itself."""

    name: str = Field(default="mcp-manifold", min_length=1)
    """The name clients see."""
    instructions: str = ""
    """Instructions for the model, in front of those of the servers."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on. Others than this machine's own need `tokens` or `insecure`."""
    port: Annotated[int, Field(ge=0, le=65535), NotBoolean] = 8808
    """The port to listen on; 0 for any free one."""
    base_path: str = ""
    """A path all endpoints are below, such as "/tools"."""
    separator: str = Field(default="__", json_schema_extra={"pattern": r"^[A-Za-z0-9_-]{1,8}$"})
    """What stands between a server's prefix and the name of an item."""
    name_budget: Annotated[int, Field(ge=16, le=128), NotBoolean] = 64
    """The longest name to make, in characters."""
    startup_timeout: Duration = 5.0
    """How long the first list waits for servers that are still starting."""
    start: Literal["eager", "lazy"] = "eager"
    """When servers are connected to that do not say so themselves: at once, or when a call needs them."""
    idle_timeout: DurationOrNone = 0.0
    """How long nobody may use a server before it is stopped, where it does not say so itself; 0 for never."""
    remember: bool = True
    """Keep what servers offer on disk, so that lists are answered at once the next time."""
    state_dir: Text | None = Field(default=None, min_length=1)
    """The directory for what is kept on disk. Without it, the user's own; relative to this file."""
    groups: dict[Name, tuple[str, ...]] = Field(default_factory=dict)
    """Named parts of the whole, each with an endpoint /groups/<name>/mcp: the names of their servers."""
    tokens: tuple[TokenSettings, ...] = ()
    """Bearer tokens; with any, every request must present one."""
    insecure: bool = False
    """Listen on other addresses than this machine's own without tokens."""
    allowed_hosts: tuple[str, ...] = ()
    """Values of the Host header that are accepted besides the address listened on."""
    allowed_origins: tuple[str, ...] = ()
    """Values of the Origin header that are accepted: web pages that may connect."""
    metrics: bool = True
    """Serve metrics for Prometheus at /metrics."""
    drain: Duration = 10.0
    """How long requests in flight are given when the program ends."""
    limits: LimitSettings = LimitSettings()
    """Sizes and counts that nobody may exceed."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    """How much is logged."""
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = "text"
    """How a line of the log looks."""
    login_shell_path: bool = False
    """Look programs up as a terminal does: take PATH from the login shell (not on Windows)."""
    list_timeout: Duration = 30.0
    """How long fetching the lists of one server may take."""
    list_grace: DurationOrNone = 3600.0
    """How long the entries of a server that cannot be reached stay in the lists; 0 for not at all."""
    watch: bool = True
    """Take over changes of the configuration file while serving."""

    @field_validator("base_path")
    @classmethod
    def _begin_with_a_slash(cls, value: str) -> str:
        path = f"/{value.strip('/')}" if value.strip("/") else ""
        if not BASE_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            raise ValueError('expected a path such as "/tools", of letters, digits and . _ ~ -')
        return path

    @field_validator("separator")
    @classmethod
    def _fits_into_names(cls, value: str) -> str:
        if not SEPARATOR.fullmatch(value):
            raise ValueError("expected 1 to 8 letters, digits, underscores or hyphens")
        return value

    @field_validator("groups", mode="before")
    @classmethod
    def _are_group_names(cls, value: object) -> object:
        for name in value if isinstance(value, Mapping) else ():
            reason = name_problem(name) if isinstance(name, str) else "expected a name"
            if reason:
                raise misfit(str(name), reason)
        return value

    @field_validator("tokens", mode="before")
    @classmethod
    def _name_the_nameless(cls, value: object) -> object:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return value
        return tuple(_named(item, f"token-{number}") for number, item in enumerate(value, start=1))

    @field_validator("tokens")
    @classmethod
    def _are_different(cls, value: tuple[TokenSettings, ...]) -> tuple[TokenSettings, ...]:
        seen: dict[str, str] = {}
        for token in value:
            other = seen.setdefault(token.token.get_secret_value(), token.name)
            if other != token.name:
                raise ValueError(f'tokens "{other}" and "{token.name}" are the same')
        return value


def _named(token: object, name: str) -> object:
    """A token as an object with a name, whichever way it was written."""
    if isinstance(token, str | SecretStr):
        return {"token": token, "name": name}
    return {"name": name, **token} if isinstance(token, Mapping) else token


@dataclass(frozen=True, slots=True)
class BrokenServer:
    """A server that cannot be used, through no fault of the others; the place is 0:0 where none is known."""

    name: str
    reason: str
    line: int = 0
    column: int = 0


class Settings(Value):
    """Everything configured. `servers` are in file order, and usable; `broken` are the others."""

    manifold: ManifoldSettings = ManifoldSettings()
    servers: tuple[ServerSettings, ...] = ()
    broken: tuple[BrokenServer, ...] = ()
    source: str = "<dict>"
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """All files it was made from, existing or not: who wants to know when it changes looks at these."""
