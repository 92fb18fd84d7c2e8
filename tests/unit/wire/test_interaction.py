"""Server requests: the capabilities they need, and the server named in elicitations."""

import json

import pytest

from mcp_manifold.wire import Payload, capability_names, refusal, signed
from mcp_manifold.wire.interaction import relayable_capabilities

FORM = b'{"message":"?","requestedSchema":{}}'
URL = b'{"mode":"url","message":"?","url":"https://example.org","elicitationId":"1"}'


def refused(method: str, params: bytes | None, capabilities: bytes) -> int | None:
    error = refusal(method, None if params is None else Payload(params), Payload(capabilities))
    return None if error is None else json.loads(error)["code"]


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "code"),
    [
        ("roots/list", None, b'{"roots":{}}', None),
        ("roots/list", b"{}", b'{"roots":{"listChanged":true}}', None),
        ("roots/list", None, b"{}", -32601),
        ("roots/list", None, b"null", -32601),
        ("sampling/createMessage", b'{"messages":[]}', b'{"sampling":{}}', None),
        ("sampling/createMessage", b'{"messages":[]}', b'{"roots":{}}', -32601),
        ("sampling/createMessage", b'{"tools":[]}', b'{"sampling":{}}', -32602),
        ("sampling/createMessage", b'{"toolChoice":{},"x":NaN}', b'{"sampling":{}}', -32602),
        ("sampling/createMessage", b'{"tools":[]}', b'{"sampling":{"tools":{}}}', None),
        ("elicitation/create", FORM, b'{"elicitation":{}}', None),
        ("elicitation/create", FORM, b'{"elicitation":{"form":{}}}', None),
        ("elicitation/create", FORM, b'{"elicitation":{"url":{}}}', -32602),
        ("elicitation/create", URL, b'{"elicitation":{}}', -32602),
        ("elicitation/create", URL, b'{"elicitation":{"form":{}}}', -32602),
        ("elicitation/create", URL, b'{"elicitation":{"url":{}}}', None),
        ("elicitation/create", URL, b"{}", -32601),
        ("elicitation/create", URL[:-1] + b',"x":NaN}', b'{"elicitation":{}}', -32602),
        ("elicitation/create", b'{"message":"?","mode":5}', b'{"elicitation":{}}', -32602),
        ("elicitation/create", b"[1]", b'{"elicitation":{}}', -32602),
        ("elicitation/create", rb'{"\ud800":1,"mode":"url"}', b'{"elicitation":{}}', -32602),
        ("unheard/of", None, b"{}", None),
    ],
)
def test_a_request_needs_capability(method: str, params: bytes | None, capabilities: bytes, code: int | None) -> None:
    assert refused(method, params, capabilities) == code


@pytest.mark.parametrize("message", [b'"Your name?"', rb'"\ud83d"', b'"a\x01"', rb'"\"]"', b'""'])
def test_an_elicitation_names_its_server_and_keeps_its_text(message: bytes) -> None:
    found = signed("elicitation/create", Payload(b'{"message":%b,"x":1e999}' % message), "notes")
    assert found is not None
    assert bytes(found) == b'{"message":"[notes] %b,"x":1e999}' % message[1:]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        *(("elicitation/create", params) for params in (None, b"{}", b'{"message":5}', b"[]")),
        ("sampling/createMessage", FORM),
    ],
)
def test_requests_without_a_message_and_other_requests_are_unchanged(method: str, params: bytes | None) -> None:
    payload = None if params is None else Payload(params)
    assert signed(method, payload, "notes") is payload


def test_only_server_request_capabilities_are_relayed_between_eras() -> None:
    declared = Payload(b'{"tasks":{},"sampling":{ "tools":{} },"roots":{},"extensions":{},"elicitation":{}}')
    assert json.loads(bytes(relayable_capabilities(declared))).keys() == {"roots", "sampling", "elicitation"}
    assert b'{ "tools":{} }' in bytes(relayable_capabilities(declared))
    assert capability_names(declared) == {"tasks", "sampling", "roots", "extensions", "elicitation"}
    assert bytes(relayable_capabilities(Payload(b"null"))) == b"{}"
