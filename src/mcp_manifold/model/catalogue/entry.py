"""The values a catalogue is merged from (Listing, Terms, Rules) and made of (Entry, ResourceRoute, Change)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

Uris = Literal["auto", "prefix", "verbatim"]


class Kind(StrEnum):
    """What an entry is."""

    TOOL = "tool"
    PROMPT = "prompt"
    RESOURCE = "resource"
    TEMPLATE = "template"


class Change(StrEnum):
    """A part of the catalogue that differs now. Templates change as resources do: the protocol has one notice."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"


NAMED_KINDS: Final = (Kind.TOOL, Kind.PROMPT)
"""The kinds clients address by name; the others are addressed by URI."""

CHANGE_OF: Final[Mapping[Kind, Change]] = {
    Kind.TOOL: Change.TOOLS,
    Kind.PROMPT: Change.PROMPTS,
    Kind.RESOURCE: Change.RESOURCES,
    Kind.TEMPLATE: Change.RESOURCES,
}


@dataclass(frozen=True, slots=True)
class Hint:
    """How long an answer may be kept, from `at` on (seconds of the loop's clock), and whether by everybody."""

    ttl_ms: int
    is_public: bool
    at: float


@dataclass(frozen=True, slots=True)
class Listing:
    """What one backend offers, each item one JSON object exactly as the backend sent it."""

    backend: str
    revision: int
    era: Literal["handshake", "modern"]
    tools: tuple[bytes, ...] = ()
    prompts: tuple[bytes, ...] = ()
    resources: tuple[bytes, ...] = ()
    templates: tuple[bytes, ...] = ()
    capabilities: bytes = b"{}"
    instructions: str = ""
    server_info: bytes = b"{}"
    hints: Mapping[str, Hint] = field(default_factory=dict)
    """By list method, and `server/discover`: how long the backend's answer may be kept, where it said so."""

    def items(self, kind: Kind) -> tuple[bytes, ...]:
        """The items of one kind."""
        match kind:
            case Kind.TOOL:
                return self.tools
            case Kind.PROMPT:
                return self.prompts
            case Kind.RESOURCE:
                return self.resources
            case Kind.TEMPLATE:
                return self.templates


@dataclass(frozen=True, slots=True)
class Override:
    """What the user wants one entry to say instead; `name` stands for the native name, so a prefix still applies."""

    name: str | None = None
    title: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How one backend is presented. Overrides are keyed by kind and native name, URI or URI template."""

    prefix: str
    uris: Uris = "auto"
    overrides: Mapping[tuple[Kind, str], Override] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every public name."""

    separator: str = "__"
    budget: int = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One public item.

    `key` is what clients address it by (name, URI or URI template), `native` what its backend does, `native_json`
    the same as JSON text. `raw` is the public payload: the backend's, with the names and URIs replaced.
    `annotations` holds the hints the backend stated (hint, value), and only those.
    """

    kind: Kind
    key: str
    name: str
    backend: str
    native: str
    native_name: str
    native_json: bytes
    raw: bytes
    title: str = ""
    annotations: frozenset[tuple[str, bool]] = frozenset()
    input_schema_has_headers: bool = False


@dataclass(frozen=True, slots=True)
class ResourceRoute:
    """Where a resource is read: the backend, and the URI as that backend knows it."""

    backend: str
    uri: str
