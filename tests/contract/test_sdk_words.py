"""The protocol's words that are written out in this package, held to the SDK's own."""

import inspect
from typing import get_args

import mcp_types
from mcp.client.stdio import DEFAULT_INHERITED_ENV_VARS
from mcp.shared import inbound
from mcp.shared.dispatcher import CallOptions, Dispatcher
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import jsonrpc, version

from mcp_manifold.config import environment
from mcp_manifold.fronts.http_errors import http_status
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, protocol

RESULTS = {
    "tools/list": mcp_types.ListToolsResult,
    "prompts/list": mcp_types.ListPromptsResult,
    "resources/list": mcp_types.ListResourcesResult,
    "resources/templates/list": mcp_types.ListResourceTemplatesResult,
    "resources/read": mcp_types.ReadResourceResult,
    "server/discover": mcp_types.DiscoverResult,
    "tools/call": mcp_types.CallToolResult,
    "prompts/get": mcp_types.GetPromptResult,
    "completion/complete": mcp_types.CompleteResult,
}


def test_the_revisions_are_the_sdks() -> None:
    assert HANDSHAKE_VERSIONS == version.HANDSHAKE_PROTOCOL_VERSIONS
    assert LATEST_HANDSHAKE == version.LATEST_HANDSHAKE_VERSION
    assert (MODERN_VERSION,) == version.MODERN_PROTOCOL_VERSIONS
    assert version.LATEST_MODERN_VERSION == MODERN_VERSION


def test_the_error_codes_are_the_sdks() -> None:
    assert protocol.PARSE_ERROR == jsonrpc.PARSE_ERROR
    assert protocol.INVALID_REQUEST == jsonrpc.INVALID_REQUEST
    assert protocol.METHOD_NOT_FOUND == jsonrpc.METHOD_NOT_FOUND
    assert protocol.INVALID_PARAMS == jsonrpc.INVALID_PARAMS
    assert protocol.INTERNAL_ERROR == jsonrpc.INTERNAL_ERROR
    assert protocol.URL_ELICITATION_REQUIRED == jsonrpc.URL_ELICITATION_REQUIRED
    assert protocol.HEADER_MISMATCH == jsonrpc.HEADER_MISMATCH
    assert protocol.MISSING_CLIENT_CAPABILITY == jsonrpc.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert protocol.UNSUPPORTED_VERSION == jsonrpc.UNSUPPORTED_PROTOCOL_VERSION


def test_the_log_levels_are_the_sdks() -> None:
    assert get_args(mcp_types.LoggingLevel) == protocol.LOG_LEVELS


def test_the_http_statuses_of_errors_are_the_sdks() -> None:
    for code in (*inbound.ERROR_CODE_HTTP_STATUS, jsonrpc.INTERNAL_ERROR, -32000, 1):
        error = b'{"code":%d,"message":""}' % code
        assert http_status(error, "modern") == inbound.ERROR_CODE_HTTP_STATUS.get(code, 200)
        assert (http_status(error, "handshake"), http_status(error, "handshake", is_invalid=True)) == (200, 400)


def test_the_reserved_keys_are_the_sdks() -> None:
    assert protocol.META_VERSION == mcp_types.PROTOCOL_VERSION_META_KEY
    assert protocol.META_CLIENT_INFO == mcp_types.CLIENT_INFO_META_KEY
    assert protocol.META_CAPABILITIES == mcp_types.CLIENT_CAPABILITIES_META_KEY
    assert protocol.META_SERVER_INFO == mcp_types.SERVER_INFO_META_KEY
    assert protocol.META_LOG_LEVEL == mcp_types.LOG_LEVEL_META_KEY
    assert protocol.META_SUBSCRIPTION == SUBSCRIPTION_ID_META_KEY


def test_every_reserved_key_of_the_sdk_is_known_to_speak_of_one_hop() -> None:
    keys = {getattr(mcp_types, name) for name in dir(mcp_types) if name.endswith("_META_KEY")}
    assert keys | {SUBSCRIPTION_ID_META_KEY} == protocol.HOP_KEYS


def test_the_methods_with_caching_hints_are_the_sdks() -> None:
    hinted = {method for method, result in RESULTS.items() if issubclass(result, mcp_types.CacheableResult)}
    assert hinted == protocol.HINTED


def test_the_members_a_header_mirrors_are_the_sdks() -> None:
    assert dict(inbound.NAME_BEARING_METHODS) == protocol.NAME_PARAMS


def test_what_a_child_inherits_is_the_sdks_list() -> None:
    assert set(DEFAULT_INHERITED_ENV_VARS) == set(environment.INHERITED)


def test_a_dispatcher_is_still_asked_for_what_ours_has() -> None:
    known = {name for name in dir(Dispatcher) if not name.startswith("_")}
    assert known == {"run", "send_raw_request", "notify"}
    assert list(inspect.signature(Dispatcher.run).parameters) == [
        "self",
        "on_request",
        "on_notify",
        "on_notify_intercept",
        "task_status",
    ]
    assert list(inspect.signature(Dispatcher.send_raw_request).parameters) == ["self", "method", "params", "opts"]
    assert list(inspect.signature(Dispatcher.notify).parameters) == ["self", "method", "params", "opts"]
    assert "timeout" in CallOptions.__annotations__
