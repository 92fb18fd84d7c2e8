"""The values a catalogue is merged from (Listing, Terms, Rules) and made of (Entry, ResourceRoute, Change)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

Uris = Literal["auto", "prefix", "verbatim"]


class Kind(StrEnum):
    """The kind of an entry."""

    TOOL = "tool"
    PROMPT = "prompt"
    RESOURCE = "resource"
    TEMPLATE = "template"


class Change(StrEnum):
    """A part of the catalogue that changed. Templates count as resources, which share their notification."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"


NAMED_KINDS: Final = (Kind.TOOL, Kind.PROMPT)
"""The kinds that clients address by name; the others are addressed by URI."""

CHANGE_OF: Final[Mapping[Kind, Change]] = {
    Kind.TOOL: Change.TOOLS,
    Kind.PROMPT: Change.PROMPTS,
    Kind.RESOURCE: Change.RESOURCES,
    Kind.TEMPLATE: Change.RESOURCES,
}


@dataclass(frozen=True, slots=True)
class Hint:
    """A cache hint: milliseconds to live since `at` (loop time, seconds), and whether clients may share the result."""

    ttl_ms: int
    is_public: bool
    at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """An invalid item of a list: its native name or URI (else `#` and its number), and the reason."""

    kind: Kind
    backend: str
    item: str
    reason: str
    is_left_out: bool
    """Whether it cannot be used; otherwise it was repaired."""

    def __str__(self) -> str:
        outcome = "left out" if self.is_left_out else "repaired"
        return f"{self.kind} {self.item!r} of {self.backend}: {outcome} ({self.reason})"

    def to_dict(self) -> dict[str, str]:
        """The JSON object for clients: `server`, `item`, `reason`, and `outcome` (`repaired` or `left out`)."""
        outcome = "left out" if self.is_left_out else "repaired"
        return {"server": self.backend, "item": self.item, "reason": self.reason, "outcome": outcome}


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of one backend, each the JSON object that the backend sent, unchanged unless it was invalid."""

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
    """Cache hints that the backend gave, by list method and for `server/discover`."""
    faults: tuple[Fault, ...] = ()
    """Items that were invalid; of each list only the first few."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what it offers."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """List methods that failed, and why: their items are those of an earlier listing, or none."""

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
    """The user's changes to one entry. `name` replaces the native name, so the prefix still applies."""

    name: str | None = None
    title: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The prefix and overrides for one backend's entries. Overrides are keyed by kind, and native name or URI."""

    prefix: str
    uris: Uris = "auto"
    overrides: Mapping[tuple[Kind, str], Override] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for all public names: the separator, and the longest name in characters."""

    separator: str = "__"
    budget: int = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One public item.

    Clients address it by `key` (name, URI or URI template), its backend by `native`; `native_json` is that as JSON
    text. `raw` is the public payload: the backend's, with names and URIs replaced. `annotations` holds the hints that
    the backend stated, as (hint, value).
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
    """Where a resource is read: the backend, and the URI in that backend's spelling."""

    backend: str
    uri: str
