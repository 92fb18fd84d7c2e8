"""Strings inside objects: read, and replaced with everything around them unchanged."""

import pytest

from mcp_manifold.wire import RELATED_TASK, Payload, text_at, with_text_at

RAW = '{"a" : 1.50,"_meta":{"x":[ null ],"io.modelcontextprotocol/related-task":{"taskId":"t\\u002d1","y":1e999}}}'


def test_a_related_task_is_found_and_replaced() -> None:
    payload = Payload(RAW.encode())
    assert text_at(payload, *RELATED_TASK) == "t-1"
    changed = bytes(with_text_at(payload, 'ne"w', *RELATED_TASK))
    assert b'"taskId":"ne\\"w","y":1e999' in changed
    assert b'"a":1.50,"_meta":{"x":[ null ],' in changed


@pytest.mark.parametrize(
    "raw", ['{"a":{"b":1}}', '{"a":[]}', '{"a":null}', "{}", "[]", "7", '"a"', '{"a":{"b":"\\ud800"}}']
)
def test_a_missing_string_is_none_and_a_missing_path_changes_nothing(raw: str) -> None:
    assert text_at(Payload(raw.encode()), "a", "b") is None
    payload = Payload(b'{ "a":{"c":1}}')
    assert with_text_at(payload, "x", "b", "c") is payload
    assert bytes(with_text_at(payload, "x", "a", "b")) == b'{"a":{"c":1}}'
    assert text_at(None, "a") is None
