"""Resource URIs inside results: replaced where they name a resource, and nowhere else."""

import json
from typing import Any

import pytest

from mcp_manifold.wire import Payload, map_resource_refs, ref_steps

LINK = {"type": "resource_link", "uri": "x:1", "name": "n", "extra": None}
FILLER = {"type": "text", "text": "x" * 10_000}
EMBEDDED = {"type": "resource", "resource": {"uri": "x:1", "text": "t", "extra": 1}, "annotations": {}}


def public(uri: str) -> str:
    return "a+" + uri


def mapped(method: str, result: object) -> Any:
    return json.loads(bytes(map_resource_refs(method, Payload(json.dumps(result).encode()), public)))


def uris(method: str, result: object) -> list[str]:
    """All URIs in a mapped result."""
    found: list[str] = []

    def hook(item: dict[str, Any]) -> dict[str, Any]:
        if "uri" in item:
            found.append(item["uri"])
        return item

    json.loads(json.dumps(mapped(method, result)), object_hook=hook)
    return found


def test_tool_results_hold_public_uris() -> None:
    result = {"content": [{"type": "text", "text": "x:1"}, LINK, EMBEDDED], "isError": False, "extra": None}
    found = mapped("tools/call", result)
    assert found["content"][0] == {"type": "text", "text": "x:1"}
    assert found["content"][1] == {**LINK, "uri": "a+x:1"}
    assert found["content"][2] == {**EMBEDDED, "resource": {"uri": "a+x:1", "text": "t", "extra": 1}}
    assert (found["isError"], found["extra"]) == (False, None)


@pytest.mark.parametrize("content", [LINK, EMBEDDED, [LINK], [{"type": "text", "text": ""}, EMBEDDED]])
def test_prompt_messages_and_read_contents_hold_public_uris(content: object) -> None:
    result = {"messages": [{"role": "user", "content": content}, {"role": "user", "content": {"type": "text"}}]}
    assert uris("prompts/get", result) == ["a+x:1"]
    contents = [{"uri": "x:1", "text": "1"}, {"uri": "y:2", "blob": ""}]
    assert uris("resources/read", {"contents": contents}) == ["a+x:1", "a+y:2"]


def encoded(result: object) -> bytes:
    return json.dumps(result).encode()


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("tools/call", encoded({"content": [{"type": "hologram", "uri": "x:1"}, {"uri": "x:1"}]})),
        ("tools/call", encoded({"content": [{"type": "resource", "uri": "x:1"}]})),
        ("tools/call", encoded({"content": [{"type": "resource_link", "resource": {"uri": "x:1"}}]})),
        ("tools/call", encoded({"structuredContent": {"content": [LINK], "uri": "x:1"}})),
        ("tools/call", encoded({"messages": [LINK], "contents": [LINK]})),
        ("tools/call", encoded({"content": LINK})),
        ("tools/call", encoded({"content": [1, None, "uri", [LINK]]})),
        ("tools/call", encoded({"content": [{"type": "text", "text": "x:1"}]})),
        ("tools/call", encoded({"content": [FILLER] * 500})),
        ("tools/call", encoded({"content": [FILLER, {"type": "text", "text": json.dumps(LINK)}], "x": LINK})),
        ("prompts/get", encoded({"messages": {"content": LINK}})),
        ("prompts/get", encoded({"messages": [LINK, 5]})),
        ("resources/read", encoded({"contents": [[LINK]]})),
        ("completion/complete", encoded({"content": [LINK]})),
        ("tasks/get", encoded({"content": [LINK]})),
        ("tools/call", b'{"content":[{"type":"resource_link","uri":5}]}'),
        ("tools/call", b'{"content":[{"type":5,"uri":"x"}]}'),
        ("tools/call", b'{"content":[{"type":"resource_link","uri":"x","a":NaN}]}'),
        ("tools/call", b'{"content":[{"type":"resource_link","uri":"\xff"}]}'),
        ("resources/read", b'{"contents":[{"uri":"x","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"),
        ("tools/call", b'["uri"]'),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_result_without_refs_or_malformed_is_the_same_object(method: str, body: bytes) -> None:
    payload = Payload(body)
    assert map_resource_refs(method, payload, public) is payload


def test_a_result_without_refs_takes_no_step() -> None:
    payload = Payload(encoded({"content": [FILLER] * 500}))
    with pytest.raises(StopIteration) as done:
        next(ref_steps("tools/call", payload, public))
    assert done.value.value is payload


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
def test_a_result_whose_uris_do_not_change_is_the_same_object(method: str) -> None:
    message = {"role": "user", "content": [LINK, EMBEDDED]}
    result = {"content": [LINK, EMBEDDED], "messages": [message], "contents": [{"uri": "x:1"}]}
    payload = Payload(json.dumps(result).encode())
    assert map_resource_refs(method, payload, lambda uri: uri) is payload


def test_everything_beside_a_changed_uri_keeps_its_bytes() -> None:
    body = (
        b'{"content":[{"type":"text", "text":"\\u00e9"},{"type":"resource_link","uri":"x:1","size":1e999}],"z": [1.0] }'
    )
    expected = body.replace(b'"x:1"', b'"a+x:1"').replace(b'"z": [1.0] }', b'"z":[1.0]}')
    assert bytes(map_resource_refs("tools/call", Payload(body), public)) == expected
    large = encoded({"content": [FILLER, LINK]}).replace(b"resource_link", b"re\\u0073ource_link")
    assert b'"a+x:1"' in bytes(map_resource_refs("tools/call", Payload(large), public))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (LINK, ["a+x:1"]),
        (EMBEDDED, ["a+x:1"]),
        ({"type": "hologram", "uri": "x:1"}, ["x:1"]),
        ({"uri": "x:1"}, ["x:1"]),
    ],
)
@pytest.mark.parametrize("odd", [[], [5]])
def test_large_results_are_mapped_like_small_ones(block: dict[str, Any], expected: list[str], odd: list[int]) -> None:
    assert uris("tools/call", {"content": [FILLER, *odd, block]}) == expected


def test_a_long_result_mapped_in_steps_is_the_same() -> None:
    payload = Payload(json.dumps({"content": [LINK, EMBEDDED, FILLER] * 500}).encode())
    steps = ref_steps("tools/call", payload, public)
    for _ in range(1500 // 256 + 2):  # and one before the first block, one after the last
        next(steps)
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert bytes(done.value.value) == bytes(map_resource_refs("tools/call", payload, public))


@pytest.mark.parametrize("filling", ["x" * 200_000, '"' * 200_000, "\\" * 100_000, '"uri' * 50_000, '"uri":' * 40_000])
def test_refs_in_a_large_result_are_found_beside_any_text(filling: str) -> None:
    text, second = {"type": "text", "text": filling}, {"type": "resource_link", "uri": "x:2"}
    assert uris("tools/call", {"content": [text]}) == []
    assert uris("tools/call", {"content": [LINK, text]}) == ["a+x:1"]
    assert uris("tools/call", {"content": [text, EMBEDDED, second]}) == ["a+x:1", "a+x:2"]
