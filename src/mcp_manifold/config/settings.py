"""All settings, as frozen values: every key of the file with its type, default, meaning and reload treatment.

`load` builds them from file, environment and flags. In Python, durations are in seconds.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from mcp_manifold.config.values import (
    Count,
    CountOrZero,
    Duration,
    DurationOrZero,
    HeaderValue,
    Lower,
    Name,
    NotBoolean,
    Pattern,
    Secret,
    Setting,
    Size,
    Text,
    Value,
    VariablePattern,
    Variables,
    name_problem,
    wrong_key,
)
from mcp_manifold.errors import ConfigProblem

MIB: Final = 1024 * 1024
SEPARATOR: Final = re.compile(r"[A-Za-z0-9_-]{1,8}")
BASE_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
RESERVED: Final = ("mcp", "sse", "messages", "health", "groups", "metrics", "_healthz", "_readyz")
"""Names no server can have: `/<server>/mcp` would collide with our own endpoints."""

TransportName = Literal["stdio", "http", "sse", "auto"]


def transport_of(spelling: object) -> object:
    """The transport that a client's spelling means (`streamable-http` is `http`); an unknown spelling unchanged."""
    if not isinstance(spelling, str):
        return spelling
    plain = spelling.strip().lower().replace("-", "").replace("_", "")
    return "http" if plain in ("http", "streamable", "streamablehttp") else spelling.strip().lower()


class FilterSettings(Value):
    """The items of one kind that are offered: those in `allow`, without those in `block`."""

    allow: Annotated[tuple[Pattern, ...] | None, Setting("live", "model")] = None
    """Patterns of the items to offer. Unset: all; an empty list: none."""
    block: Annotated[tuple[Pattern, ...], Setting("live", "model")] = ()
    """Patterns of the items to leave out, also if `allow` matches."""


class OverrideSettings(Value):
    """Replacements for one item's name, title, description and timeouts."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: Annotated[str | None, Setting("live", "model/catalogue")] = Field(default=None, min_length=1)
    """The name to show, after the server's prefix."""
    title: Annotated[str | None, Setting("live", "model/catalogue")] = None
    """The title to show."""
    description: Annotated[str | None, Setting("live", "model/catalogue")] = None
    """The description to show."""
    timeout: Annotated[Duration | None, Setting("live", "backends/calls")] = None
    """The server's `timeout`, for this item."""
    max_timeout: Annotated[DurationOrZero | None, Setting("live", "backends/calls")] = None
    """The server's `maxTimeout`, for this item."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError('expected at least one of "name", "title", "description", "timeout" and "maxTimeout"')
        return self


class OverridesSettings(Value):
    """Overrides per item, keyed by the server's own name of it."""

    tools: Annotated[dict[str, OverrideSettings], Setting("live", "core")] = Field(default_factory=dict)
    """Overrides by tool name."""
    prompts: Annotated[dict[str, OverrideSettings], Setting("live", "core")] = Field(default_factory=dict)
    """Overrides by prompt name."""
    resources: Annotated[dict[str, OverrideSettings], Setting("live", "core")] = Field(default_factory=dict)
    """Overrides by resource URI or URI template."""


class RlimitSettings(Value):
    """Operating system limits of each process of a stdio server. Unset: the limits of mcp-manifold itself."""

    memory: Annotated[Size | None, Setting("restart-server", "backends/link")] = None
    """Data segment in bytes, or a text such as "512MB"."""
    files: Annotated[Count | None, Setting("restart-server", "backends/link")] = None
    """Open files and connections."""
    cpu: Annotated[Count | None, Setting("restart-server", "backends/link")] = None
    """Seconds of processor time in its whole life; then it is killed."""


class BreakerSettings(Value):
    """The circuit breaker of a server that can be reached but answers no calls."""

    failures: Annotated[CountOrZero, Setting("live", "backends/calls")] = 5
    """Calls in a row without an answer that open the breaker; 0: never."""
    wait: Annotated[Duration, Setting("live", "backends/calls")] = 5.0
    """Time until one call is let through again; doubled after each failure, up to 16 times."""


class ServerSettings(Value):
    """One MCP server: how it is reached, how calls to it are treated, and what of it is offered."""

    name: Annotated[Name, Setting("restart-server", "backends")]
    """The key of the entry."""
    transport: Annotated[
        TransportName, BeforeValidator(transport_of), Setting("restart-server", "backends/link", identifies=True)
    ] = "auto"
    """The transport. `auto`: stdio for `command`; Streamable HTTP, then SSE for `url`."""
    command: Annotated[Text, Setting("restart-server", "backends/link", identifies=True)] = ""
    """The program to start (stdio)."""
    args: Annotated[tuple[Text, ...], Setting("restart-server", "backends/link", identifies=True)] = Field(
        default=(), repr=False
    )
    """Arguments of the program."""
    env: Annotated[Variables, Setting("restart-server", "backends/link", identifies=True)] = Field(default_factory=dict)
    """Environment variables of the program, in addition to the inherited ones."""
    inherit_env: Annotated[tuple[VariablePattern, ...], Setting("restart-server", "backends/link")] = ()
    """Patterns of more environment variables that the program inherits, such as `AWS_*`; `*` for all."""
    cwd: Annotated[Text | None, Setting("restart-server", "backends/link", identifies=True)] = None
    """The working directory of the program."""
    env_file: Annotated[Text | None, Setting("restart-server", "config/load.py")] = None
    """A file of `NAME=value` lines with more variables for the program; `env` wins. Relative to this file."""
    rlimits: Annotated[RlimitSettings, Setting("restart-server", "backends/link")] = RlimitSettings()
    """Operating system limits of each process of the program (not on Windows)."""
    url: Annotated[str, Setting("restart-server", "backends/link", identifies=True)] = Field(default="", repr=False)
    """The address of an HTTP server."""
    headers: Annotated[dict[str, HeaderValue], Setting("restart-server", "backends/link", identifies=True)] = Field(
        default_factory=dict
    )
    """HTTP headers of every request to the server."""
    timeout: Annotated[Duration, Setting("live", "backends/calls")] = 60.0
    """Time limit of one request, including its wait in the queue; restarted by progress."""
    max_timeout: Annotated[DurationOrZero, Setting("live", "backends/calls")] = 3600.0
    """Time limit of one request in all, whatever progress it reports; 0: none."""
    connect_timeout: Annotated[Duration, Setting("restart-server", "backends/link")] = 10.0
    """Time limit for opening a connection to `url`."""
    initialize_timeout: Annotated[Duration, Setting("live", "backends/link")] = 60.0
    """Time limit of the handshake, once the program is started or the connection is open."""
    list_timeout: Annotated[Duration | None, Setting("live", "backends")] = None
    """Time limit for fetching its lists. Unset: `listTimeout` of `manifold`."""
    sse_read_timeout: Annotated[Duration, Setting("restart-server", "backends/link")] = 300.0
    """Silence after which an event stream without a deadline counts as lost; a call ends by its timeout."""
    ping_interval: Annotated[DurationOrZero, Setting("restart-server", "backends/life")] = 30.0
    """Silence after which the server is pinged; 0: never."""
    start: Annotated[Literal["eager", "lazy"] | None, Setting("live", "backends/life")] = None
    """When to connect: at once (`eager`), or when a call needs it (`lazy`). Unset: `start` of `manifold`."""
    idle_timeout: Annotated[DurationOrZero | None, Setting("live", "backends/life")] = None
    """Idle time after which the server is stopped or disconnected; 0: never. Unset: `idleTimeout` of `manifold`. Its
    lists stay, and the next call starts it."""
    keep_alive: Annotated[bool, Setting("live", "backends/life")] = False
    """Keep it running once started: never stop it for being idle, restart it when lost."""
    breaker: Annotated[BreakerSettings, Setting("live", "backends")] = BreakerSettings()
    """The circuit breaker, for a server that answers no calls."""
    max_concurrency: Annotated[Count, Setting("live", "backends/calls")] = 1000
    """Client requests in flight to the server."""
    max_queue: Annotated[CountOrZero, Setting("live", "backends/calls")] = 1000
    """Client requests waiting for that; one more is refused as overloaded. 0: none waits."""
    retry: Annotated[Literal["never", "safe", "idempotent"], Setting("live", "backends/calls")] = "safe"
    """Failed requests to retry once: unsent ones and reads (`safe`), also tools annotated as idempotent."""
    required: Annotated[bool, Setting("live", "core")] = False
    """Whether `/_readyz` fails while the server is unavailable."""
    disabled: Annotated[bool, Setting("restart-server", "backends/fleet.py")] = False
    """Keep the entry without using the server."""
    prefix: Annotated[str | None, Setting("live", "core")] = Field(default=None, max_length=64)
    """The prefix of its items' names. Unset: the server's name; "": none."""
    tools: Annotated[FilterSettings, Setting("live", "model/policy.py")] = FilterSettings()
    """The tools to offer."""
    prompts: Annotated[FilterSettings, Setting("live", "model/policy.py")] = FilterSettings()
    """The prompts to offer."""
    resources: Annotated[FilterSettings, Setting("live", "model/policy.py")] = FilterSettings()
    """The resources and resource templates to offer, by URI."""
    overrides: Annotated[OverridesSettings, Setting("live", "core")] = OverridesSettings()
    """Other names, titles, descriptions and timeouts of single items."""
    isolation: Annotated[Literal["auto", "shared", "client"], Setting("restart-server", "backends")] = "auto"
    """Whether clients share one connection to the server or get one each."""
    era: Annotated[
        Literal["auto", "handshake", "modern"], Setting("restart-server", "backends/link", identifies=True)
    ] = "auto"
    """The protocol era to use with the server."""
    uris: Annotated[Literal["auto", "prefix", "verbatim"], Setting("live", "core")] = "auto"
    """Whether to prefix its resource URIs: where two servers share one (`auto`), always, or never."""

    @model_validator(mode="before")
    @classmethod
    def _infer_transport(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        known = dict(data)
        if known.get("transport") is None or transport_of(known["transport"]) == "auto":
            known["transport"] = "stdio" if known.get("command") else "auto"
        return known

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        if self.command and self.url:
            raise wrong_key("url", 'expected either "command" (a program to start) or "url" (an address), not both')
        if not self.command and not self.url:
            raise ValueError('expected either "command" (a program to start) or "url" (an address)')
        if self.transport == "stdio" and self.url:
            raise wrong_key("transport", 'transport "stdio" needs "command", but the server has "url"')
        if self.transport in ("http", "sse") and self.command:
            raise wrong_key("transport", f'transport "{self.transport}" needs "url", but the server has "command"')
        return self

    @field_validator("name")
    @classmethod
    def _is_not_reserved(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f'"{value}" cannot name a server: /{value} is an endpoint of its own')
        return value

    @field_validator("url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_sound = False
        if value and (not is_sound or re.search(r"[\s\0]", value)):
            raise ValueError("expected an address beginning with http:// or https://")
        return value

    @field_validator("headers")
    @classmethod
    def _has_header_names(cls, value: dict[str, HeaderValue]) -> dict[str, HeaderValue]:
        seen: set[str] = set()
        for name in value:
            if not HEADER_NAME.fullmatch(name):
                raise wrong_key(name, "expected the name of an HTTP header")
            if name.lower() in seen:
                raise wrong_key(name, "the header is given twice (upper and lower case are the same)")
            seen.add(name.lower())
        return value


class LimitSettings(Value):
    """Upper bounds on sizes and counts."""

    max_body: Annotated[Count, Setting("live", "fronts")] = 4 * MIB
    """Bytes of the largest HTTP request from a client."""
    max_message: Annotated[Count, Setting("live", "backends/link")] = 64 * MIB
    """Bytes of the largest message from a server."""
    max_buffered: Annotated[Size | None, Setting("live", "app")] = None
    """Bytes of large messages buffered at the same time. Unset: an eighth of the memory."""
    max_connections: Annotated[Count, Setting("live", "app/http_server.py")] = 10_000
    """Open client connections."""
    max_sessions: Annotated[Count, Setting("live", "fronts")] = 10_000
    """Open client sessions."""
    session_idle: Annotated[Duration, Setting("live", "fronts")] = 1800.0
    """Idle time after which a session expires."""
    max_calls_per_session: Annotated[Count, Setting("live", "fronts")] = 256
    """Requests of one session in flight."""
    list_pages: Annotated[Count, Setting("live", "backends/lists")] = 100
    """Pages of one list fetched from a server."""
    list_entries: Annotated[Count, Setting("live", "backends/lists")] = 10_000
    """Entries of one list accepted from a server."""
    max_client_processes: Annotated[Count, Setting("live", "backends/link")] = 32
    """Processes of one stdio server that serve a single client each."""
    client_idle: Annotated[Duration, Setting("live", "backends/link")] = 600.0
    """Idle time after which such a process is stopped."""
    max_parked: Annotated[Count, Setting("live", "core")] = 1_000
    """Calls waiting for a client's input (2026-07-28 clients of older servers)."""
    park_time: Annotated[Duration, Setting("live", "core")] = 300.0
    """Time until such a call is cancelled."""
    max_notifications: Annotated[Count, Setting("live", "fronts")] = 5_000
    """Progress and log messages per server, and notifications per client session, relayed in one second."""
    max_streams: Annotated[Count, Setting("live", "fronts")] = 5_000
    """Open event streams."""
    page_size: Annotated[CountOrZero, Setting("live", "app")] = 0
    """Entries on one page of a list; 0: the whole list on one page."""


class TokenSettings(Value):
    """A bearer token and the name of its owner."""

    token: Annotated[Secret, Setting("live", "fronts/http")]
    """The token; best as `${VARIABLE}` or `${file:path}`."""
    name: Annotated[Name, Setting("live", "fronts/http")] = "token-1"
    """The owner's name in logs and metrics. Unset: token-1, token-2 ... by position."""

    @field_validator("token")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected a token of visible ASCII characters, without spaces")
        return value


class ManifoldSettings(Value):
    """The endpoint itself."""

    name: Annotated[str, Setting("restart", "app")] = Field(default="mcp-manifold", min_length=1)
    """The server name clients see."""
    instructions: Annotated[str, Setting("live", "app")] = ""
    """Instructions for the model, before those of the servers."""
    host: Annotated[str, Setting("restart", "app/listening.py")] = Field(default="127.0.0.1", min_length=1)
    """The address to listen on. Any but a loopback address needs `tokens` or `insecure`."""
    port: Annotated[int, Field(ge=0, le=65535), NotBoolean, Setting("restart", "app/listening.py")] = 8808
    """The port to listen on; 0: any free one."""
    base_path: Annotated[str, Setting("restart", "fronts/http")] = ""
    """The path below which all endpoints are, such as "/tools"."""
    separator: Annotated[str, Setting("live", "core")] = Field(
        default="__", json_schema_extra={"pattern": r"^[A-Za-z0-9_-]{1,8}$"}
    )
    """The text between a server's prefix and the name of an item."""
    name_budget: Annotated[int, Field(ge=16, le=128), NotBoolean, Setting("live", "core")] = 64
    """Characters of the longest public name."""
    startup_timeout: Annotated[Duration, Setting("live", "core")] = 5.0
    """Time the first list waits for servers that are starting."""
    start: Annotated[Literal["eager", "lazy"], Setting("live", "app")] = "eager"
    """`start` of servers that do not set it: connect at once, or when a call needs them."""
    idle_timeout: Annotated[DurationOrZero, Setting("live", "app")] = 0.0
    """`idleTimeout` of servers that do not set it; 0: never."""
    remember: Annotated[bool, Setting("restart", "config/state_directory.py")] = True
    """Cache what servers offer on disk, to answer lists at once after the next start."""
    state_dir: Annotated[Text | None, Setting("restart", "config/state_directory.py")] = Field(
        default=None, min_length=1
    )
    """The directory of that cache. Unset: the user's own; relative to this file."""
    env: Annotated[Variables, Setting("live", "app")] = Field(default_factory=dict)
    """Environment variables of every stdio server that is started; its own `envFile` and `env` win."""
    groups: Annotated[dict[Name, tuple[str, ...]], Setting("live", "core")] = Field(default_factory=dict)
    """Named groups of servers, each with an endpoint /groups/<name>/mcp."""
    tokens: Annotated[tuple[TokenSettings, ...], Setting("live", "fronts/http")] = ()
    """Bearer tokens. With any, every request must present one."""
    insecure: Annotated[bool, Setting("live", "app/listening.py")] = False
    """Allow a non-loopback address without tokens."""
    allowed_hosts: Annotated[tuple[str, ...], Setting("live", "fronts/http")] = ()
    """Accepted values of the Host header, in addition to the listening address."""
    allowed_origins: Annotated[tuple[str, ...], Setting("live", "fronts/http")] = ()
    """Accepted values of the Origin header: the web pages that may connect."""
    metrics: Annotated[bool, Setting("restart", "app")] = True
    """Serve Prometheus metrics at /metrics."""
    drain: Annotated[Duration, Setting("live", "app")] = 10.0
    """Time requests in flight get to finish when the program ends."""
    limits: Annotated[LimitSettings, Setting("live", "app")] = LimitSettings()
    """Upper bounds on sizes and counts."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower, Setting("live", "cli")] = "info"
    """The lowest level that is logged."""
    log_format: Annotated[Literal["text", "json"], Lower, Setting("live", "cli")] = "text"
    """The format of log lines."""
    login_shell_path: Annotated[bool, Setting("restart", "app")] = False
    """Take PATH from the user's login shell, to find programs as a terminal does (not on Windows)."""
    list_timeout: Annotated[Duration, Setting("live", "app")] = 30.0
    """Time limit for fetching the lists of one server."""
    list_interval: Annotated[DurationOrZero, Setting("live", "app")] = 300.0
    """Time after which lists whose changes a server does not announce reliably are fetched again; 0: never."""
    list_grace: Annotated[DurationOrZero, Setting("live", "core")] = 3600.0
    """Time the entries of an unavailable server stay in the lists; 0: not at all."""
    watch: Annotated[bool, Setting("live", "app/reload.py")] = True
    """Reload when the configuration file changes."""

    @field_validator("base_path")
    @classmethod
    def _begins_with_a_slash(cls, value: str) -> str:
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
    def _has_group_names(cls, value: object) -> object:
        for name in value if isinstance(value, Mapping) else ():
            reason = name_problem(name) if isinstance(name, str) else "expected a name"
            if reason:
                raise wrong_key(str(name), reason)
        return value

    @field_validator("tokens", mode="before")
    @classmethod
    def _gives_default_names(cls, value: object) -> object:
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
    """A token as an object with a name, from either of its two notations."""
    if isinstance(token, str | SecretStr):
        return {"token": token, "name": name}
    return {"name": name, **token} if isinstance(token, Mapping) else token


@dataclass(frozen=True, slots=True)
class BrokenServer:
    """A server that cannot be used: its entry is faulty or has an unresolved reference. The place is 0:0 if unknown."""

    name: str
    reason: str
    line: int = 0
    column: int = 0
    is_faulty: bool = False
    """Whether its entry has an error; otherwise only a reference in it is unresolved."""


class Settings(Value):
    """The whole configuration. `servers` are usable; `broken` are the others; both are in file order."""

    manifold: ManifoldSettings = ManifoldSettings()
    servers: tuple[ServerSettings, ...] = ()
    broken: tuple[BrokenServer, ...] = ()
    order: tuple[str, ...] = ()
    """The names of all servers in file order; empty if it is unknown."""
    source: str = "<dict>"
    problems: tuple[ConfigProblem, ...] = ()
    """Problems that do not prevent its use, in file order: warnings, and what breaks a server."""
    files: tuple[str, ...] = ()
    """All files it was made from, existing or not; a change of one is a reason to reload."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings among the problems, as text."""
        return tuple(str(problem) for problem in self.problems if problem.severity == "warning")
