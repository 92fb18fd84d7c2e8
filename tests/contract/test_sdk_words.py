"""The protocol's words that are written out in this package, held to the SDK's own."""

import inspect

import pytest
from mcp import types as sdk_types
from mcp.client.stdio import DEFAULT_INHERITED_ENV_VARS
from mcp.shared import dispatcher, inbound
from mcp_types import jsonrpc, version

from mcp_manifold.config import environment
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, http_status, protocol


def test_the_revisions_are_the_sdks() -> None:
    assert tuple(version.HANDSHAKE_PROTOCOL_VERSIONS) == HANDSHAKE_VERSIONS
    assert version.LATEST_HANDSHAKE_VERSION == LATEST_HANDSHAKE
    assert tuple(version.MODERN_PROTOCOL_VERSIONS) == (MODERN_VERSION,)
