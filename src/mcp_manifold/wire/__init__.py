"""Messages as bytes: envelopes, surgical rewrites, era envelopes on and off, errors to JSON-RPC.

Pure: knows no socket, no session, no catalogue. Theory: a message is decoded one level deep, the envelope's members,
and where we must route on it the members of `params`. Everything below stays `Payload`, a view on the received
bytes, and is written out as it came (big integers, `1e999`, key order and unknown members included). Re-encoding
happens member by member around those views, never through a model.
"""

from mcp_manifold.wire.asking import (
    NEEDED,
    capabilities_of,
    capability_names,
    refusal,
    relayable_capabilities,
    required_urls,
    signed,
    signed_requests,
    with_extension,
)
from mcp_manifold.wire.envelope import (
    EMPTY,
    NULL_ID,
    UNSET,
    Envelope,
    Payload,
    encode,
    failure,
    first_byte,
    members,
    notification,
    parse,
    parse_backend,
    request,
    response,
    text,
    texts,
)
from mcp_manifold.wire.error import backend_code, error_of, http_status
from mcp_manifold.wire.hop import adapt_result, client_meta, hop_params, modern_stamp, off_hop
from mcp_manifold.wire.links import LONG, link_steps, map_error_link, map_links
from mcp_manifold.wire.paths import RELATED_TASK, renamed, text_at, with_text_at
from mcp_manifold.wire.protocol import (
    HANDSHAKE_VERSIONS,
    LATEST_HANDSHAKE,
    MODERN_VERSION,
    Era,
    era_of,
    negotiate_version,
)

__all__ = [
    "EMPTY",
    "HANDSHAKE_VERSIONS",
    "LATEST_HANDSHAKE",
    "LONG",
    "MODERN_VERSION",
    "NEEDED",
    "NULL_ID",
    "RELATED_TASK",
    "UNSET",
    "Envelope",
    "Era",
    "Payload",
    "adapt_result",
    "backend_code",
    "capabilities_of",
    "capability_names",
    "client_meta",
    "encode",
    "era_of",
    "error_of",
    "failure",
    "first_byte",
    "hop_params",
    "http_status",
    "link_steps",
    "map_error_link",
    "map_links",
    "members",
    "modern_stamp",
    "negotiate_version",
    "notification",
    "off_hop",
    "parse",
    "parse_backend",
    "refusal",
    "relayable_capabilities",
    "renamed",
    "request",
    "required_urls",
    "response",
    "signed",
    "signed_requests",
    "text",
    "text_at",
    "texts",
    "with_extension",
    "with_text_at",
]
