"""The dialects of configuration files, as rows of one table, and the translation of their keys into our settings. Pure.

To add a dialect, add a row to `DIALECTS`. To add a key that sets something here, add a `Key` to the row.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel
from pydantic.alias_generators import to_snake

from mcp_manifold.config.settings import ServerSettings, transport_of

Loc = tuple[str | int, ...]
"""The path to a value: keys and indices from the root."""

OWN_KEYS: Final = tuple(str(found.alias) for name, found in ServerSettings.model_fields.items() if name != "name")
"""The keys of a server entry in our own notation."""
IGNORED: Final = "another client's key, ignored"
UNSUPPORTED: Final = "not supported; the server is used without it"
TRUTH: Final[Mapping[str, bool]] = MappingProxyType(
    {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
)


def _unchanged(value: object) -> object:
    return value


def _boolean(value: object) -> object:
    if isinstance(value, str) and "${" in value:
        return value  # the reference is unresolved or not expanded yet
    found = TRUTH.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError("expected true or false")
    return found


def _opposite(value: object) -> object:
    found = _boolean(value)
    return not found if isinstance(found, bool) else found


def _filter(value: object) -> object:
    if isinstance(value, Sequence) and not isinstance(value, str):  # Copilot's list; ["*"] offers all
        return {} if list(value) == ["*"] else {"allow": value}
    return value


def _http_or_sse(value: object) -> object:
    """VS Code's `http` is Streamable HTTP, or else SSE."""
    transport = transport_of(value)
    return "auto" if transport == "http" else transport


def _blocked(value: object) -> object:
    return {"block": value}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a server entry: the setting it sets, or a note on why it sets none."""

    name: str
    field: str = ""
    read: Callable[[object], object] = _unchanged
    """Converts the value; raises ValueError with the reason if it cannot."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Another client's configuration format; `keys` are those it spells differently."""

    name: str
    servers: tuple[str, ...]
    """The path of the object of servers, by which the dialect is detected."""
    keys: tuple[Key, ...]
    rows: Mapping[str, Key] = field(init=False, repr=False)
    """All keys of a server entry, ours and those of the dialect, by their names in snake_case."""

    def __post_init__(self) -> None:
        own = (Key(key, to_snake(key)) for key in OWN_KEYS)
        object.__setattr__(self, "rows", {to_snake(row.name): row for row in (*own, *self.keys)})


_SHARED: Final = (
    Key("type", "transport", transport_of),
    Key("transport", "transport", transport_of),
    Key("transportType", "transport", transport_of),
    Key("serverUrl", "url"),
    Key("disabled", "disabled", _boolean),
    Key("enabled", "disabled", _opposite),
    Key("tools", "tools", _filter),
    Key("disabledTools", "tools", _blocked),
    *(
        Key(name, note=IGNORED)
        for name in (
            "//",
            "$comment",
            "_comment",
            "alwaysAllow",
            "autoApprove",
            "comment",
            "description",
            "dev",
            "displayName",
            "gallery",
            "icon",
            "icons",
            "iconUrl",
            "id",
            "name",
            "sandbox",
            "sandboxEnabled",
            "tags",
            "trust",
            "version",
        )
    ),
    *(Key(name, note=UNSUPPORTED) for name in ("auth", "headersHelper", "oauth")),
)

_VS_CODE_TYPE: Final = Key("type", "transport", _http_or_sse)
DIALECTS: Final = (
    Dialect("common", ("mcpServers",), _SHARED),
    Dialect("vscode", ("servers",), (*_SHARED, _VS_CODE_TYPE)),
)
"""All dialects. A file is read in the first one whose path of servers it has."""

SERVER_KEYS: Final = tuple(dialect.servers[0] for dialect in DIALECTS)
ROOT_KEYS: Final = (*SERVER_KEYS, "manifold", "$schema")
SIGNS_OF_SECONDS: Final = frozenset({"always_allow", "auto_approve"})
"""Keys of clients (Cline, Roo Code) that write a server's `timeout` in seconds."""
STDIO_ONLY: Final = ("args", "env", "env_file", "inherit_env", "cwd")
HTTP_ONLY: Final = ("headers",)
_OTHER_NOTATIONS: Final = tuple(
    (name, re.compile(rf"(?:\s|#[^\n]*+\n)*+(?:{beginning})"))
    for name, beginning in (
        ("TOML", r"\[\[?[A-Za-z_][\w.\" -]*+\]|[\w.-]++[ \t]*+="),
        ("YAML", r"---|%YAML|[A-Za-z_][\w-]*+:(?:\s|$)"),
    )
)
"""How texts in other notations begin, after comments."""
_FIELDS: Final = MappingProxyType(
    {to_snake(key.name): key.field for dialect in DIALECTS for key in dialect.keys if key.field}
)


def other_notation(text: str) -> str:
    """The format, other than JSON, in which a text seems to be written; empty for none."""
    return next((name for name, beginning in _OTHER_NOTATIONS if beginning.match(text)), "")


def dialect_of(data: Mapping[str, object]) -> Dialect | None:
    """The dialect in which a file is written; None if the file has no servers."""
    return next((dialect for dialect in DIALECTS if dialect.servers[-1] in _parent(data, dialect)), None)


def servers_of(data: Mapping[str, object], dialect: Dialect) -> object:
    """The value that a file has as its object of servers; KeyError if it has none."""
    return _parent(data, dialect)[dialect.servers[-1]]


def _parent(data: Mapping[str, object], dialect: Dialect) -> Mapping[str, object]:
    for key in dialect.servers[:-1]:
        inner = data.get(key)
        data = inner if isinstance(inner, Mapping) else {}
    return data


def counts_seconds(servers: Mapping[str, object]) -> bool:
    """Whether the entries come from a client that writes a `timeout` in seconds."""
    return any(
        to_snake(key) in SIGNS_OF_SECONDS
        for written in servers.values()
        if isinstance(written, Mapping)
        for key in written
        if isinstance(key, str)
    )


def field_of(key: str) -> str:
    """The name in snake_case of the setting that a key sets, for any spelling in any dialect."""
    name = to_snake(key)
    return _FIELDS.get(name, name)


def suggestion(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`did you mean "x"?` for the nearest known word; empty if none is similar."""
    plain = {re.sub(r"[-_ ]", "", name).lower(): name for name in known}
    near = difflib.get_close_matches(re.sub(r"[-_ ]", "", word).lower(), plain, n=1, cutoff=cutoff)
    return f'did you mean "{plain[near[0]]}"?' if near else ""


def remedy_for(key: str, known: Iterable[str]) -> str:
    """The advice for an unknown key: the nearest known key, else all known keys."""
    known = sorted(known)
    return suggestion(key, known) or f"known are {', '.join(known)}"


class ServerEntry:
    """A server's entry, its keys replaced by the names of our settings; and the problems of its keys."""

    def __init__(self, written: Mapping[str, object], dialect: Dialect) -> None:
        self.data: dict[str, object] = {}
        """The values by setting. A key whose value is null counts as absent."""
        self.unknown: list[str] = []
        self.problems: list[tuple[str, str]] = []
        """Keys with values that cannot be converted, or that contradict another key; with the reason."""
        self.notes: list[tuple[str, str]] = []
        """Keys without effect, with the reason."""
        self._keys: dict[str, str] = {}
        for key, value in written.items():
            row = dialect.rows.get(to_snake(key))
            if row is None:
                self.unknown.append(key)
            elif row.note:
                self.notes.append((key, row.note))
            elif value is not None:
                self._set(row, key, value)
        self.notes += self._without_effect()

    def __repr__(self) -> str:
        return f"<ServerEntry {', '.join(self._keys.values())}>"

    @property
    def is_sound(self) -> bool:
        """Whether all keys are known, and no two contradict each other."""
        return not self.unknown and not self.problems

    def _set(self, row: Key, key: str, written: object) -> None:
        """Set one setting, which may be written in two spellings."""
        try:
            value = row.read(written)
        except ValueError as exc:
            self.problems.append((key, str(exc)))
            return
        first, old = self._keys.setdefault(row.field, key), self.data.get(row.field)
        if first == key or (old == value and row.field != "tools"):
            self.data[row.field] = value
        elif row.field != "tools" or not isinstance(value, Mapping):
            self.problems.append((key, f'contradicts "{first}"'))
        elif isinstance(old, Mapping):  # anything else is reported by validation
            self.data[row.field] = _joined_filters(old, value)

    def _without_effect(self) -> Iterator[tuple[str, str]]:
        names, kind = (HTTP_ONLY, "command") if self.data.get("command") else (STDIO_ONLY, "url")
        for name in names:
            if self.data.get(name):
                yield self._keys[name], f'no effect on a server with "{kind}"'


def server_keys(dialect: Dialect) -> tuple[str, ...]:
    """All keys that set something in a server's entry."""
    return tuple(dict.fromkeys((*OWN_KEYS, *(row.name for row in dialect.keys if row.field))))


def by_field(written: Mapping[str, object], model: type[BaseModel], twice: Callable[[Loc], None]) -> dict[str, object]:
    """An object with its keys replaced by the field names of `model` and nested models. Unknown keys stay.

    `twice` gets the path of each key that sets a field a second time, in another spelling.
    """
    names = {str(found.alias): name for name, found in model.model_fields.items()}
    out: dict[str, object] = {}
    for key, value in written.items():
        name = names.get(key, key)
        if name in out:
            twice((key,))
            continue
        inner = model.model_fields[name].annotation if name in model.model_fields else None
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
            out[name] = by_field(value, inner, partial(_nested, twice, key))
        else:
            out[name] = value
    return out


def _nested(twice: Callable[[Loc], None], key: str, loc: Loc) -> None:
    twice((key, *loc))


def misplaced_servers(data: Mapping[str, object]) -> Iterator[str]:
    """The top-level keys whose values look like server entries, in a file without `mcpServers`."""
    for key, value in data.items():
        if key not in ROOT_KEYS and isinstance(value, Mapping) and ("command" in value or "url" in value):
            yield key


def _joined_filters(old: Mapping[str, object], new: Mapping[str, object]) -> object:
    blocks = [part["block"] for part in (old, new) if "block" in part]
    wrong = [block for block in blocks if not isinstance(block, list | tuple)]
    if wrong:
        return {**old, **new, "block": wrong[0]}  # validation reports it
    together = [pattern for block in blocks if isinstance(block, list | tuple) for pattern in block]
    return {**old, **new, "block": together}
