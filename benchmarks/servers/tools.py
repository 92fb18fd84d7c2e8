"""The tools of the servers: three that are called, and any number of realistic size."""

import itertools
from typing import Any, Final

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
CAPABILITIES: Final = {"tools": {"listChanged": False}, "resources": {}, "prompts": {}}

_VERBS: Final = ("get", "list", "create", "update", "search", "delete", "export", "sync", "merge", "review")
_NOUNS: Final = (
    "issue", "pull_request", "customer", "invoice", "document", "calendar_event", "channel", "repository", "dashboard",
    "deployment", "workflow", "ticket",
)  # fmt: skip


def _tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    schema = {key: {"type": type_} for key, type_ in properties.items()}
    required = {"type": "object", "properties": schema, "required": [*properties]}
    return {"name": name, "description": description, "inputSchema": required}


_CALLED: Final = (
    _tool("echo", "Return the text unchanged: large both ways.", text="string"),
    _tool("blob", "Return the token and as many characters: a large result.", token="string", size="integer"),
    _tool("sink", "Return the first characters of the text: large arguments.", text="string"),
)


def _realistic(number: int) -> dict[str, Any]:
    """A tool of about 1.1 kB, as in public servers."""
    verb, noun = _VERBS[number % len(_VERBS)], _NOUNS[(number // len(_VERBS)) % len(_NOUNS)]
    plain = noun.replace("_", " ")
    return {
        "name": f"{verb}_{noun}_{number}",
        "title": f"{verb.title()} {plain}",
        "description": (
            f"{verb.title()} one or more {plain} records in the connected workspace. Returns the matching records with "
            "their identifiers, state, owner and time stamps. Use a filter to narrow the selection; results are paged."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "workspace": {"type": "string", "description": "Workspace identifier, e.g. `acme-prod`"},
                "id": {"type": "string", "description": f"Identifier of the {noun}"},
                "state": {"type": "string", "enum": ["open", "closed", "all"], "default": "open"},
                "labels": {"type": "array", "items": {"type": "string"}, "description": "Labels to match, all of them"},
                "since": {"type": "string", "format": "date-time", "description": "Only records changed after this"},
                "page": {"type": "integer", "minimum": 1, "default": 1},
                "per_page": {"type": "integer", "minimum": 1, "maximum": 100, "default": 30},
                "sort": {
                    "type": "object",
                    "properties": {
                        "field": {"type": "string", "enum": ["created", "updated", "comments"]},
                        "direction": {"type": "string", "enum": ["asc", "desc"]},
                    },
                    "additionalProperties": False,
                },
            },
            "required": ["workspace"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": verb in ("get", "list", "search"), "openWorldHint": True},
    }


def tools(count: int) -> list[dict[str, Any]]:
    """This many tools, the called ones first."""
    return list(itertools.islice(itertools.chain(_CALLED, map(_realistic, itertools.count())), count))


def negotiated(requested: object) -> str:
    """The revision that a handshake server selects."""
    return requested if isinstance(requested, str) and requested in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
