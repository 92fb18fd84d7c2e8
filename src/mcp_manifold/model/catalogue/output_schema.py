"""Whether a tool's `outputSchema` is one that the TypeScript SDK can compile. Pure.

Its client compiles each when it lists, and rejects the whole list for one that it cannot. References are not judged in
a schema with an `$id`, and of patterns only the syntax that JavaScript never has.
"""

from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec

from mcp_manifold.wire import Payload

_UNSET: Final = msgspec.UNSET
_DRAFT: Final = "http://json-schema.org/draft-07/schema"  # the compiler knows it
_VALUES: Final = ("const", "default", "enum", "examples")  # keywords whose members are no schemas
_PYTHON_ONLY: Final = r"^(?!(?:\\.|[^\\])*?(?:\(\?(?:P|[aiLmsux])|\\[AZ]))"

_Type = Literal["object", "array", "string", "number", "integer", "boolean", "null"]
_Number = int | float | msgspec.UnsetType
_Text = str | msgspec.UnsetType


class _Schema(msgspec.Struct, rename="camel"):
    """A schema, with the keywords whose types the compiler checks."""

    type: _Type | list[_Type] | msgspec.UnsetType = _UNSET
    nullable: Any = _UNSET
    id: Any = _UNSET
    ref: _Text = msgspec.field(name="$ref", default=_UNSET)
    enum: Annotated[list[Any], msgspec.Meta(min_length=1)] | msgspec.UnsetType = _UNSET
    pattern: Annotated[str, msgspec.Meta(pattern=_PYTHON_ONLY)] | msgspec.UnsetType = _UNSET
    format: _Text = _UNSET
    minimum: _Number = _UNSET
    maximum: _Number = _UNSET
    exclusive_minimum: _Number = _UNSET
    exclusive_maximum: _Number = _UNSET
    multiple_of: _Number = _UNSET
    min_length: _Number = _UNSET
    max_length: _Number = _UNSET
    min_items: _Number = _UNSET
    max_items: _Number = _UNSET
    min_properties: _Number = _UNSET
    max_properties: _Number = _UNSET
    unique_items: bool | msgspec.UnsetType = _UNSET
    required: list[str] | msgspec.UnsetType = _UNSET
    properties: "dict[str, _Schema | bool] | msgspec.UnsetType" = _UNSET
    pattern_properties: "dict[str, _Schema | bool] | msgspec.UnsetType" = _UNSET
    additional_properties: "_Schema | bool | msgspec.UnsetType" = _UNSET
    property_names: "_Schema | bool | msgspec.UnsetType" = _UNSET
    items: "_Schema | bool | list[_Schema | bool] | msgspec.UnsetType" = _UNSET
    contains: "_Schema | bool | msgspec.UnsetType" = _UNSET
    all_of: "list[_Schema | bool] | msgspec.UnsetType" = _UNSET
    any_of: "list[_Schema | bool] | msgspec.UnsetType" = _UNSET
    one_of: "list[_Schema | bool] | msgspec.UnsetType" = _UNSET
    not_: "_Schema | bool | msgspec.UnsetType" = msgspec.field(name="not", default=_UNSET)

    def __post_init__(self) -> None:
        if self.id is not _UNSET or (self.nullable is not _UNSET and self.type is _UNSET):
            raise ValueError("`id`, and `nullable` without `type`, are refused")


class _OutputSchema(_Schema, rename="camel"):
    """A whole schema, as both SDKs read it."""

    properties: dict[str, _Schema] | msgspec.UnsetType = _UNSET  # type: ignore[assignment]  # narrower on purpose
    dialect: _Text = msgspec.field(name="$schema", default=_UNSET)


_decode: Final = msgspec.json.Decoder(_OutputSchema).decode
_decode_any: Final = msgspec.json.Decoder().decode


def is_usable_output_schema(value: Payload) -> bool:
    """Whether both SDKs accept a list with a tool of this `outputSchema`."""
    text = bytes(value)
    try:
        _decode(text)
        if b'"$ref"' not in text or b'"$id"' in text:
            return True
        return _resolves(schema := _decode_any(text), schema, has_anchors=b'"$anchor"' in text)
    except (msgspec.DecodeError, RecursionError):
        return False


def _resolves(part: Any, schema: Any, *, has_anchors: bool) -> bool:
    """Whether each reference in a part of a schema leads to a part of it."""
    if isinstance(part, list):
        return all(_resolves(each, schema, has_anchors=has_anchors) for each in part)
    if not isinstance(part, dict):
        return True
    target = part.get("$ref")
    if isinstance(target, str) and not _is_known(target, schema, has_anchors=has_anchors):
        return False
    return all(_resolves(part[key], schema, has_anchors=has_anchors) for key in part if key not in _VALUES)


def _is_known(target: str, schema: Any, *, has_anchors: bool) -> bool:
    if not target.startswith("#/"):
        return target.removesuffix("#") in ("", _DRAFT) or (has_anchors and target.startswith("#"))
    for step in target.split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and key.isdigit() and int(key) < len(schema):
            schema = schema[int(key)]
        elif isinstance(schema, dict) and key in schema:
            schema = schema[key]
        else:
            return False
    return True
