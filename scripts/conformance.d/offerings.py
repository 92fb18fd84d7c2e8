"""The items of the conformance backend and its fixed payloads.

The names and texts are the ones the official conformance suite asks a server to have.
"""

from typing import Any

import mcp_types as types

WATCHED_URI = "test://watched-resource"
TEMPLATE_URI = "test://template/{id}/data"

Schema = dict[str, Any]


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""One red pixel."""
WAV = "UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA=="
"""Eight silent samples."""


def text(words: str) -> types.TextContent:
    return types.TextContent(text=words)


def image() -> types.ImageContent:
    return types.ImageContent(data=PNG, mime_type="image/png")


def audio() -> types.AudioContent:
    return types.AudioContent(data=WAV, mime_type="audio/wav")


def embedded(uri: str, mime_type: str, words: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=words))


def form(**properties: Schema) -> Schema:
    """An object schema in which every named property is required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "object", "properties": {}}

CONTACT_FORM = form(
    username={"type": "string", "description": "The name to use"},
    email={"type": "string", "description": "The address to write to"},
)
DEFAULTS_FORM: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
    "required": [],
}
_PLAIN = ["option1", "option2", "option3"]
_TITLED = [{"const": f"value{n}", "title": f"Title {n}"} for n in (1, 2, 3)]
ENUMS_FORM: Schema = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _PLAIN},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["One", "Two", "Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _PLAIN}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
    "required": [],
}
# Every keyword here must survive a listing: dialect, definitions with an anchor, composition, conditionals.
RICH_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", **form(street=STRING, city=STRING)}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
HEADER_SCHEMA = form(region={"type": "string", "x-mcp-header": "Region", "description": "Mirrored in a header"})

# Tools whose schema is more than "no arguments"; every other tool takes nothing.
TOOL_SCHEMAS: dict[str, Schema] = {
    "test_sampling": form(prompt=STRING),
    "test_elicitation": form(message=STRING),
    "json_schema_2020_12_tool": RICH_SCHEMA,
    "test_header_parameter": HEADER_SCHEMA,
}


def tool(name: str) -> types.Tool:
    words = name.removeprefix("test_").replace("_", " ")
    return types.Tool(name=name, description=f"Conformance: {words}", input_schema=TOOL_SCHEMAS.get(name, NOTHING))


def _resource(uri: str, mime_type: str) -> types.Resource:
    name = uri.removeprefix("test://")
    return types.Resource(name=name, uri=uri, description=f"Conformance: {name}", mime_type=mime_type)


RESOURCES = [
    _resource("test://static-text", "text/plain"),
    _resource("test://static-binary", "image/png"),
    _resource(WATCHED_URI, "text/plain"),
]
TEMPLATES = [
    types.ResourceTemplate(
        name="template-data",
        uri_template=TEMPLATE_URI,
        description="Data by id",
        mime_type="application/json",
    )
]


def prompt(name: str, *arguments: str) -> types.Prompt:
    needed = [types.PromptArgument(name=a, description=f"The {a}", required=True) for a in arguments]
    words = name.removeprefix("test_").replace("_", " ")
    return types.Prompt(name=name, description=f"Conformance: {words}", arguments=needed or None)


PROMPTS = [
    prompt("test_simple_prompt"),
    prompt("test_prompt_with_arguments", "arg1", "arg2"),
    prompt("test_prompt_with_embedded_resource", "resourceUri"),
    prompt("test_prompt_with_image"),
    prompt("test_input_required_result_prompt"),
]
