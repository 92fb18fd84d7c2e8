"""Invalid items of a backend's lists: repaired where that keeps their meaning, else left out. Pure.

Both official SDKs reject a whole list for one invalid item, so an item must satisfy both. A valid item is recognised in
one decoding and stays as received. Of an invalid one only the affected members are written anew.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from mcp_manifold.model.catalogue.entry import Fault, Kind
from mcp_manifold.model.catalogue.output_schema import is_usable_output_schema
from mcp_manifold.model.catalogue.payload import Members, parse_object
from mcp_manifold.wire import (
    EMPTY,
    NULL_ID,
    Payload,
    encode,
    first_byte,
    has_odd_key,
    object_members,
    text_at,
    without_lone_surrogates,
)

_SHOWN: Final = 60
_MAX_DEPTH: Final = 150
"""Of objects and lists in an item: the parser of the Python SDK refuses 200 in a message."""
_MAX_DIGITS: Final = 4_300
"""Of a number: the same parser refuses more."""
_TEXTS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG_NUMBER: Final = re.compile(rb"[0-9]{%d}" % (_MAX_DIGITS + 1))
_UNSET: Final = msgspec.UNSET
_TIME: Final = (  # the pattern of the TypeScript SDK's `z.iso.datetime({offset: true})`
    r"^(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29"
    r"|\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8])))T(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$"
)

_Text = str | msgspec.UnsetType
_Flag = bool | msgspec.UnsetType
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Uri = Annotated[str, msgspec.Meta(pattern=r"^\s*[A-Za-z][A-Za-z0-9+.-]*:")]  # Python SDK 1 rejects others
_Size = int | Annotated[float, msgspec.Meta(multiple_of=1, ge=-(2.0**63), lt=2.0**63)]
_Priority = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Moment = Annotated[str, msgspec.Meta(pattern=_TIME)]
_Roles = list[Literal["user", "assistant"]]
_Theme = Literal["light", "dark"]
_TaskSupport = Literal["required", "optional", "forbidden"]


class _Object(msgspec.Struct):
    """Any object."""


class _Schema(msgspec.Struct):
    type: Literal["object"] | msgspec.UnsetType = _UNSET
    properties: dict[str, _Object] | msgspec.UnsetType = _UNSET
    required: list[str] | msgspec.UnsetType = _UNSET
    dialect: _Text = msgspec.field(name="$schema", default=_UNSET)


class _InputSchema(_Schema):
    type: Literal["object"]


class _Icon(msgspec.Struct):
    src: str
    mime: _Text = msgspec.field(name="mimeType", default=_UNSET)
    sizes: list[str] | msgspec.UnsetType = _UNSET
    theme: _Theme | msgspec.UnsetType = _UNSET


class _Hints(msgspec.Struct, rename="camel"):
    title: _Text = _UNSET
    read_only_hint: _Flag = _UNSET
    destructive_hint: _Flag = _UNSET
    idempotent_hint: _Flag = _UNSET
    open_world_hint: _Flag = _UNSET


class _Annotations(msgspec.Struct, rename="camel"):
    audience: _Roles | msgspec.UnsetType = _UNSET
    priority: _Priority | msgspec.UnsetType = _UNSET
    last_modified: _Moment | msgspec.UnsetType = _UNSET


class _Execution(msgspec.Struct, rename="camel"):
    task_support: _TaskSupport | msgspec.UnsetType = _UNSET


class _Argument(msgspec.Struct):
    name: str
    title: _Text = _UNSET
    description: _Text = _UNSET
    required: _Flag = _UNSET


class _Item(msgspec.Struct):
    name: _Name
    title: _Text = _UNSET
    description: _Text = _UNSET
    icons: list[_Icon] | msgspec.UnsetType = _UNSET
    meta: _Object | msgspec.UnsetType = msgspec.field(name="_meta", default=_UNSET)


class _Tool(_Item, kw_only=True, rename="camel"):
    input_schema: _InputSchema
    output_schema: Payload | msgspec.UnsetType = _UNSET
    annotations: _Hints | msgspec.UnsetType = _UNSET
    execution: _Execution | msgspec.UnsetType = _UNSET
    meta: _Object | msgspec.UnsetType = msgspec.field(name="_meta", default=_UNSET)


class _Prompt(_Item, kw_only=True):
    arguments: list[_Argument] | msgspec.UnsetType = _UNSET


class _Document(_Item, kw_only=True):
    mime: _Text = msgspec.field(name="mimeType", default=_UNSET)
    annotations: _Annotations | msgspec.UnsetType = _UNSET


class _Resource(_Document, kw_only=True):
    uri: _Uri
    size: _Size | msgspec.UnsetType = _UNSET


class _Template(_Document, kw_only=True):
    uri: _Name = msgspec.field(name="uriTemplate")


def _reader(type_: Any) -> Callable[[bytes | Payload], object]:
    return msgspec.json.Decoder(type_).decode


_VALID: Final = {
    Kind.TOOL: _reader(_Tool),
    Kind.PROMPT: _reader(_Prompt),
    Kind.RESOURCE: _reader(_Resource),
    Kind.TEMPLATE: _reader(_Template),
}
_KEYS: Final = {Kind.TOOL: "name", Kind.PROMPT: "name", Kind.RESOURCE: "uri", Kind.TEMPLATE: "uriTemplate"}


def repair(kind: Kind, backend: str, raw: bytes, place: int) -> tuple[bytes | None, Fault | None]:
    """An item of a list, as received or repaired, and its fault if it has one. The item is None if left out."""
    try:
        if not raw.isascii():
            raw.decode()
        _validate(kind, raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _repaired(kind, backend, raw, place)
    return raw, None


def _validate(kind: Kind, raw: bytes) -> None:
    """Check an item.

    Raises:
        msgspec.DecodeError: an SDK would reject a list with it.
    """
    item = _VALID[kind](raw)
    schema = item.output_schema if isinstance(item, _Tool) else _UNSET
    if schema is not _UNSET and not is_usable_output_schema(schema):
        raise msgspec.ValidationError("outputSchema")
    if _is_beyond_parsers(raw):
        raise msgspec.ValidationError("it is nested too deeply, or has too long a number")


def _is_beyond_parsers(raw: bytes) -> bool:
    if len(raw) > _MAX_DIGITS and _LONG_NUMBER.search(raw) and _LONG_NUMBER.search(_TEXTS.sub(b"", raw)):
        return True
    if raw.count(b"{") + raw.count(b"[") <= _MAX_DEPTH:
        return False
    depth = 0
    for mark in _TEXTS.sub(b"", raw):
        if mark in b"{[":
            depth += 1
            if depth > _MAX_DEPTH:
                return True
        elif mark in b"}]":
            depth -= 1
    return False


def _repaired(kind: Kind, backend: str, raw: bytes, place: int) -> tuple[bytes | None, Fault]:
    members = object_members(Payload(raw))
    item = _shown(text_at(members.get(_KEYS[kind])) or f"#{place}")
    changes: list[str] = []
    try:
        usable = _written(kind, _mended(_readable(members, kind, changes), _RULES[kind], "", changes))
    except _Unusable as exc:
        return None, Fault(kind, backend, item, str(exc), is_left_out=True)
    return usable, Fault(kind, backend, item, "; ".join(changes) or "written anew", is_left_out=False)


def _written(kind: Kind, members: Members) -> bytes:
    """The text of repaired members.

    Raises:
        _Unusable: a rule has left something invalid; `kind`'s shape says what.
    """
    written = encode(members)
    try:
        _validate(kind, written)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _Unusable(_shown(str(exc), 160)) from exc
    return written


def _shown(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


# --- rules: value, its path, and the changes so far; the repaired value, or None to remove it -------------------------


class _Unusable(Exception):
    """The item cannot be repaired; the message says why."""


_Rule = Callable[[Payload, str, list[str]], Payload | None]


def _readable(members: Members, kind: Kind, changes: list[str]) -> Members:
    """The members with U+FFFD for each lone surrogate, which no UTF-8 text can hold."""
    if not members:
        raise _Unusable("it is not a readable JSON object")
    found: Members = {}
    for key, value in members.items():
        text = bytes(value)
        found[key] = value
        if (replaced := without_lone_surrogates(text)) is not text:
            if key in ("name", _KEYS[kind]) or (key == "inputSchema" and has_odd_key(text)):
                raise _Unusable(f"{key}: a lone surrogate in a name")
            found[key] = Payload(replaced)
            changes.append(f"{_shown(key)}: lone surrogate replaced")
    if parse_object(encode(found)) is None:
        raise _Unusable("it is not readable JSON")
    if kind is Kind.TOOL:
        found.setdefault("inputSchema", NULL_ID)
    return found


def _mended(members: Members, rules: Mapping[str, _Rule], at: str, changes: list[str]) -> Members:
    """The members after their rules; the same object when nothing changed."""
    found = members
    for key in [key for key in members if key in rules]:
        value = rules[key](members[key], f"{at}{key}", changes)
        if value is None:
            found = {each: kept for each, kept in found.items() if each != key}
        elif value is not members[key]:
            found = {**found, key: value}
    return found


def _removed(value: Payload, at: str, changes: list[str]) -> Payload | None:
    changes.append(f"{at}: {_word(value)} removed")
    return None


def _word(value: Payload) -> str:
    text = bytes(memoryview(value)[:_SHOWN]).decode(errors="replace")
    return {"n": "null", "[": "list", "{": "object"}.get(text[:1], text)


def _optional(type_: Any) -> _Rule:
    """A member that says little: removed unless it has this type."""
    valid = _reader(type_)

    def rule(value: Payload, at: str, changes: list[str]) -> Payload | None:
        if _is(valid, value):
            return value
        return _removed(value, at, changes)

    return rule


def _is(valid: Callable[[Payload], object], value: Payload) -> bool:
    try:
        valid(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _object(rules: Mapping[str, _Rule]) -> _Rule:
    """An object with optional members of its own: removed if it is none."""

    def rule(value: Payload, at: str, changes: list[str]) -> Payload | None:
        members = parse_object(value)
        if members is None:
            return _removed(value, at, changes)
        mended = _mended(members, rules, f"{at}.", changes)
        return value if mended is members else Payload(encode(mended))

    return rule


def _icons(value: Payload, at: str, changes: list[str]) -> Payload | None:
    """A list of icons: one without `src` is removed."""
    if first_byte(value) != b"[":
        return _removed(value, at, changes)
    found: list[Payload] = []
    for place, icon in enumerate(_decode_items(value)):
        mended = _ICON(icon, f"{at}[{place}]", changes)
        if mended is not None and _is(_valid_icon, mended):
            found.append(mended)
        elif mended is not None:
            _removed(icon, f"{at}[{place}]", changes)
    return Payload(encode(found))


def _arguments(value: Payload, at: str, changes: list[str]) -> Payload | None:
    """The arguments of a prompt: one without a name makes the prompt unusable."""
    if first_byte(value) == b"n":
        return _removed(value, at, changes)
    if bytes(value).split() in ([b"{}"], [b"{", b"}"]):
        changes.append(f"{at}: object made a list")
        return Payload(b"[]")
    if first_byte(value) != b"[":
        raise _Unusable(f"{at} is not a list")
    found: list[Payload] = []
    for place, argument in enumerate(_decode_items(value)):
        mended = _ARGUMENT(argument, f"{at}[{place}]", changes)
        if mended is None or text_at(mended, "name") is None:
            raise _Unusable(f"{at}[{place}] has no name")
        found.append(mended)
    return Payload(encode(found))


def _input_schema(value: Payload, at: str, changes: list[str]) -> Payload:
    """The schema of a tool's arguments, which are always an object."""
    members = _schema_members(value, at, changes)
    stated = members.get("type")
    if stated is None or first_byte(stated) == b"n":
        changes.append(f'{at}: "type":"object" added')
    elif text_at(stated) != "object":
        if first_byte(stated) != b"[" or b'"object"' not in [bytes(each) for each in _decode_items(stated)]:
            raise _Unusable(f"{at}.type is {_word(stated)}, not object")
        changes.append(f'{at}.type: list made "object"')
    else:
        return value if members == parse_object(value) else Payload(encode(members))
    return Payload(encode({**members, "type": Payload(b'"object"')}))


def _output_schema(value: Payload, at: str, changes: list[str]) -> Payload | None:
    """The optional schema of a tool's structured result."""
    if first_byte(value) != b"{":
        return _removed(value, at, changes)
    try:
        members = _schema_members(value, at, changes)
    except _Unusable:
        return _removed(value, at, changes)
    mended = value if members == parse_object(value) else Payload(encode(members))
    return mended if is_usable_output_schema(mended) else _removed(value, at, changes)


def _schema_members(value: Payload, at: str, changes: list[str]) -> Members:
    if first_byte(value) in (b"n", b"[") and bytes(value).strip() in (b"null", b"[]"):
        return {}
    members = parse_object(value)
    if members is None:
        raise _Unusable(f"{at} is {_word(value)}, not an object")
    return _mended(members, _SCHEMA, f"{at}.", changes)


def _properties(value: Payload, at: str, changes: list[str]) -> Payload | None:
    if first_byte(value) == b"n":
        return _removed(value, at, changes)
    if first_byte(value) == b"[" and not _decode_items(value):
        changes.append(f"{at}: list made an object")
        return EMPTY
    members = parse_object(value)
    if members is None:
        raise _Unusable(f"{at} is {_word(value)}, not an object")
    mended = _mended(members, dict.fromkeys(members, _property), f"{at}.", changes)
    return value if mended is members else Payload(encode(mended))


def _property(value: Payload, at: str, changes: list[str]) -> Payload:
    if first_byte(value) == b"{":
        return value
    alike = {b"true": EMPTY, b"null": EMPTY, b"[]": EMPTY, b"false": Payload(b'{"not":{}}')}.get(bytes(value).strip())
    if alike is None:
        raise _Unusable(f"{_shown(at)} is {_word(value)}, not a schema")
    changes.append(f"{_shown(at)}: {_word(value)} made a schema")
    return alike


def _required(value: Payload, at: str, changes: list[str]) -> Payload | None:
    if _is(_valid_names, value):
        return value
    if first_byte(value) == b"n" or parse_object(value) == {}:
        return _removed(value, at, changes)
    raise _Unusable(f"{at} is not a list of names")


_decode_items: Final = msgspec.json.Decoder(list[Payload]).decode
_valid_icon: Final = _reader(_Icon)
_valid_names: Final = _reader(list[str])
_TEXT_RULE: Final = _optional(str)
_FLAG_RULE: Final = _optional(bool)
_ICON: Final = _object({"mimeType": _TEXT_RULE, "sizes": _optional(list[str]), "theme": _optional(_Theme)})
_ARGUMENT: Final = _object({"title": _TEXT_RULE, "description": _TEXT_RULE, "required": _FLAG_RULE})
_SCHEMA: Final[Mapping[str, _Rule]] = {"properties": _properties, "required": _required, "$schema": _TEXT_RULE}
_COMMON: Final[Mapping[str, _Rule]] = {
    "title": _TEXT_RULE,
    "description": _TEXT_RULE,
    "icons": _icons,
    "_meta": _object({}),
}
_DOCUMENT: Final[Mapping[str, _Rule]] = {
    **_COMMON,
    "mimeType": _TEXT_RULE,
    "annotations": _object(
        {"audience": _optional(_Roles), "priority": _optional(_Priority), "lastModified": _optional(_Moment)}
    ),
}
_HINT_NAMES: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
_RULES: Final[Mapping[Kind, Mapping[str, _Rule]]] = {
    Kind.TOOL: {
        **_COMMON,
        "inputSchema": _input_schema,
        "outputSchema": _output_schema,
        "annotations": _object({"title": _TEXT_RULE, **dict.fromkeys(_HINT_NAMES, _FLAG_RULE)}),
        "execution": _object({"taskSupport": _optional(_TaskSupport)}),
    },
    Kind.PROMPT: {**_COMMON, "arguments": _arguments},
    Kind.RESOURCE: {**_DOCUMENT, "size": _optional(_Size)},
    Kind.TEMPLATE: _DOCUMENT,
}
