"""The call log: one line per call, without its contents."""

import logging

import pytest

from mcp_manifold.errors import UnknownItem
from mcp_manifold.model.policy import Principal
from mcp_manifold.stages import CallLog, logger
from mcp_manifold.wire import Payload
from tests.unit.stages.calls import Outcome, make_call, observe

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("outcome", "word", "error"),
    [
        (Payload(b'{"content":"%b"}' % SECRET.encode()), "ok", ""),
        (Payload(b'{"isError":true}'), "tool_error", ""),
        (UnknownItem("tool", SECRET), "invalid", "UnknownItem"),
        (ZeroDivisionError(SECRET), "internal_error", "ZeroDivisionError"),
    ],
)
def test_a_call_is_one_line(outcome: Outcome, word: str, error: str, caplog: pytest.LogCaptureFixture) -> None:
    params = {"name": Payload(b'"t"'), "arguments": Payload(b'{"password":"%b"}' % SECRET.encode())}
    call = make_call(
        params=params, key=f"key-{SECRET}", scope="group:team", principal=Principal("alice", f"principal-{SECRET}")
    )
    with caplog.at_level(logging.DEBUG, logger.name):
        observe(CallLog(), call, outcome, backend="notes")
    (record,) = [record for record in caplog.records if record.name == logger.name]
    assert record.getMessage() == f"tools/call {word} in 250.0 ms"
    fields = {name: getattr(record, name) for name in ("backend", "principal", "scope", "error")}
    assert fields == {"backend": "notes", "principal": "alice", "scope": "group:team", "error": error}
    assert SECRET not in repr(record.__dict__)


@pytest.mark.parametrize(("level", "is_active"), [(logging.DEBUG, True), (logging.INFO, False)])
def test_the_call_log_is_active_at_debug_only(level: int, is_active: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(level, logger.name):
        assert CallLog().is_active is is_active
