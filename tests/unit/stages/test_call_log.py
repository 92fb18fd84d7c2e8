"""The call log: one line per call, without its contents."""

import asyncio
import logging

import pytest

from mcp_manifold.errors import BackendTimeout, CallCancelled, UnknownItem
from mcp_manifold.model.call import Call, Session, Stages
from mcp_manifold.model.policy import Principal
from mcp_manifold.stages import CallLog, logger
from mcp_manifold.wire import EMPTY, Payload

pytestmark = pytest.mark.anyio
SECRET = "hunter2"


def unheard(message: bytes, /, *, needed: bool = True) -> None:
    raise AssertionError(message)


def call() -> Call:
    session = Session(f"key-{SECRET}", Principal("alice", f"principal-{SECRET}"), "group:team", "2025-11-25")
    params = {"name": Payload(b'"t"'), "arguments": Payload(b'{"password":"%b"}' % SECRET.encode())}
    return Call("tools/call", params, session, unheard)


async def ran(
    outcome: Exception | Payload | None, log: pytest.LogCaptureFixture, level: int
) -> list[logging.LogRecord]:
    async def handler(call: Call) -> Payload:
        call.backend = "notes"
        if isinstance(outcome, Payload):
            return outcome
        if outcome is None:
            raise asyncio.CancelledError
        raise outcome

    with log.at_level(level, logger.name):
        (found,) = await asyncio.gather(Stages([CallLog()]).around(handler)(call()), return_exceptions=True)
    assert found is outcome or isinstance(found, asyncio.CancelledError)
    return [record for record in log.records if record.name == logger.name]


@pytest.mark.parametrize(
    ("outcome", "word", "error"),
    [
        (Payload(b'{"content":"%b"}' % SECRET.encode()), "ok", ""),
        (Payload(b'{"isError":true}'), "tool_error", ""),
        (UnknownItem("tool", SECRET), "invalid", "UnknownItem"),
        (BackendTimeout("notes", SECRET), "timeout", "BackendTimeout"),
        (CallCancelled(SECRET), "cancelled", "CallCancelled"),
        (None, "cancelled", "CancelledError"),
        (ZeroDivisionError(SECRET), "internal_error", "ZeroDivisionError"),
    ],
)
async def test_a_call_is_logged_on_one_line_without_its_contents(
    outcome: Exception | Payload | None, word: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    (record,) = await ran(outcome, caplog, logging.DEBUG)
    assert record.getMessage().startswith(f"tools/call {word} in ")
    told = {name: getattr(record, name) for name in ("backend", "principal", "scope", "error")}
    assert told == {"backend": "notes", "principal": "alice", "scope": "group:team", "error": error}
    assert SECRET not in repr(record.__dict__)


async def test_nothing_is_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    assert await ran(EMPTY, caplog, logging.INFO) == []
    assert await ran(CallCancelled("x"), caplog, logging.INFO) == []
