"""The requests of the load, and the check of their answers.

Every call carries a unique token, and its answer must contain it. A crossed or repeated answer counts as an error. The
first answer of every client is also parsed.
"""

import json
from typing import Any, Final

import orjson

from benchmarks.loadgen.job import MODERN, Job, Tally

CLIENT_INFO: Final = {"name": "benchmark", "version": "1"}
_ENVELOPE: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_PROBE: Final = 2048  # bytes at either end of a large answer that are searched for required and forbidden content


class Messages:
    """Writes the requests of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._meta = b',"_meta":' + orjson.dumps(_ENVELOPE) if job.is_modern else b""
        self._padding = b"x" * max(0, job.size - 24)
        self._names = {tool: json.dumps(tool).encode() for tool in job.tools}

    def initialize(self, id_: int) -> bytes:
        """The initialize request."""
        params = {"protocolVersion": self._job.version, "capabilities": {}, "clientInfo": CLIENT_INFO}
        return orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": "initialize", "params": params})

    def call(self, id_: int, tool: str, token: bytes) -> bytes:
        """A tool call."""
        if self._job.shape == "blob":
            arguments = b'{"token":"%b","size":%d}' % (token, self._job.size)
        else:
            arguments = b'{"text":"%b%b"}' % (token, self._padding)
        head = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%b,"arguments":'
        return b"".join((head % (id_, self._names[tool]), arguments, self._meta, b"}}"))

    def list(self, id_: int) -> bytes:
        """A request for all tools."""
        params = b',"params":{%b}' % self._meta[1:] if self._meta else b""
        return b'{"jsonrpc":"2.0","id":%d,"method":"tools/list"%b}' % (id_, params)


def wrong_call(job: Job, body: bytes, token: bytes, *, thorough: bool) -> str:
    """The error in the answer to a call; empty if it is correct."""
    if token not in body:
        return "not its own answer"
    probe = body if len(body) <= 2 * _PROBE else body[:_PROBE] + body[-_PROBE:]
    if b'"result"' not in probe or b'"isError":true' in probe or b'"isError": true' in probe:
        return "an error"
    if job.shape != "sink" and len(body) < job.size:
        return "too short"
    return _wrong_text(job, body, token.decode()) if thorough else ""


def _wrong_text(job: Job, body: bytes, token: str) -> str:
    try:
        text: str = orjson.loads(body)["result"]["content"][0]["text"]
    except (ValueError, LookupError, TypeError) as exc:
        return f"not to be understood ({exc!r})"
    is_whole = job.shape == "sink" or len(text) >= job.size - 8
    return "" if token in text and is_whole else "another text"


def wrong_list(job: Job, body: bytes, tally: Tally, *, thorough: bool) -> str:
    """The error in a list; empty if it is correct."""
    if b'"result"' not in body[:_PROBE] + body[-_PROBE:]:
        return "no result"
    tally.list_bytes = len(body)
    if not thorough:
        return ""
    try:
        tools: list[dict[str, Any]] = orjson.loads(body)["result"]["tools"]
    except (ValueError, LookupError) as exc:
        return f"not to be understood ({exc!r})"
    if len({tool["name"] for tool in tools}) != len(tools):
        return "names that are not unique"
    return "" if len(tools) >= job.expect_tools else f"{len(tools)} tools instead of {job.expect_tools}"


def own_message(body: bytes, id_: int) -> bytes:
    """The response to request `id_` in an event stream's text; empty if it is absent."""
    wanted = (b'"id":%d,' % id_, b'"id":%d}' % id_, b'"id": %d' % id_)
    for line in body.split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip()
            ends = data[:200] + data[-200:]
            if any(each in ends for each in wanted):
                return data
    return b""
