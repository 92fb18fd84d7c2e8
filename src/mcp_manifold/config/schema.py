"""The JSON Schema of the configuration file, for editors: derived from the models, with all spellings."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.alias_generators import to_snake

from mcp_manifold.config.dialects import DIALECTS
from mcp_manifold.config.settings import ManifoldSettings, ServerSettings
from mcp_manifold.config.values import NAME_LENGTH

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TRANSPORTS: Final = (
    "stdio",
    "http",
    "streamable-http",
    "streamableHttp",
    "streamable_http",
    "streamable",
    "sse",
    "auto",
)
_REFERENCE: Final[Mapping[str, str]] = {"type": "string", "pattern": r"\$\{"}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the configuration file; a new object on each call."""
    servers = {
        "type": "object",
        "description": "The servers, by name.",
        "propertyNames": {"minLength": 1, "maxLength": NAME_LENGTH, "pattern": r"^[^/+\u0000-\u001f]*$"},
        "additionalProperties": {"$ref": "#/$defs/ServerSettings"},
    }
    manifold, server = _of(ManifoldSettings), _of(ServerSettings)
    tokens = manifold["properties"]["tokens"]
    tokens["items"] = {"anyOf": [{"type": "string"}, tokens["items"]]}
    definitions = {**manifold.pop("$defs"), **server.pop("$defs")}
    definitions |= {"ManifoldSettings": manifold, "ServerSettings": _as_written(server)}
    return {
        "$schema": DIALECT,
        "title": "Configuration of mcp-manifold",
        "type": "object",
        "properties": {
            "$schema": {"type": "string", "description": "The address of this schema, for editors."},
            "mcpServers": servers,
            "servers": {**servers, "description": "Another spelling of `mcpServers`."},
            "manifold": {"$ref": "#/$defs/ManifoldSettings"},
        },
        "not": {"required": ["mcpServers", "servers"]},
        "$defs": {name: _spelled(found) for name, found in sorted(definitions.items())},
    }


def _of(model: type[BaseModel]) -> dict[str, Any]:
    found = model.model_json_schema(by_alias=True, mode="validation", ref_template="#/$defs/{model}")
    for field in model.model_fields.values():  # pydantic leaves out the description of a nested model with metadata
        found["properties"][str(field.alias)].setdefault("description", field.description)
    return found


def _as_written(server: dict[str, Any]) -> dict[str, Any]:
    """The schema of a server entry, with the keys of all dialects."""
    properties = {name: found for name, found in server["properties"].items() if name != "name"}
    tools = {"anyOf": [properties["tools"], {"type": "array", "items": {"type": "string"}}]}
    transport = {"enum": list(_TRANSPORTS)}
    same = "Another spelling of"
    properties |= {
        "transport": {**transport, "description": properties["transport"]["description"]},
        "type": {**transport, "description": f"{same} `transport`."},
        "transportType": {**transport, "description": f"{same} `transport`."},
        "serverUrl": {**properties["url"], "description": f"{same} `url`."},
        "enabled": {"type": "boolean", "description": "The opposite of `disabled`."},
        "tools": {**tools, "description": properties["tools"]["description"]},
        "disabledTools": {
            "type": "array",
            "items": {"type": "string"},
            "description": f"{same} `block` in `tools`.",
        },
    }
    notes = {key.name: key.note for dialect in DIALECTS for key in dialect.keys if key.note}
    properties |= {name: {"description": note[0].upper() + note[1:] + "."} for name, note in sorted(notes.items())}
    reachable = [{"required": ["command"]}, {"required": ["url"]}, {"required": ["serverUrl"]}]
    rest = {key: value for key, value in server.items() if key != "required"}
    return {**rest, "properties": properties, "oneOf": reachable}


def _spelled(model: dict[str, Any]) -> dict[str, Any]:
    """The schema of a model, with references as values and snake_case keys allowed."""
    properties = {name: _or_reference(found) for name, found in model["properties"].items()}
    snakes = {
        to_snake(name): {**found, "description": f"Another spelling of `{name}`."}
        for name, found in properties.items()
        if to_snake(name) != name
    }
    return {**model, "properties": {**properties, **snakes}}


def _or_reference(found: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value, which may be a text with a reference where it is a number, boolean or choice."""
    is_object = isinstance(found.get("default"), dict)  # its own keys have the defaults
    found = {key: value for key, value in found.items() if key != "title" and not (is_object and key == "default")}
    if isinstance(found.get("default"), float):  # a duration, in seconds; a number in the file is milliseconds
        found["default"] = f"{found['default']:g}s"
    if "enum" not in found and found.get("type") not in ("integer", "boolean"):
        return found
    said = {key: value for key, value in found.items() if key in ("description", "default")}
    kind = {key: value for key, value in found.items() if key not in said}
    return {**said, "anyOf": [kind, dict(_REFERENCE)]}
