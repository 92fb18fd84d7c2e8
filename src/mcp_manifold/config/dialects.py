"""What other clients write in their files, in our own terms. Pure; knows no place in a file, reads few values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from mcp_manifold.config.document import did_you_mean, field_of
from mcp_manifold.config.server import ServerSettings, transport_of
from mcp_manifold.config.spans import Loc

SERVER_KEYS: Final = ("mcpServers", "servers")
"""Where the servers are: everybody's key, and VS Code's."""

ROOT_KEYS: Final = ("mcpServers", "servers", "manifold", "$schema")

MEANINGLESS: Final = frozenset(
    {
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
    }
)
"""Keys of other clients that do not concern how a server is reached or what of it is offered."""

UNSUPPORTED: Final = frozenset({"auth", "headersHelper", "oauth"})
"""Keys of other clients that do concern it, and that we cannot honour: said aloud, but no reason to stop."""

STDIO_ONLY: Final = ("args", "env", "env_file", "cwd")
HTTP_ONLY: Final = ("headers",)
WRITABLE: Final = tuple(name for name in ServerSettings.model_fields if name != "name")
SPELLED: Final = (
    *(str(ServerSettings.model_fields[name].alias) for name in WRITABLE),
    *("type", "transportType", "serverUrl", "enabled", "disabledTools"),
)
TRUTH: Final = (
    ("true", True),
    ("1", True),
    ("yes", True),
    ("on", True),
    ("false", False),
    ("0", False),
    ("no", False),
    ("off", False),
)


class Misfit(Exception):
    """A key that does not belong; `key` is the one to point at, in the object at `within`."""

    def __init__(self, key: str, reason: str, within: Loc = ()) -> None:
        super().__init__(key, reason, within)
        self.key = key
        self.reason = reason
        self.within = within


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """A server entry by the names of our settings, and what to say about keys that were left out."""

    data: dict[str, object] = field(repr=False)
    notes: tuple[tuple[str, str], ...] = ()


def unknown(key: str, known: Iterable[str]) -> str:
    """What to say of a key nobody knows."""
    return f'unknown key "{key}"' + (did_you_mean(key, known) or f"; known are {', '.join(sorted(known))}")


def settle(written: Mapping[str, object]) -> ServerEntry:
    """The entry of one server in our own terms. A key that is null counts as not written.

    Raises:
        Misfit: a key is unknown, or contradicts another.
    """
    out: dict[str, object] = {}
    first: dict[str, str] = {}
    notes: list[tuple[str, str]] = []
    for key, value in written.items():
        note = _foreign(key)
        if note:
            notes.append((key, note))
        elif value is not None:
            name = _known(key)
            out[name] = _joined(name, (first.get(name), out.get(name)), (key, _translated(key, value)))
            first[name] = key
        else:
            _known(key)
    notes.extend(_idle(out, first))
    return ServerEntry(out, tuple(notes))


def by_name(written: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """The object by the names of `model`'s fields, nested models included; unknown keys stay.

    Raises:
        Misfit: one setting is written in two spellings.
    """
    names = {str(found.alias): name for name, found in model.model_fields.items()}
    out: dict[str, object] = {}
    for key, value in written.items():
        name = names.get(key, key)
        if name in out:
            raise Misfit(key, "the setting is given twice, in two spellings")
        out[name] = _inner_by_name(name, value, model)
    return out


def _inner_by_name(name: str, value: object, model: type[BaseModel]) -> object:
    inner = model.model_fields[name].annotation if name in model.model_fields else None
    if not (isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping)):
        return value
    try:
        return by_name(value, inner)
    except Misfit as exc:
        raise Misfit(exc.key, exc.reason, (name, *exc.within)) from None


def misplaced_servers(data: Mapping[str, object]) -> str:
    """The key of what looks like a server beside, instead of below, `mcpServers`; empty if there is none."""
    for key, value in data.items():
        if key not in ROOT_KEYS and isinstance(value, Mapping) and ("command" in value or "url" in value):
            return key
    return ""


def near_root_key(key: str) -> str:
    """`; did you mean ...` if a top-level key is one of ours misspelled, and not another program's."""
    return did_you_mean(key, ROOT_KEYS, cutoff=0.85)


def _foreign(key: str) -> str:
    if key in MEANINGLESS:
        return f'"{key}" has no meaning here and is ignored'
    if key in UNSUPPORTED:
        return f'"{key}" is not supported: the server is used without it'
    return ""


def _known(key: str) -> str:
    name = field_of(key)
    if name not in WRITABLE:
        raise Misfit(key, unknown(key, SPELLED))
    return name


def _translated(key: str, value: object) -> object:
    """A value of another client's key in our own terms."""
    name = field_of(key)
    if name == "transport":
        return transport_of(value)
    if name == "disabled":
        return _is_disabled(key, value)
    if field_of(key) == "tools":
        return _tools(key, value)
    return value


def _is_disabled(key: str, value: object) -> object:
    if isinstance(value, str) and "${" in value:
        return value  # judged again once it is expanded
    said = dict(TRUTH).get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(said, bool):
        raise Misfit(key, "expected true or false")
    return said if key == "disabled" else not said


def _tools(key: str, value: object) -> object:
    if key != "tools":
        return {"block": value}
    if isinstance(value, Sequence) and not isinstance(value, str):  # Copilot's list; ["*"] is all of them
        return {} if list(value) == ["*"] else {"allow": value}
    return value


def _joined(name: str, before: tuple[str | None, object], now: tuple[str, object]) -> object:
    """What two spellings of one setting say together."""
    (first, old), (key, new) = before, now
    if first is None or (old == new and name != "tools"):
        return new
    if name == "tools" and isinstance(old, Mapping) and isinstance(new, Mapping):
        return _joined_tools(old, new)
    raise Misfit(key, f'contradicts "{first}"')


def _joined_tools(old: Mapping[str, object], new: Mapping[str, object]) -> object:
    blocks = [part["block"] for part in (old, new) if "block" in part]
    wrong = [block for block in blocks if not isinstance(block, list | tuple)]
    if wrong:
        return {**old, **new, "block": wrong[0]}  # validation says what is wrong with it
    together = [pattern for block in blocks if isinstance(block, list | tuple) for pattern in block]
    return {**old, **new, "block": together}


def _idle(data: Mapping[str, object], spelled: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Notes on settings of the other kind of server."""
    names, kind = (HTTP_ONLY, "a program that is started") if data.get("command") else (STDIO_ONLY, "an address")
    return [
        (spelled[name], f'"{spelled[name]}" has no effect: the server is {kind}') for name in names if data.get(name)
    ]
