"""MCP constants: revisions, error codes, reserved `_meta` keys, method sets. Values only, and what follows from them.

A contract test compares them with `mcp_types`. They are repeated here because importing the SDK takes most of a second,
and a front that answers from the catalogue does not need it.
"""

from typing import Final, Literal

Era = Literal["handshake", "modern"]
"""The two generations of the protocol: revisions with an `initialize` handshake, and 2026-07-28 without one."""

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_HANDSHAKE: Final = HANDSHAKE_VERSIONS[-1]
MODERN_VERSION: Final = "2026-07-28"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
RESOURCE_NOT_FOUND: Final = -32002
URL_ELICITATION_REQUIRED: Final = -32042
HEADER_MISMATCH: Final = -32020
MISSING_CLIENT_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
REQUEST_CANCELLED: Final = -32800

META_PREFIX: Final = "io.modelcontextprotocol/"
META_VERSION: Final = META_PREFIX + "protocolVersion"
META_CLIENT_INFO: Final = META_PREFIX + "clientInfo"
META_CAPABILITIES: Final = META_PREFIX + "clientCapabilities"
META_SERVER_INFO: Final = META_PREFIX + "serverInfo"
META_LOG_LEVEL: Final = META_PREFIX + "logLevel"
META_SUBSCRIPTION: Final = META_PREFIX + "subscriptionId"
META_OWN: Final = "mcp-manifold/"
"""The prefix of our own `_meta` keys in lists. No backend may use it."""
META_MISSING: Final = META_OWN + "missing"
"""In the `_meta` of a list: the servers whose entries are missing or may be outdated, each with the reason."""
META_INVALID: Final = META_OWN + "invalid"
"""In the `_meta` of a list: the entries that were repaired or left out, each with the server and the reason."""
HOP_KEYS: Final = frozenset(
    {META_VERSION, META_CLIENT_INFO, META_CAPABILITIES, META_SERVER_INFO, META_LOG_LEVEL, META_SUBSCRIPTION}
)
"""Members of `_meta` that are valid for one hop: removed from received messages, set anew on sent ones."""

HINTED: Final = frozenset(
    {
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "server/discover",
    }
)
"""Methods whose modern result must carry `ttlMs` and `cacheScope` (2026-07-28 server/utilities/caching)."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Log severities, from the most verbose to the most severe (RFC 5424)."""
DEFAULT_LOG_LEVEL: Final = "info"
"""The log level of a handshake client that set none; the protocol leaves the default to the server."""

NAME_PARAMS: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Method to the member of `params` that the `Mcp-Name` header mirrors (2026-07-28 streamable-http)."""

TASK_METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
"""Methods of the tasks extension; their `Mcp-Name` header mirrors `taskId` (SEP-2663, "Routing Headers")."""

TASKS_EXTENSION: Final = META_PREFIX + "tasks"
UI_EXTENSION: Final = META_PREFIX + "ui"


def era_of(version: str) -> Era:
    """The era of a protocol revision."""
    return "modern" if version == MODERN_VERSION else "handshake"


def negotiate_version(requested: str) -> str:
    """The revision that answers `initialize`: the requested one if supported, else the latest (basic/lifecycle)."""
    return requested if requested in HANDSHAKE_VERSIONS else LATEST_HANDSHAKE
