"""Eras, headers against body, and ids: the pure parts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound as reference

from mcp_manifold.errors import RequestError
from mcp_manifold.fronts.checks import repeated, require_modern, speaks_modern
from mcp_manifold.fronts.client_requests import id_key
from mcp_manifold.wire import Payload, error_of, members
from mcp_manifold.wire.param_headers import decode_header, encode_header
from mcp_manifold.wire.protocol import UNSUPPORTED_VERSION
from tests.unit.fronts.fakes import META

VERSION, CAPABILITIES, INFO = (
    f"io.modelcontextprotocol/{key}" for key in ("protocolVersion", "clientCapabilities", "clientInfo")
)
sentinels = st.builds("=?base64?{}?=".format, st.text(alphabet="ABCDabcd0123+/=-é ", max_size=12))


@given(st.text() | sentinels)
def test_names_are_encoded_as_the_sdk_does(name: str) -> None:
    try:
        expected = reference.encode_header_value(name)
    except UnicodeEncodeError:  # a lone surrogate has no bytes
        with pytest.raises(UnicodeEncodeError):
            encode_header(name)
        return
    assert encode_header(name) == expected
    assert decode_header(expected) == name


@given(st.text(alphabet=st.characters(max_codepoint=255)) | sentinels)
def test_headers_are_decoded_as_the_sdk_does(value: str) -> None:
    try:
        expected = reference.decode_header_value(value)
    except ValueError:  # it does not expect anything but ASCII in a wrapping; no value of ours comes that way
        expected = None
    assert decode_header(value) == expected


values: st.SearchStrategy[Any] = st.sampled_from(["2026-07-28", "2025-11-25", "", "echo", 5, None, {}])
metas = st.fixed_dictionaries({}, optional={VERSION: values, CAPABILITIES: st.just({}), INFO: st.just({})}) | values
headers = st.fixed_dictionaries(
    {},
    optional={
        "mcp-protocol-version": st.sampled_from(["2026-07-28", "2025-11-25", ""]),
        "mcp-method": st.sampled_from(["tools/call", "tools/list", "resources/read", ""]),
        "mcp-name": st.sampled_from(["echo", "=?base64?ZWNobw==?=", "=?base64?ZWNobx==?=", "other"]),
    },
)


bodies = st.fixed_dictionaries(
    {}, optional={"_meta": metas, "name": st.just("echo"), "uri": st.sampled_from(["echo", "x"])}
)


def verdict(method: str, params: dict[str, Any], lines: dict[str, str] | None) -> tuple[int, object] | None:
    """Our code and data for a refused request."""
    raw = None if lines is None else {name.encode(): value.encode() for name, value in lines.items()}
    try:
        require_modern(method, members(Payload(json.dumps(params).encode())), raw)
    except RequestError as exc:
        return exc.code, json.loads(error_of(exc, "modern")).get("data")
    return None


@given(st.sampled_from(["tools/call", "tools/list", "resources/read"]), bodies, headers | st.none())
def test_the_ladder_has_the_rungs_of_the_sdk_in_its_order(
    method: str, params: dict[str, Any], lines: dict[str, str] | None
) -> None:
    ours = verdict(method, params, lines)
    expected = reference.classify_inbound_request({"method": method, "params": params}, headers=lines)
    if isinstance(expected, reference.InboundModernRoute):
        assert ours is None
        return
    meta = params.get("_meta")
    if lines is not None and isinstance(meta, dict) and not isinstance(meta.get(VERSION, ""), str):
        assert ours is not None  # that the version is no string is told before it is compared with a header
    elif (lines or {}).get("mcp-protocol-version") == "" and not (isinstance(meta, dict) and VERSION in meta):
        assert ours is not None  # a header that names no revision is told first, with the supported ones
        assert ours[0] == UNSUPPORTED_VERSION
    else:
        assert ours == (expected.code, expected.data)


@pytest.mark.parametrize(
    ("method", "params", "header", "modern"),
    [
        ("tools/list", {}, None, False),
        ("tools/list", {}, b"2025-11-25", False),
        ("tools/list", {"_meta": {"progressToken": 1}}, None, False),
        ("initialize", {"protocolVersion": "2026-07-28"}, None, False),
        ("tools/list", {}, b"2026-07-28", True),
        ("tools/list", {}, b"2099-01-01", True),
        ("tools/list", {"_meta": META}, b"2025-11-25", True),
        ("server/discover", {}, None, True),
    ],
)
def test_the_era_is_what_the_request_says(method: str, params: dict[str, Any], header: bytes, modern: bool) -> None:
    assert speaks_modern(method, members(Payload(json.dumps(params).encode())), header) is modern


json_ids = st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


@given(json_ids, json_ids, st.booleans())
def test_ids_are_the_same_under_any_spelling_and_only_then(one: Any, other: Any, ascii_only: bool) -> None:
    key = id_key(Payload(json.dumps(one, ensure_ascii=True).encode("utf-8", "surrogatepass")))
    respelled = json.dumps(one, ensure_ascii=ascii_only)
    if respelled.isascii() or "\\u" not in json.dumps(one, ensure_ascii=False):
        try:
            assert id_key(Payload(respelled.encode())) == key
        except UnicodeEncodeError:
            return  # a lone surrogate is no UTF-8 and never gets here
    if type(one) is type(other) and one != other:
        assert id_key(Payload(json.dumps(other).encode())) != key


def test_a_number_and_a_string_are_different_ids() -> None:
    assert id_key(Payload(b"1")) == id_key(Payload(b"1.0")) == id_key(Payload(b"10e-1"))
    assert id_key(Payload(b"1")) != id_key(Payload(b'"1"'))
    assert id_key(Payload(b'"a"')) == id_key(Payload(b'"\\u0061"'))
    assert id_key(Payload(b"1e400")) == b"1e400"
    assert id_key(Payload(b"9" * 5000)) == b"9" * 5000


def test_only_headers_that_concern_us_may_not_repeat() -> None:
    lines = [(b"x-forwarded-for", b"1"), (b"x-forwarded-for", b"2"), (b"mcp-name", b"a"), (b"mcp-name", b"a")]
    assert repeated(lines, lambda name: name.startswith(b"mcp-")) == "mcp-name"
    assert repeated(lines[:3], lambda name: name.startswith(b"mcp-")) is None
