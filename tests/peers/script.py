"""What a scripted backend offers and how it behaves: values that survive a command line. Runs nothing."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.peers import jsontext
from tests.peers.message import HANDSHAKE_VERSIONS

if TYPE_CHECKING:
    from tests.peers.turn import Turn


@dataclass(frozen=True, slots=True)
class Act:
    """One named behaviour (the names are the functions of `acts.py`).

    `text` is written out as UTF-8 with surrogate escapes: "\\udcff" is the byte 0xFF. In texts that are messages,
    `$ID`, `$TOKEN`, `$ARGS`, `$TEXT`, `$NAME` stand for raw slices of the request. `then` gives the reply of acts that
    only do something first.
    """

    do: str = "echo"
    text: str = ""
    n: int = 1
    then: "Act | None" = None


Behaviour = Act | Callable[["Turn"], Awaitable[None]]
"""A named act, or (not over a command line) a function that answers the turn itself."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool, resource, template or prompt: its definition verbatim, and what happens when it is used."""

    definition: str
    act: Behaviour = Act()

    def key(self) -> str:
        """What it is asked for by: its uriTemplate, uri or name, whichever comes first in that order."""
        found = dict(jsontext.walk(self.definition.encode()))
        return str(jsontext.value(found.get("uriTemplate") or found.get("uri") or found["name"]))


def tool(name: str, act: Behaviour = Act(), **members: object) -> Offer:
    """A plain tool that takes an object; `members` are added to its definition."""
    return _offer({"name": name, "inputSchema": {"type": "object"}, **members}, act)


def resource(uri: str, act: Behaviour = Act(), **members: object) -> Offer:
    """A plain resource."""
    return _offer({"uri": uri, "name": uri.rsplit("/", 1)[-1] or uri, **members}, act)


def template(uri_template: str, act: Behaviour = Act(), **members: object) -> Offer:
    """A plain resource template."""
    return _offer({"uriTemplate": uri_template, "name": "template", **members}, act)


def prompt(name: str, act: Behaviour = Act(), **members: object) -> Offer:
    """A plain prompt."""
    return _offer({"name": name, **members}, act)


def _offer(definition: dict[str, object], act: Behaviour) -> Offer:
    return Offer(jsontext.text(definition).decode(), act)


@dataclass(frozen=True, slots=True)
class Script:
    """Everything about one scripted backend. Texts are raw JSON, written out as they are."""

    name: str = "fake"
    era: Literal["handshake", "modern", "both"] = "both"
    versions: tuple[str, ...] = HANDSHAKE_VERSIONS
    tools: tuple[Offer, ...] = ()
    resources: tuple[Offer, ...] = ()
    templates: tuple[Offer, ...] = ()
    prompts: tuple[Offer, ...] = ()
    capabilities: str = ""
    """Raw object; empty: whatever the offers need, with logging and completions."""
    server_info: str = ""
    instructions: str | None = None
    initialize_members: str = ""
    """Raw members added to the initialize and discover results."""
    hints: str = '"ttlMs":0,"cacheScope":"private"'
    on: Mapping[str, Behaviour] = field(default_factory=dict)
    """Method (request or notification) to what is done instead of the ordinary answer; `Act("default")` is that."""
    require_initialize: bool = True
    records: bool = True
    """Keep everything received; off for runs of hours."""
    # HTTP only
    sessions: bool = True
    replies: Literal["json", "sse", "deferred"] = "deferred"
    get_stream: bool = True
    # stdio only
    exit_code: int | None = None
    """Exit at once with this code, before reading anything."""
    ignore_eof: bool = False
    ignore_sigterm: bool = False
    banner: str = ""
    """Written to stdout, as it is, before anything else."""
    stderr: str = ""
    """Written to stderr before anything else."""

    def to_json(self) -> str:
        """The script as text for a child process.

        Raises:
            TypeError: a behaviour is a function.
        """
        return json.dumps({each.name: _plain(getattr(self, each.name)) for each in fields(self)})


def from_json(source: str) -> Script:
    """The script a text describes."""
    found: dict[str, Any] = json.loads(source)
    for kind in ("tools", "resources", "templates", "prompts"):
        found[kind] = offers_from(found.get(kind, ()))
    found["versions"] = tuple(found["versions"])
    found["on"] = {method: _act(act) for method, act in found.get("on", {}).items()}
    return Script(**found)


def offers_to(offers: "tuple[Offer, ...] | list[Offer]") -> list[object]:
    """Offers as plain values."""
    return [_plain(offer) for offer in offers]


def offers_from(plain: "list[dict[str, Any]] | tuple[()]") -> tuple[Offer, ...]:
    """Offers from plain values; a missing act is the echo."""
    return tuple(Offer(each["definition"], _act(each.get("act", {}))) for each in plain)


def _plain(thing: object) -> object:
    if isinstance(thing, Act):
        return {"do": thing.do, "text": thing.text, "n": thing.n, "then": _plain(thing.then)}
    if isinstance(thing, Offer):
        return {"definition": thing.definition, "act": _plain(thing.act)}
    if isinstance(thing, tuple):
        return [_plain(each) for each in thing]
    if isinstance(thing, Mapping):
        return {key: _plain(each) for key, each in thing.items()}
    if callable(thing):
        raise TypeError("a function cannot be sent to a child process: use a named act")
    return thing


def _act(plain: dict[str, Any]) -> Act:
    then = plain.get("then")
    return Act(**{**plain, "then": _act(then) if then else None})


# --- ready-made scripts -----------------------------------------------------------------------------------------------


def echo() -> Script:
    """One tool that echoes."""
    return Script(name="echo", tools=(tool("echo"),))


def everything() -> Script:
    """A tool for most acts, two resources, a template and two prompts."""
    strange = ("garbage", "invalid_utf8", "wrong_id", "duplicate", "string_id", "float_id", "null_result", "no_result")
    plain = ("echo", "mirror", "hang", "late", "die", "cut", "stderr", "pid", "error", "ask", "insist")
    return Script(
        name="everything",
        instructions="Use echo to hear yourself.",
        tools=(
            *(tool(name, Act(name)) for name in (*plain, *strange)),
            tool("progress", Act("progress", n=3)),
            tool("log", Act("log", n=2)),
            tool("big", Act("big", n=1_000_000)),
        ),
        resources=(resource("file:///notes.txt"), resource("https://example.test/a%20b?q=1")),
        templates=(template("db://{table}/{row}"),),
        prompts=(prompt("greet", arguments=[{"name": "who", "required": True}]), prompt("plain")),
    )


def stubborn() -> Script:
    """Ends neither with stdin nor on SIGTERM."""
    return Script(name="stubborn", ignore_eof=True, ignore_sigterm=True, tools=(tool("echo"), tool("pid", Act("pid"))))


def stuck() -> Script:
    """Never answers `initialize` nor `server/discover` (until the gate `start` opens)."""
    start = Act("hang", text="start", then=Act("default"))
    return Script(name="stuck", on={"initialize": start, "server/discover": start}, tools=(tool("echo"),))


SCRIPTS: Final[Mapping[str, Callable[[], Script]]] = MappingProxyType(
    {make.__name__: make for make in (echo, everything, stubborn, stuck)}
)


def named(name: str) -> Script:
    """The script of that name.

    Raises:
        KeyError: there is none.
    """
    return SCRIPTS[name]()
