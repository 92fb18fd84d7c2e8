"""The servers' answers, as the bytes of a JSON-RPC result."""

from typing import Any, Final

import orjson

from benchmarks.servers.tools import CAPABILITIES, negotiated, tools

_HEAD: Final = 40  # characters of the text that `sink` returns, the token included
_DISCOVERED: Final = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": CAPABILITIES,
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "private",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "reference", "version": "1"}},
}


class Answers:
    """Answers requests of both eras; 2026-07-28 results have more members."""

    def __init__(self, count: int, *, speaks_modern: bool = False) -> None:
        listed = {
            "tools/list": b'{"tools":%b' % orjson.dumps(tools(count)),
            "resources/list": b'{"resources":[]',
            "resources/templates/list": b'{"resourceTemplates":[]',
            "prompts/list": b'{"prompts":[]',
        }
        tail = b',"resultType":"complete","ttlMs":0,"cacheScope":"private"}'
        self._plain = {method: body + b"}" for method, body in listed.items()} | {"ping": b"{}"}
        self._modern = {method: body + tail for method, body in listed.items()}
        if speaks_modern:
            self._plain["server/discover"] = self._modern["server/discover"] = orjson.dumps(_DISCOVERED)
        self._fills: dict[int, bytes] = {}

    def result(self, message: dict[str, Any], *, modern: bool = False) -> bytes | None:
        """The result of a request; None for an unknown method."""
        method = message["method"]
        if method == "tools/call":
            return self._called(message["params"], b',"resultType":"complete"}' if modern else b"}")
        if method == "initialize":
            version = negotiated(message["params"].get("protocolVersion"))
            server = {"name": "reference", "version": "1"}
            return orjson.dumps({"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": server})
        return (self._modern if modern else self._plain).get(method)

    def _called(self, params: dict[str, Any], tail: bytes) -> bytes:
        arguments = params.get("arguments") or {}
        match params["name"]:
            case "blob":
                size = arguments["size"]
                fill = self._fills.get(size)
                if fill is None:
                    fill = self._fills[size] = b"x" * size
                text = b"".join((orjson.dumps(arguments["token"])[:-1], fill, b'"'))
            case "sink":
                text = orjson.dumps(arguments["text"][:_HEAD])
            case _:
                text = orjson.dumps(arguments.get("text", ""))
        return b"".join((b'{"content":[{"type":"text","text":', text, b'}],"isError":false', tail))
