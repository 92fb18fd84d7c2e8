"""Exceptions as JSON-RPC errors, in either era."""

import json
from typing import Any

import pytest

from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    ConfigError,
    InvalidParams,
    MalformedMessage,
    ManifoldError,
    RemoteError,
    RequestError,
    SessionExpired,
    TooManyRequests,
    UnknownItem,
    UnknownMethod,
)
from mcp_manifold.wire import Era, Payload, backend_code, error_of

ERAS: tuple[Era, Era] = ("handshake", "modern")


def sent_error(exc: Exception, era: Era = "handshake", method: str = "tools/call") -> Any:
    return json.loads(error_of(exc, era, method=method))


def remote(raw: bytes) -> RemoteError:
    return RemoteError(raw, code=backend_code(Payload(raw)), backend="notes")


def coded(code: int, data: str = "") -> RemoteError:
    return remote(b'{"code": %d,"message":"their words"%b}' % (code, data.encode()))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("exc", "code", "message"),
    [
        (RequestError("no"), -32600, "no"),
        (RequestError("no", code=-32021), -32021, "no"),
        (MalformedMessage("no", code=-32700), -32700, "no"),
        (MalformedMessage("no"), -32600, "no"),
        (InvalidParams("no"), -32602, "no"),
        (UnknownMethod("no"), -32601, "no"),
        (UnknownItem("tool", "t"), -32602, "Unknown tool: t"),
        (UnknownItem("prompt", "p"), -32602, "Unknown prompt: p"),
    ],
)
def test_a_request_error_has_its_protocol_code(exc: Exception, code: int, message: str, era: Era) -> None:
    assert sent_error(exc, era) == {"code": code, "message": message}


def test_an_unknown_resource_has_the_code_of_the_era() -> None:
    data = {"uri": "x:1"}
    expected = {"code": -32002, "message": "Resource not found: x:1", "data": data}
    assert sent_error(UnknownItem("resource", "x:1"), "handshake") == expected
    assert sent_error(UnknownItem("resource", "x:1"), "modern")["code"] == -32602
    limited = {"code": -32603, "message": "slow down", "data": {"retryAfterSeconds": 1.5}}
    assert sent_error(TooManyRequests("slow down", retry_after=1.5)) == limited


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "kind", [BackendError, BackendUnavailable, BackendTimeout, BackendLost, SessionExpired, BackendProtocolError]
)
def test_a_backend_error_names_the_backend_and_the_reason(kind: type[BackendError], era: Era) -> None:
    found = sent_error(kind("notes", "is gone", since="2026-01-01T00:00:00Z", next_try=1.234, status=502), era)
    assert found == {
        "code": -32603,
        "message": f"notes: is gone. {kind.advice}" if kind.advice else "notes: is gone",
        "data": {
            "server": "notes",
            "reason": kind.__name__,
            "detail": "is gone",
            "since": "2026-01-01T00:00:00Z",
            "nextAttemptInSeconds": 1.2,
            **({"advice": kind.advice} if kind.advice else {}),
        },
    }
    assert "since" not in sent_error(kind("notes", "is gone"), era)["data"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "exc",
    [
        ZeroDivisionError("secret"), ManifoldError("secret"), CallCancelled("secret"),
        ConfigError("secret", path="/etc/secret"), OSError(2, "secret", "/home/secret"), RecursionError("secret"),
    ],
)  # fmt: skip
def test_an_unexpected_exception_reveals_nothing(exc: Exception, era: Era) -> None:
    with pytest.raises(type(exc)) as caught:
        raise exc
    assert sent_error(caught.value, era) == {"code": -32603, "message": "Internal error"}


@pytest.mark.parametrize(
    ("eras", "codes"),
    [
        (ERAS, (-32700, -32600, -32601, -32603, -32000, -32001, -32019, -32020, -32021, -32022, 1, 0, -1)),
        (ERAS[:1], (-32002, -32042, -32023, -32099, -32602)),
    ],
)
def test_a_remote_error_is_relayed_byte_for_byte(eras: tuple[Era, ...], codes: tuple[int, ...]) -> None:
    for exc in (coded(code, ', "data":{"a":1e999,"a":2},"extra":null') for code in codes):
        assert {error_of(exc, era, method="tools/call") for era in eras} == {exc.raw}


def test_modern_clients_never_get_the_handshake_code_of_an_unknown_resource() -> None:
    found = sent_error(coded(-32002, ',"data":{"uri": "x:1"}'), "modern", "resources/read")
    assert found == {"code": -32602, "message": "their words", "data": {"uri": "x:1"}}
    assert sent_error(coded(-32002), "modern", "resources/read") == {"code": -32602, "message": "their words"}


@pytest.mark.parametrize("code", [-32042, -32023, -32050, -32099])
def test_modern_clients_never_get_a_misused_reserved_code(code: int) -> None:
    found = sent_error(coded(code), "modern")
    assert found == {"code": -32603, "message": "their words", "data": {"server": "notes", "code": code}}
    kept = error_of(coded(code, ',"data":[ 1e999 ]'), "modern")
    assert kept == b'{"code":-32603,"message":"their words","data":[ 1e999 ]}'


def test_handshake_clients_get_their_code_of_an_unknown_resource() -> None:
    modern = RemoteError(b'{"code":-32602,"message":"their words"}', code=-32602, backend="notes", era="modern")
    assert sent_error(modern, "handshake", "resources/read")["code"] == -32002
    assert sent_error(coded(-32602, ',"data":1'), "handshake", "resources/read")["code"] == -32602
    assert sent_error(coded(-32602), "modern", "resources/read")["code"] == -32602


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("raw", [b"null", b'"boom"', b"5", b"[]", b"{}", b'{"code":1}', b'{"code":"E1"}'])
def test_an_unreadable_error_object_is_replaced(raw: bytes, era: Era) -> None:
    found = sent_error(remote(raw), era)
    assert found["code"] == -32603
    assert "notes" in found["message"]


def test_the_readable_parts_of_an_error_object_are_relayed() -> None:
    found = sent_error(remote(b'{"code":"E1","message":"their words","data":{"a":1}}'))
    assert found == {"code": -32603, "message": "their words", "data": {"a": 1}}
    for raw in (rb'{"code":-32000,"message":"\ud83d"}', b'{"code":-32000,"message":"x","data":NaN}'):
        assert error_of(remote(raw), "modern") == raw
    recoded = error_of(RemoteError(b'{"code":-32002,"message":"x","data":NaN}', code=-32002, backend="n"), "modern")
    assert recoded == b'{"code":-32602,"message":"x","data":NaN}'


@pytest.mark.parametrize(
    "error",
    [b'{"message":""}', b'{"code":"x"}', b"null", b"", b'{"code":\xff}', b'{"code":1,"data":' + b"[" * 100_000],
    ids=lambda value: repr(value)[:30],
)
def test_an_error_object_without_a_readable_code_counts_as_internal(error: bytes) -> None:
    assert backend_code(Payload(b'{"code":-32000,"message":""}')) == -32000
    assert backend_code(Payload(error)) == -32603
