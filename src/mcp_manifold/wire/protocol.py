"""The protocol's fixed words: revisions, error codes, reserved keys. Values only.

Written out here, and held to `mcp_types` by a contract test, because importing the SDK takes most of a second and a
front that answers from the catalogue does not need it.
"""

from typing import Final, Literal

Era = Literal["handshake", "modern"]

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
META_MISSING: Final = "mcp-manifold/missing"
"""In the `_meta` of a list: the servers that are missing in it, or whose entries may be old, and why."""
HOP_KEYS: Final = frozenset(
    {META_VERSION, META_CLIENT_INFO, META_CAPABILITIES, META_SERVER_INFO, META_LOG_LEVEL, META_SUBSCRIPTION}
)
"""Members of `_meta` that speak of one hop only: removed from what we receive, set anew on what we send."""

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
"""The severities of log messages, from the most verbose to the gravest (RFC 5424)."""
DEFAULT_LOG_LEVEL: Final = "info"
"""What a handshake-era client that set no level hears of its own calls; the protocol leaves it to the server."""

NAME_PARAMS: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Method to the member of `params` that the `Mcp-Name` header mirrors (2026-07-28 streamable-http)."""

TASK_METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
"""Methods of the tasks extension; on them `Mcp-Name` mirrors `taskId` (SEP-2663, "Routing Headers")."""

TASKS_EXTENSION: Final = META_PREFIX + "tasks"
UI_EXTENSION: Final = META_PREFIX + "ui"


def era_of(version: str) -> Era:
    """The era a protocol revision belongs to."""
    return "modern" if version == MODERN_VERSION else "handshake"


def negotiate_version(requested: str) -> str:
    """The handshake revision to answer `initialize` with: the requested one, else the latest (basic/lifecycle)."""
    return requested if requested in HANDSHAKE_VERSIONS else LATEST_HANDSHAKE
