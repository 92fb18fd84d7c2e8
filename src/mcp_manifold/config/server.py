"""The settings of one server, as values. Knows no file, no other server, no dialect but how a transport is spelled."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from mcp_manifold.config.values import (
    Count,
    CountOrNone,
    Duration,
    DurationOrNone,
    HeaderValue,
    Name,
    Secret,
    Size,
    Text,
    Value,
)

RESERVED: Final = ("mcp", "sse", "messages", "health", "groups", "metrics", "_healthz", "_readyz")
"""The paths of our own endpoints: `/<server>/mcp` could not be told from them."""

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Transport = Literal["stdio", "http", "sse", "auto"]


def misfit(key: str, reason: str) -> PydanticCustomError:
    """The combination of keys is wrong; `key` is the one to point at."""
    return PydanticCustomError("misfit", "{reason}", {"key": key, "reason": reason})


def transport_of(spelling: object) -> object:
    """The one name of a transport that clients spell in many ways; anything else as it is."""
    if not isinstance(spelling, str):
        return spelling
    plain = spelling.strip().lower().replace("-", "").replace("_", "")
    return "http" if plain in ("http", "streamable", "streamablehttp") else spelling.strip().lower()


class FilterSettings(Value):
    """What of one kind is offered. `allow` first, then `block` takes away."""

    allow: tuple[str, ...] | None = None
    """Patterns of what is offered; without it everything is, with an empty list nothing."""
    block: tuple[str, ...] = ()
    """Patterns of what is not offered, whatever `allow` says."""


class OverrideSettings(Value):
    """What one item is called and said to be, instead of what its server says, and how long it may take."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: str | None = Field(default=None, min_length=1)
    """The name to show, still behind the server's prefix."""
    title: str | None = None
    """The title to show."""
    description: str | None = None
    """The description to show."""
    timeout: Duration | None = None
    """The server's `timeout` for this one."""
    max_timeout: DurationOrNone | None = None
    """The server's `maxTimeout` for this one."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError('expected at least one of "name", "title", "description", "timeout" and "maxTimeout"')
        return self


class OverridesSettings(Value):
    """Other names and descriptions, by the name the server itself uses."""

    tools: dict[str, OverrideSettings] = Field(default_factory=dict)
    """By the server's own name of the tool."""
    prompts: dict[str, OverrideSettings] = Field(default_factory=dict)
    """By the server's own name of the prompt."""
    resources: dict[str, OverrideSettings] = Field(default_factory=dict)
    """By the URI of the resource, or the URI template."""


class RlimitSettings(Value):
    """What each process of a program may use at most, as the operating system counts. Without one: what we may."""

    memory: Size | None = None
    """Data in memory: bytes, or a text such as "512MB"."""
    files: Count | None = None
    """Files and connections open at the same time."""
    cpu: Count | None = None
    """Seconds of processor time in its whole life, after which it is killed."""


class BreakerSettings(Value):
    """When calls to a server that can be reached, but answers none, are refused at once instead of waiting."""

    failures: CountOrNone = 5
    """Calls in a row without an answer after which it is not called any more; 0 for never."""
    wait: Duration = 5.0
    """How long until one call is let through again; twice as long each time in vain, up to 16 times."""


class ServerSettings(Value):
    """One MCP server: how it is reached, what of it is offered, how it is treated."""

    name: Name
    """The key of the entry."""
    transport: Annotated[Transport, BeforeValidator(transport_of)] = "auto"
    """How it is spoken to. Without it: `command` means stdio, `url` means Streamable HTTP, then SSE."""
    command: Text = ""
    """The program to start (stdio)."""
    args: tuple[Text, ...] = Field(default=(), repr=False)
    """Its arguments."""
    env: dict[str, Secret] = Field(default_factory=dict)
    """Environment variables of the program, beside the few it inherits."""
    cwd: Text | None = None
    """The directory it is started in."""
    env_file: Text | None = None
    """A file of `NAME=value` lines with more variables for the program; `env` wins. Relative to this file."""
    rlimits: RlimitSettings = RlimitSettings()
    """What each process of the program may use at most (not on Windows)."""
    url: str = Field(default="", repr=False)
    """The address of a server reached over HTTP."""
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    """HTTP headers sent with every request to it."""
    timeout: Duration = 60.0
    """How long one request may take, its wait in the queue included; progress starts it anew."""
    max_timeout: DurationOrNone = 3600.0
    """How long one request may take in all, whatever progress it reports; 0 for no bound."""
    connect_timeout: Duration = 10.0
    """How long opening a connection to an address may take."""
    initialize_timeout: Duration = 60.0
    """How long it may take to greet, once it is started or connected to."""
    list_timeout: Duration | None = None
    """How long fetching its lists may take; without it `listTimeout` of `manifold`."""
    sse_read_timeout: Duration = 300.0
    """How long an event stream may be silent before it counts as lost."""
    ping_interval: DurationOrNone = 30.0
    """How long it may be silent before it is asked whether it still answers; 0 for never."""
    start: Literal["eager", "lazy"] | None = None
    """When it is connected to: at once, or when a call needs it. Without it, as `manifold` says."""
    idle_timeout: DurationOrNone | None = None
    """How long nobody may use it before it is stopped, or its connection closed; 0 for never. Without it, as `manifold`
    says. What it offers stays listed, and the next call starts it."""
    keep_alive: bool = False
    """Once it is started, keep it running: it is never stopped for being idle, and started again when it is lost."""
    breaker: BreakerSettings = BreakerSettings()
    """When it is spared calls because it answers none."""
    max_concurrency: Count = 1000
    """Requests of clients it is sent at the same time."""
    max_queue: CountOrNone = 1000
    """Requests of clients that wait for that; with more, it is overloaded. 0: none waits."""
    retry: Literal["never", "safe", "idempotent"] = "safe"
    """Which failed requests are sent once more: those it never got and reads, or also tools that say they bear it."""
    required: bool = False
    """Whether the whole is not ready without it, for `/_readyz`."""
    disabled: bool = False
    """Keep the entry, but do not use the server."""
    prefix: str | None = Field(default=None, max_length=64)
    """What the names of its items begin with, instead of the server's name; "" for nothing."""
    tools: FilterSettings = FilterSettings()
    """Which of its tools are offered."""
    prompts: FilterSettings = FilterSettings()
    """Which of its prompts are offered."""
    resources: FilterSettings = FilterSettings()
    """Which of its resources and resource templates are offered, by URI."""
    overrides: OverridesSettings = OverridesSettings()
    """Other names, titles and descriptions for single items."""
    isolation: Literal["auto", "shared", "client"] = "auto"
    """Whether clients share one connection to it or get one each."""
    era: Literal["auto", "handshake", "modern"] = "auto"
    """Which generation of the protocol it is spoken to in."""
    uris: Literal["auto", "prefix", "verbatim"] = "auto"
    """Whether its resource URIs are changed: only where two servers claim one, always, or never."""

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
            raise misfit("url", 'expected either "command" (a program to start) or "url" (an address), not both')
        if not self.command and not self.url:
            raise ValueError('expected either "command" (a program to start) or "url" (an address)')
        if self.transport == "stdio" and self.url:
            raise misfit("transport", 'transport "stdio" needs "command", but the server has "url"')
        if self.transport in ("http", "sse") and self.command:
            raise misfit("transport", f'transport "{self.transport}" needs "url", but the server has "command"')
        return self

    @field_validator("name")
    @classmethod
    def _has_its_own_path(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f'"{value}" cannot name a server: /{value} is an endpoint of its own')
        return value

    @field_validator("url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if value and (not sound or re.search(r"[\s\0]", value)):
            raise ValueError("expected an address beginning with http:// or https://")
        return value

    @field_validator("env")
    @classmethod
    def _are_variables(cls, value: dict[str, Secret]) -> dict[str, Secret]:
        for name in value:
            if not name or re.search(r"[=\0]", name):
                raise misfit(name, 'expected the name of an environment variable, without "="')
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, HeaderValue]) -> dict[str, HeaderValue]:
        seen: set[str] = set()
        for name in value:
            if not HEADER_NAME.fullmatch(name):
                raise misfit(name, "expected the name of an HTTP header")
            if name.lower() in seen:
                raise misfit(name, "the header is given twice (upper and lower case are the same)")
            seen.add(name.lower())
        return value
